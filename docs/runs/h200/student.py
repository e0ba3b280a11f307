"""student.py NAME PAIRS LR SEED HEAD EPOCHS [GROUP]: MiniLM-L6 by margin-MSE from the first PAIRS labels; validation lists at the end; NAME.npz, NAME.safetensors (fp16)."""
from common import *
import random
from torch import nn
name, npairs, lr, seed, head, epochs = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), sys.argv[5], int(sys.argv[6])
GROUP = int(sys.argv[7]) if len(sys.argv) > 7 else 17
lab = np.concatenate([np.load(p) for p in sorted((W / "labels").glob("[0-9][0-9][0-9].npy"))]); pairs = np.load(W / "pairs.npy")[:len(lab)][:npairs]; lab = lab[:len(pairs)]
P = pq.read_table(W / "products.parquet").to_pylist(); Q = pq.read_table(W / "queries.parquet").to_pylist(); R = Rows()
up, ip = np.unique(pairs[:, 1], return_inverse=True); uq, iq = np.unique(pairs[:, 0], return_inverse=True)
pid = R.products([P[i] for i in up]); qid = R.queries([Q[i]["query"] for i in uq])
groups = {}
for i, q in enumerate(iq): groups.setdefault(q, []).append(i)
torch.manual_seed(seed); rng = random.Random(seed)
class Student(nn.Module):
    def __init__(self):
        super().__init__(); self.head = head
        if head == "cls": self.net = minilm("student")
        else:
            self.net = minilm("encoder"); self.w = nn.Parameter(torch.full((384,), 8.0)); self.lin = nn.Linear(768, 1); nn.init.normal_(self.lin.weight, std=.01); nn.init.constant_(self.lin.bias, -4.0)
    def forward(self, x):
        if self.head == "cls": return self.net(input_ids=x[0], token_type_ids=x[1], attention_mask=x[2]).logits[:, 0].float()
        h = self.net(input_ids=x[0], token_type_ids=x[1], attention_mask=x[2]).last_hidden_state.float()
        q, p = ((x[2] * (1 - x[1])).unsqueeze(2).float(), x[1].unsqueeze(2).float())
        a, b = ((h * m).sum(1) / m.sum(1).clamp(min=1) for m in (q, p))
        a, b = nn.functional.normalize(a, dim=1), nn.functional.normalize(b, dim=1)
        return (a * b * self.w).sum(1) + self.lin(torch.cat([a, b], 1))[:, 0]
M = Student().to(DEV)
slow = [p for n, p in M.named_parameters() if not (n == "w" or n.startswith("lin") or "classifier" in n or "pooler" in n)]; fast = [p for n, p in M.named_parameters() if (n == "w" or n.startswith("lin") or "classifier" in n or "pooler" in n)]
QB = int(os.environ.get("QB", "48"))
def epoch():
    out = []
    for g in groups.values():
        g = g[:]; rng.shuffle(g); n = max(1, round(len(g) / GROUP)); out += [g[k::n] for k in range(n)]
    rng.shuffle(out); out = [g for g in out if len(g) > 1]
    return [out[s:s + QB] for s in range(0, len(out), QB)]
plan = [b for _ in range(epochs) for b in epoch()]
if os.environ.get("STEPS"): plan = plan[:int(os.environ["STEPS"])]
o = torch.optim.AdamW([{"params": slow, "lr": lr}, {"params": fast, "lr": lr * (5 if head != "cls" else 1)}], weight_decay=.01, fused=DEV == "cuda")
sch = torch.optim.lr_scheduler.LambdaLR(o, lambda s: min(1, (s + 1) / (.1 * len(plan) + 1)) * max(0.0, 1 - s / len(plan)))
y = torch.from_numpy(lab).to(DEV); t = time.time(); M.train(); run = []
from concurrent.futures import ThreadPoolExecutor
def make(b):
    flat = [i for g in b for i in g]; gid = [k for k, g in enumerate(b) for _ in g]
    return student_batch([qid[iq[i]] for i in flat], [pid[ip[i]] for i in flat]), torch.tensor(flat), torch.tensor(gid), len(b)
with ThreadPoolExecutor(2) as ex:
    ahead = [ex.submit(make, b) for b in plan[:8]]
    for k in range(len(plan)):
        x, flat, gid, n = ahead.pop(0).result()
        if k + 8 < len(plan): ahead.append(ex.submit(make, plan[k + 8]))
        x, flat, gid = x.to(DEV), flat.to(DEV), gid.to(DEV)
        with torch.autocast(DEV, torch.bfloat16): s = M(x)
        e = s.float() - y[flat]; c = torch.zeros(n, device=DEV).index_add_(0, gid, torch.ones_like(e)); mean = torch.zeros(n, device=DEV).index_add_(0, gid, e) / c
        sq = torch.zeros(n, device=DEV).index_add_(0, gid, (e - mean[gid]) ** 2); loss = (2 * sq / (c - 1)).mean() + .05 * (e ** 2).mean()
        o.zero_grad(); loss.backward(); torch.nn.utils.clip_grad_norm_(M.parameters(), 1.0); o.step(); sch.step(); run.append(loss.detach())
        if k % 400 == 399: log(name, k + 1, len(plan), round(torch.stack(run[-400:]).mean().item(), 4), f"{(time.time()-t):.0f}s")
M.eval(); H = HUMAN(); hp = R.products(H); hq = R.queries([h["query"] for h in H]); s = np.empty(len(H), np.float32)
with torch.inference_mode():
    for a in range(0, len(H), 512): s[a:a + 512] = M(student_batch(hq[a:a + 512], hp[a:a + 512]).to(DEV)).float().cpu().numpy()
log("RESULT", name, *sys.argv[2:], "loss", round(torch.stack(run[-200:]).mean().item(), 4), f"{time.time()-t:.0f}s", json.dumps({k: v for k, v in measure(H, lists_of(H, "validation"), s).items()}))
np.savez(W / f"{name}.npz", s=s)
from safetensors.torch import save_file
save_file({k: v.half() if v.is_floating_point() else v for k, v in M.state_dict().items()}, W / f"{name}.safetensors")
