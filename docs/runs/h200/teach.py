"""Zero-shot prompts, then LoRA variants on human train pairs; validation lists decide; writes teacher.pt (deltas) and human scores."""
from qwen import *
import random
SMALL = bool(os.environ.get("TINY"))
H = HUMAN(); T = Text()
if SMALL: H = [h for h in H if h["split"] == "train" and h["dataset"] == "esci"][:40] + [h for h in H if h["split"] == "validation"][:45]
tr, va = lists_of(H, "train"), lists_of(H, "validation")
J = Judge(); log("loaded")
prods = T.products(H); qs = T.many([" " + h["query"] for h in H])
todo = np.array([i for i, h in enumerate(H) if h["split"] != "test"])
seqs, zero = {}, {}
for kind, system in (("rule", False), ("itself", False), ("rule", True)):
    f = T.frame(kind, system); seqs[kind, system] = [f(q, p) for q, p in zip(qs, prods)]
    t = time.time(); s = np.zeros(len(H), np.float32); s[todo] = score(J, [seqs[kind, system][i] for i in todo], raw=True)
    n = sum(len(seqs[kind, system][i]) for i in todo)
    log("zero-shot", kind, system, f"{len(todo)/(time.time()-t):.0f} pairs/s {n/(time.time()-t):.0f} tokens/s mean {n/len(todo):.0f} tokens")
    log("  train", measure(H, tr, s)); log("  valid", measure(H, va, s)); zero[kind, system] = s
best = max(zero, key=lambda k: measure(H, tr, zero[k])["pooled"][1] + measure(H, va, zero[k])["pooled"][1] - .01 * k[1])
log("prompt", best); S = seqs[best]
y = torch.tensor([h["target"] for h in H]); train = [i for i in todo if H[i]["split"] == "train"]
z = torch.tensor(zero[best]); ab = torch.tensor([.3, 0.], requires_grad=True); opt = torch.optim.LBFGS([ab], max_iter=50)
def closure():
    opt.zero_grad(); l = torch.nn.functional.binary_cross_entropy_with_logits(z[train] * ab[0] + ab[1], y[train]); l.backward(); return l
opt.step(closure); J.ab.copy_(ab.detach().to(DEV)); log("calibrated", ab.tolist())
# pairs of the pool, labelled zero-shot, keep what the model knows
extra_rows, extra_seq, extra_y = [], [], []
if (W / "pairs.npy").exists():
    pairs = np.load(W / "pairs.npy"); P = pq.read_table(W / "products.parquet").to_pylist(); Q = pq.read_table(W / "queries.parquet").to_pylist()
    step = max(1, len(pairs) // (60 if SMALL else 12000)); sub = pairs[np.random.default_rng(0).permutation(len(pairs))[:20 if SMALL else 9000]]
    f = T.frame(*best); eq = T.many([" " + Q[i]["query"] for i in sub[:, 0]]); ep = T.products([P[i] for i in sub[:, 1]])
    extra_seq = [f(a, b) for a, b in zip(eq, ep)]; extra_y = torch.sigmoid(torch.tensor(score(J, extra_seq))).tolist(); log("judged pool pairs", len(extra_seq))
def run(seed, lam, extra_w, lr=1e-4, epochs=2, r=32):
    J.restore(); J.add_lora(r, seed); J.train(); rng = random.Random(seed)
    par = [p for p in J.parameters() if p.requires_grad]
    plan = []
    for ep in range(epochs):
        by = {}
        for i in train: by.setdefault((H[i]["dataset"], H[i]["query"]), []).append(i)
        groups = []
        for g in by.values(): rng.shuffle(g); groups += [g[k:k+16] for k in range(0, len(g), 16)]
        rng.shuffle(groups); ex = list(range(len(extra_seq))) if extra_w else []
        rng.shuffle(ex); ex = ex[ep::epochs]; nb = max(1, sum(map(len, groups)) // 64); gi = 0
        for b in range(nb):
            m = []
            while gi < len(groups) and len(m) < 64: m += groups[gi]; gi += 1
            if m: plan.append((m, ex[b * len(ex) // nb:(b + 1) * len(ex) // nb]))
    if SMALL: plan = plan[:2]
    o = torch.optim.AdamW(par, lr=lr, weight_decay=.01, betas=(.9, .98)); sch = torch.optim.lr_scheduler.LambdaLR(o, lambda s: min(1, (s + 1) / (.1 * len(plan) + 1)) * (.5 + .5 * np.cos(np.pi * s / len(plan))))
    t = time.time()
    for k, (m, ex) in enumerate(plan):
        s = J(*batch([S[i] for i in m] + [extra_seq[i] for i in ex])); h = s[:len(m)]; yt = y[m].to(DEV)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(h, yt)
        if lam:
            q = torch.tensor([hash((H[i]["dataset"], H[i]["query"])) for i in m], device=DEV)
            a = (q[:, None] == q[None, :]) & (yt[:, None] > yt[None, :])
            if a.any(): loss = loss + lam * torch.nn.functional.softplus(-(h[:, None] - h[None, :]))[a].mean()
        if ex: loss = loss + extra_w * torch.nn.functional.binary_cross_entropy_with_logits(s[len(m):], torch.tensor([extra_y[i] for i in ex], device=DEV))
        o.zero_grad(); loss.backward(); torch.nn.utils.clip_grad_norm_(par, 1.0); o.step(); sch.step()
        if k % 40 == 0: log("   step", k, len(plan), round(loss.item(), 4))
    J.eval(); L = J.pop_lora(); log(f"trained {time.time()-t:.0f}s"); return L
VA = np.array(sorted({i for v in va.values() for i in v}))
def check(loras, scale, name):
    J.shift(loras, scale); s = np.zeros(len(H), np.float32); s[VA] = score(J, [S[i] for i in VA]); m = measure(H, va, s); log("valid", name, scale, m); return m["pooled"][1] + .5 * m["pooled"][0]
tried = {}
variants = {"bce": (1, 0, 0), "bce+rank": (1, 1, 0), "bce+rank+judged": (1, 1, .5)}
if not extra_seq: variants.pop("bce+rank+judged")
for name, v in variants.items():
    L = run(*v); tried[name] = ([L], max((check([L], a, name), a) for a in (.6, 1.0)))
win = max(tried, key=lambda k: tried[k][1][0]); log("winner", win, tried[win][1])
more = run(2, *variants[win][1:]); loras = tried[win][0] + [more]
choices = [(check(loras, a, win + " mean of 2"), a, 2) for a in (.7, 1.0)] + [(*tried[win][1], 1)]
got, scale, n = max(choices); loras = loras[:n]; log("teacher", win, "scale", scale, "members", n, got)
J.shift(loras, scale)
# bf16 weights of the merged model, and the adapter
torch.save({"best": best, "ab": J.ab.cpu(), "scale": scale, "loras": [{k: (a.cpu(), b.cpu(), c) for k, (a, b, c) in l.items()} for l in loras]}, W / "teacher.pt")
s = score(J, S); np.savez(W / "human_teacher.npz", teacher=s, zero=zero[best]); log("done")
