"""Label pairs.npy in shards of whole queries with the teacher; labels/NNN.npy (float32), resumes."""
from qwen import *
N = int(os.environ.get("SHARD", "25000")); END = float(os.environ.get("SECONDS", "560"))
L = W / "labels"; L.mkdir(exist_ok=True)
t = torch.load(W / "teacher.pt"); T = Text(); J = Judge(); J.ab.copy_(t["ab"].to(DEV))
J.shift([{k: (a.to(DEV), b.to(DEV), c) for k, (a, b, c) in l.items()} for l in t["loras"]], t["scale"]); del J.kept; J.eval(); log("teacher loaded")
P = pq.read_table(W / "products.parquet").to_pylist(); Q = pq.read_table(W / "queries.parquet").to_pylist(); pairs = np.load(W / "pairs.npy"); f = T.frame(*t["best"])
edges = [0] + [i for i in range(1, len(pairs)) if pairs[i, 0] != pairs[i - 1, 0]] + [len(pairs)]
cuts = [0]
for e in edges:
    if e - cuts[-1] >= N or (e == len(pairs) and e > cuts[-1]): cuts.append(e)
log("pairs", len(pairs), "shards", len(cuts) - 1)
from concurrent.futures import ThreadPoolExecutor
def prep(k):
    sub = pairs[cuts[k]:cuts[k + 1]]
    return [f(a, b) for a, b in zip(T.many([" " + Q[i]["query"] for i in sub[:, 0]]), T.products([P[i] for i in sub[:, 1]]))]
todo = [k for k in range(len(cuts) - 1) if not (L / f"{k:03d}.npy").exists()]
with ThreadPoolExecutor(1) as ex:
    nxt = ex.submit(prep, todo[0]) if todo else None
    for j, k in enumerate(todo):
        if time.time() - T0 > END: break
        seqs = nxt.result(); nxt = ex.submit(prep, todo[j + 1]) if j + 1 < len(todo) else None
        s0 = time.time(); s = score(J, seqs, 65536); np.save(L / f"{k:03d}.tmp.npy", s.astype(np.float32)); os.rename(L / f"{k:03d}.tmp.npy", L / f"{k:03d}.npy")
        log("shard", k, len(seqs), f"{len(seqs)/(time.time()-s0):.0f} pairs/s", f"mean {s.mean():.2f} std {s.std():.2f}")
log("done" if len(list(L.glob('*.npy'))) == len(cuts) - 1 else "stopped")
