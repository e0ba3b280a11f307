"""Candidates: cosines of MiniLM and BM25 across ranks, and random products; pairs.npy [n,3] query, product, rank, whole queries in hashed order."""
from common import *
import bm25s, re
LIMIT = int(os.environ.get("LIMIT", "0"))
P = pq.read_table(W / "products.parquet").to_pylist(); Q = pq.read_table(W / "queries.parquet").to_pylist()
if LIMIT: P, Q = P[:LIMIT * 10], Q[:LIMIT]
log("products", len(P), "queries", len(Q))
R = Rows(); enc = minilm("encoder").to(DEV).eval()
if DEV == "cuda": enc = enc.bfloat16()
@torch.inference_mode()
def embed(texts):
    t = R.table([x[:400] for x in texts]); ids = [[101] + t[x[:400]][:62] + [102] for x in texts]
    order = np.argsort([len(i) for i in ids]); out = np.empty((len(ids), 384), np.float16)
    for s in range(0, len(order), 1024):
        c = order[s:s+1024]; w = max(len(ids[i]) for i in c); x = np.zeros((2, len(c), w), np.int64)
        for j, i in enumerate(c): x[0, j, :len(ids[i])] = ids[i]; x[1, j, :len(ids[i])] = 1
        x = torch.from_numpy(x).to(DEV)
        h = enc(input_ids=x[0], attention_mask=x[1]).last_hidden_state.float()
        m = x[1].unsqueeze(2); h = (h * m).sum(1) / m.sum(1)
        out[c] = torch.nn.functional.normalize(h, dim=1).half().cpu().numpy()
    return torch.from_numpy(out).to(DEV)
pe = embed([p["title"] for p in P]); log("products embedded"); qe = embed([q["query"] for q in Q]); log("queries embedded")
H = HUMAN(); u = embed([h["query"] for h in H]); v = embed([h["title"] for h in H])
np.save(W / "human_cosine.npy", (u.float() * v.float()).sum(1).cpu().numpy())
for s in ("train", "validation"): log("cosine", s, measure(H, lists_of(H, s), np.load(W / "human_cosine.npy")))
D = 100
dense = []
for s in range(0, len(Q), 512):
    val, idx = (qe[s:s+512].float() @ pe.float().T).topk(min(D, len(P)), dim=1) if DEV == "cpu" else (qe[s:s+512] @ pe.T).float().topk(D, dim=1)
    dense += list(zip(val.cpu().numpy(), idx.cpu().numpy()))
log("dense")
line = lambda p: " ".join(p[f] for f in ("title", "brand", "color", "category") if p[f])
index = bm25s.BM25(); index.index(bm25s.tokenize([line(p) for p in P], stopwords="en", show_progress=False), show_progress=False)
toks = bm25s.tokenize([q["query"] for q in Q], stopwords=None, show_progress=False, return_ids=False)
# spread by source: every query but long goals, of which a part
best = np.array([d[0][0] for d in dense])
goal = np.array([q["source"] == "webshop_goal" for q in Q])
hash_ = [hashlib.sha256(q["query"].encode()).digest() for q in Q]
keep = [i for i in range(len(Q)) if best[i] >= .5 and (not goal[i] or hash_[i][0] < 77)]
log("kept queries", len(keep))
ids, sc = index.retrieve([toks[i] for i in keep], k=min(60, len(P)), show_progress=False, n_threads=15 if DEV == "cuda" else 1)
log("bm25")
lex = {i: a[b > 0] for i, a, b in zip(keep, ids, sc)}
keep.sort(key=lambda i: hash_[i])
norm = lambda t: frozenset("".join(c if c.isalnum() else " " for c in t.casefold()).split())
nt = [norm(p["title"]) for p in P]
def ranks(depth, count, g):
    if depth <= count: return np.arange(depth)
    w = 1 / (np.arange(depth) + 2.0); return np.sort(g.choice(depth, count, replace=False, p=w / w.sum()))
out = []
for i in keep:
    g = np.random.default_rng(int.from_bytes(hash_[i][:8], "big")); picks = {}
    for found, count in ((dense[i][1], 20), (lex[i], 14)):
        for r in ranks(len(found), count, g): picks.setdefault(int(found[r]), int(r))
    seen = []
    rows = []
    for p, r in picks.items():
        if all(len(nt[p] & o) / max(len(nt[p] | o), 1) < .9 for o in seen): seen.append(nt[p]); rows.append((i, p, r))
    rows += [(i, int(p), -1) for p in g.integers(len(P), size=4)]
    out += rows
out = np.array(out, np.int32); np.save(W / "pairs.tmp.npy", out); os.rename(W / "pairs.tmp.npy", W / "pairs.npy")
log("pairs", out.shape, "mean", len(out) / len(keep))
