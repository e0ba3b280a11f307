"""Cut Qwen into pieces: raw quantised tensors, the embedding as int8 rows of the tokens that occur."""
import json, sys, pickle
from pathlib import Path
import numpy as np, pyarrow.parquet as pq
import gguf
from transformers import AutoTokenizer
G = sys.argv[1]  # the folder of the GGUF file
OUT = Path("OUT")
tok = AutoTokenizer.from_pretrained(G, gguf_file="model.gguf")
tok.save_pretrained(OUT / "tok")
used = set()
def add(texts):
    for s in range(0, len(texts), 20000):
        for ids in tok(texts[s:s+20000], add_special_tokens=False)["input_ids"]:
            used.update(ids)
h = pq.read_table(OUT / "data/human.parquet").to_pylist()
p = pq.read_table(OUT / "data/products.parquet").to_pylist()
q = pq.read_table(OUT / "data/queries.parquet").to_pylist()
for rows in (h, p):
    for f in ("title", "brand", "color", "category"):
        t = sorted({r[f] for r in rows if r[f]})
        for pre in (" ", "", " | "):
            add([pre + x for x in t])
qs = sorted({r["query"] for r in h} | {r["query"] for r in q})
for pre in (" ", "", ' "'): add([pre + x for x in qs])
used.update(range(0, 2000))
add(["<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n",
  "A shopper searches an online shop for: ", "\nIs the following product itself a ", ", not an accessory or a part for one? Answer yes or no.\nProduct:", "Is this product itself a ", " (not an accessory or part for one)? ", "yes Yes no No YES NO", "yes", "Yes", " yes", " Yes", "YES", "no", "No", " no", " No", "NO", " |", "|", "?", " brand", " colour", "\n\n", "Query: Product: relevant"])
used |= {151643, 151644, 151645}
ids = np.array(sorted(used)); print("used ids", len(ids))
np.save(OUT / "used.npy", ids)
r = gguf.GGUFReader(G + "/model.gguf")
pieces, now, size, meta, n = [], [], 0, [], 0
def put(name, shape, kind, data):
    global size
    raw = data.tobytes()
    (OUT / "raw").mkdir(exist_ok=True)
    meta.append([name, [int(x) for x in shape], kind, len(raw)])
    blob.write(raw)
blob = open(OUT / "all.bin", "wb")
for t in r.tensors:
    shape = list(reversed([int(x) for x in t.shape]))
    if t.name in ("token_embd.weight", "output.weight"):
        w = gguf.dequantize(t.data, t.tensor_type)[ids]
        s = np.abs(w).max(1, keepdims=True) / 127
        put(t.name + ".int8", w.shape, "int8", np.round(w / s).astype(np.int8))
        put(t.name + ".scale", s.shape, "f32", s.astype(np.float32))
    else:
        put(t.name, shape, int(t.tensor_type), np.asarray(t.data))
blob.close()
json.dump(meta, open(OUT / "meta.json", "w"))
import os
total = os.path.getsize(OUT / "all.bin"); print("MB", total / 1e6, [m for m in meta if "int8" in m[0]], len(meta))
import json, os, gzip
from pathlib import Path
import numpy as np
meta = json.load(open("OUT/meta.json"))
src = open("OUT/all.bin", "rb").read()
out, keep, at = bytearray(), [], 0
for name, shape, kind, n in meta:
    raw = src[at:at+n]; at += n
    if name.startswith("output.weight"): continue
    keep.append([name, shape, kind, n]); out += raw
json.dump(keep, open("OUT/meta.json", "w"))
P = 59 * 2**20
k = 0
for s in range(0, len(out), P):
    d = Path(f"OUT/p{k:02d}"); d.mkdir(exist_ok=True)
    (d / f"w{k:02d}").write_bytes(out[s:s+P]); k += 1
open("OUT/all.bin", "wb").write(out)
print(k, len(out))
