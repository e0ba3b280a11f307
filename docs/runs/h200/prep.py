"""Prepare texts and weights for the GPU machine: OUT/data (Parquet), OUT/tok (tokenizer), OUT/p?? (weights)."""
import json, hashlib, sys, gzip
from pathlib import Path
import numpy as np, pyarrow as pa, pyarrow.parquet as pq
sys.path.insert(0, ".")
from training.data.sources import read_sources, FIELDS
from training.data.augment import unique_products
from training.data.splits import normalize_query, query_words
from training.sections.data import DataRecipe

def read_jsonl(path):
    return map(json.loads, gzip.open(path, "rt", encoding="utf-8"))

D = "../shared/data/"
OUT = Path("OUT/data"); OUT.mkdir(exist_ok=True)
recipe = DataRecipe.model_validate({"sources": [
    {"kind": "judged", "name": n, "path": D + n} | ({"locales": ["us"]} if n.startswith("esci") else {})
    for n in ("esci", "esci_extra", "chorus_icecat", "haystack_icecat", "wands")]})
rows = read_sources(recipe)
size = {}
for r in rows:
    size[(r["dataset"], normalize_query(r["query"]))] = size.get((r["dataset"], normalize_query(r["query"])), 0) + 1
full = {q for (d, q), n in size.items() if n >= (20 if d == "esci" else 5)}
def place(q):
    return int.from_bytes(hashlib.sha256(f"full-lists\0{q}".encode()).digest()[:8], "big") / 2**64
split, words = {}, {}
for q in full:
    p = place(query_words(q))
    split[q] = "test" if p < 0.3 else "validation" if p < 0.6 else "train"
for q, s in split.items():
    if s != "train":
        words[query_words(q)] = s
for r in rows:
    q = normalize_query(r["query"])
    r["split"] = words.get(query_words(q), split.get(q, "train"))
keep = ["dataset", "query_id", "query", "product_id", "title", "brand", "color", "category", "label", "grade", "target", "gain", "split"]
pq.write_table(pa.Table.from_pylist([{k: r[k] for k in keep} for r in rows]), OUT / "human.parquet", compression="zstd", compression_level=19)
from collections import Counter
print(Counter((r["dataset"], r["split"]) for r in rows))
print(Counter((d, split.get(q, words.get(query_words(q), "-"))) for (d, q), n in size.items() if n >= (20 if d == "esci" else 5)))
products = []
for name in ("products", "products_more"):
    for p in read_jsonl(Path(D + f"pool/{name}.jsonl.gz")):
        products.append({f: str(p.get(f) or "") for f in ("product_id", "title", "brand", "color", "category", "source", "domain")})
for r in rows:
    if r["split"] == "train":
        products.append({f: r.get(f) or "" for f in ("product_id", "title", "brand", "color", "category")} | {"source": r["dataset"], "domain": ""})
products = unique_products(products)
for p in products:
    p["title"], p["category"] = p["title"][:400], p["category"][:80]
pq.write_table(pa.Table.from_pylist(products), OUT / "products.parquet", compression="zstd", compression_level=19)
held = set(words)
queries = {}
for r in rows:
    if r["split"] == "train":
        queries.setdefault(normalize_query(r["query"]), {"query": r["query"], "source": r["dataset"]})
for name in ("queries", "queries_more"):
    for q in read_jsonl(Path(D + f"pool/{name}.jsonl.gz")):
        if not q.get("in_dev"):
            queries.setdefault(normalize_query(q["query"]), {"query": q["query"], "source": q["source"]})
queries = [q for k, q in queries.items() if k and query_words(q["query"]) not in held]
pq.write_table(pa.Table.from_pylist(queries), OUT / "queries.parquet", compression="zstd", compression_level=19)
print(len(rows), len(products), len(queries), Counter(q["source"] for q in queries))
for f in OUT.iterdir(): print(f, f.stat().st_size / 1e6)
