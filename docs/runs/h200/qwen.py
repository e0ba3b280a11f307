from common import *
from tokenizers import Tokenizer
PROMPTS = {
 "rule": ("", "<|im_start|>user\nA shopper searches an online shop for:", " {q}", "\nIs the following product itself a", " {q}", ", not an accessory or a part for one? Answer yes or no.\nProduct:", "<|im_end|>\n<|im_start|>assistant\n"),
 "itself": ("", "<|im_start|>user\nIs this product itself a", " {q}", " (not an accessory or part for one)?", None, None, "<|im_end|>\n<|im_start|>assistant\n"),
}
SYSTEM = "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
class Text:
    def __init__(self):
        if not (W / "tokenizer.json").exists(): (W / "tokenizer.json").write_bytes(gzip.open(W / "tokenizer.json.gz").read())
        self.tok = Tokenizer.from_file(str(W / "tokenizer.json")); self.tok.no_padding(); self.tok.no_truncation()
        used = np.load(W / "used.npy"); self.map = np.full(max(152000, used.max() + 1), 30, np.int32); self.map[used] = np.arange(len(used)); self.cache = {}
    def many(self, texts):
        u = sorted({t for t in texts if t not in self.cache})
        for s in range(0, len(u), 50000):
            for t, e in zip(u[s:s+50000], self.tok.encode_batch(u[s:s+50000], add_special_tokens=False)): self.cache[t] = self.map[np.array(e.ids, np.int64)] if e.ids else np.zeros(0, np.int32)
        return [self.cache[t] for t in texts]
    def products(self, rows):
        t = self.many([" " + r["title"][:400] for r in rows]); out = []
        extra = [[" | " + r[f][:60] for f in ("brand", "color") if r[f] and r[f].casefold() not in r["title"].casefold()] for r in rows]
        self.many([e for x in extra for e in x])
        return [np.concatenate([a[:64], *[self.cache[e][:10] for e in x]]) for a, x in zip(t, extra)]
    def frame(self, kind, system=False):
        p = PROMPTS[kind]; one = lambda s: self.many([s])[0]
        a, b, e = one((SYSTEM if system else "") + p[1]), one(p[3]), one(p[6])
        c = one(p[5]) if p[5] else None
        def make(q, prod):
            q = q[:40]
            return np.concatenate([a, q, b, prod, e] if c is None else [a, q, b, q, c, prod, e])
        return make
class Lora(torch.nn.Module):
    def __init__(self, base, r, alpha=2.0):
        super().__init__(); self.base = base; self.alpha = alpha
        self.A = torch.nn.Parameter(torch.randn(r, base.in_features, device=base.weight.device) / base.in_features ** .5)
        self.B = torch.nn.Parameter(torch.zeros(base.out_features, r, device=base.weight.device))
    def forward(self, x): return self.base(x) + (x @ self.A.to(x.dtype).T) @ (self.B.to(x.dtype).T * self.alpha)
class Judge(torch.nn.Module):
    def __init__(self):
        super().__init__()
        from transformers import Qwen2Config, Qwen2Model
        c = Qwen2Config(**json.load(open(W / "config.json"))); c.use_cache = False
        if os.environ.get("TINY"): c.num_hidden_layers = int(os.environ["TINY"]); c.layer_types = c.layer_types[:c.num_hidden_layers]
        torch.set_default_dtype(torch.bfloat16 if DEV == "cuda" else torch.float32); self.m = Qwen2Model(c); torch.set_default_dtype(torch.float32)
        sd = torch.load(W / "qwen.pt", mmap=True)
        bad = self.m.load_state_dict(sd, strict=not os.environ.get("TINY")); del sd
        for p in self.m.parameters(): p.requires_grad_(False)
        # rotary frequencies must be float32
        if hasattr(self.m, "rotary_emb"): self.m.rotary_emb.__init__(config=c)
        a = np.load(W / "answers.npz"); self.n = int(a["yes"]); self.register_buffer("rows", torch.from_numpy(a["rows"].astype(np.float32)))
        self.register_buffer("ab", torch.tensor([1.0, 0.0])); self.to(DEV)
    def raw(self, ids, last):
        h = self.m(input_ids=ids, attention_mask=None, use_cache=False).last_hidden_state
        z = h[torch.arange(len(last), device=h.device), last].float() @ self.rows.T
        return torch.logsumexp(z[:, :self.n], 1) - torch.logsumexp(z[:, self.n:], 1)
    def forward(self, ids, last): return self.raw(ids, last) * self.ab[0] + self.ab[1]
    def add_lora(self, r, seed):
        torch.manual_seed(seed)
        for layer in self.m.layers:
            for mod in (layer.self_attn, layer.mlp):
                for n, ch in list(mod.named_children()):
                    if isinstance(ch, torch.nn.Linear): setattr(mod, n, Lora(ch, r))
    def pop_lora(self):
        out = {}
        for name, mod in list(self.m.named_modules()):
            for n, ch in list(mod.named_children()):
                if isinstance(ch, Lora): out[f"{name}.{n}"] = (ch.A.data.clone(), ch.B.data.clone(), ch.alpha); setattr(mod, n, ch.base)
        return out
    @torch.no_grad()
    def shift(self, loras, scale):
        """Add scale * mean of the deltas to the weights, computed in float32 from a kept copy."""
        if not hasattr(self, "kept"): self.kept = {}
        for key in loras[0]:
            lin = self.m.get_submodule(key)
            if key not in self.kept: self.kept[key] = lin.weight.data.clone()
            d = sum(al * (B @ A) for A, B, al in (l[key] for l in loras)) / len(loras)
            lin.weight.data.copy_((self.kept[key].float() + scale * d).to(lin.weight.dtype))
    @torch.no_grad()
    def restore(self):
        for k, v in getattr(self, "kept", {}).items(): self.m.get_submodule(k).weight.data.copy_(v)
def batch(seqs):
    w = max(map(len, seqs)); w = -(-w // 8) * 8
    x = np.zeros((len(seqs), w), np.int64)
    for i, s in enumerate(seqs): x[i, :len(s)] = s
    return torch.from_numpy(x).to(DEV, non_blocking=True), torch.tensor([len(s) - 1 for s in seqs], device=DEV)
@torch.inference_mode()
def score(judge, seqs, tokens=32768, raw=False):
    order = np.argsort([len(s) for s in seqs], kind="stable"); out = torch.empty(len(seqs), device=DEV); s = 0
    while s < len(order):
        e = s + 1
        while e < len(order) and (e + 1 - s) * len(seqs[order[e]]) <= tokens: e += 1
        c = order[s:e]; out[torch.from_numpy(c).to(DEV)] = (judge.raw if raw else judge)(*batch([seqs[i] for i in c])).float(); s = e
    return out.cpu().numpy()
