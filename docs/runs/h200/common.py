import json, gzip, time, os, sys, hashlib
from pathlib import Path
import numpy as np, torch
import pyarrow.parquet as pq
W = Path(os.environ["W"])
T0 = time.time()
def log(*a): print(f"[{time.time()-T0:6.1f}]", *a, flush=True)
DEV = "cuda" if torch.cuda.is_available() else "cpu"
HUMAN = lambda: pq.read_table(W / "human.parquet").to_pylist()

# ---- metrics on judged lists
def lists_of(rows, split, least=5):
    by = {}
    for i, r in enumerate(rows):
        if r["split"] == split: by.setdefault((r["dataset"], r["query"]), []).append(i)
    return {k: v for k, v in by.items() if len(v) >= least and len({rows[i]["gain"] for i in v}) > 1}
def ndcg(gain, score, k=10):
    o = np.argsort(-score, kind="stable")[:k]; best = np.sort(gain)[::-1][:k]
    d = 1 / np.log2(np.arange(2, k + 2))
    return float((gain[o] * d[:len(o)]).sum() / (best * d[:len(best)]).sum())
def pairacc(gain, score):
    a = gain[:, None] > gain[None, :]
    s = score[:, None] - score[None, :]
    return float(((s > 0) + .5 * (s == 0))[a].mean())
def measure(rows, lists, scores):
    out = {}
    for d in sorted({k[0] for k in lists}):
        g = [(np.array([rows[i]["gain"] for i in v]), scores[v]) for k, v in lists.items() if k[0] == d]
        out[d] = (round(float(np.mean([ndcg(*x) for x in g])), 4), round(float(np.mean([pairacc(*x) for x in g])), 4), len(g))
    n = sum(v[2] for v in out.values()) or 1
    out["pooled"] = tuple(round(sum(v[j] * v[2] for v in out.values()) / n, 4) for j in (0, 1)) + (n,)
    return out

# ---- student's rows: as bundle.text makes them from the default recipe's contract
class Rows:
    def __init__(self):
        from tokenizers import Tokenizer
        self.tok = Tokenizer.from_file(str(W / "minilm_tok.json")); self.tok.no_padding(); self.tok.no_truncation()
    def ids(self, texts): return [e.ids for e in self.tok.encode_batch(texts, add_special_tokens=False)]
    def table(self, texts):
        u = sorted(set(texts)); out = {}
        for s in range(0, len(u), 50000): out.update(zip(u[s:s+50000], self.ids(u[s:s+50000])))
        return out
    def products(self, rows):
        t = self.table([r["title"][:400] for r in rows]); o = self.table([r[f][:60] for r in rows for f in ("brand", "color")])
        return [t[r["title"][:400]][:44] + o[r["brand"][:60]][:6] + o[r["color"][:60]][:6] for r in rows]
    def queries(self, qs):
        t = self.table([q[:256] for q in qs]); return [t[q[:256]][:24] for q in qs]
def student_batch(qids, pids, width=None):
    rows = [([101] + q + [102], p[:72 - len(q) - 3] + [102]) for q, p in zip(qids, pids)]
    w = width or max(len(a) + len(b) for a, b in rows); w = -(-w // 8) * 8
    x = np.zeros((3, len(rows), w), np.int64)
    for i, (a, b) in enumerate(rows):
        n = len(a) + len(b); x[0, i, :n] = a + b; x[1, i, len(a):n] = 1; x[2, i, :n] = 1
    return torch.from_numpy(x)
def minilm(kind):
    from transformers import BertConfig, BertModel, BertForSequenceClassification
    from safetensors.torch import load_file
    c = BertConfig(**json.load(open(W / "minilm.json")) | {"num_labels": 1})
    w = {k: v.float() if v.is_floating_point() else v for k, v in load_file(W / "minilm.safetensors").items()}
    if kind == "encoder": m = BertModel(c); m.load_state_dict(w, strict=False); return m
    m = BertForSequenceClassification(c); miss = m.bert.load_state_dict({k: v for k, v in w.items() if not k.startswith("pooler")}, strict=False)
    return m
