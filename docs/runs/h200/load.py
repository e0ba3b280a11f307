"""Join the pieces and write Qwen in bf16 as qwen.pt (state dict of Qwen2Model)."""
from common import *
from concurrent.futures import ProcessPoolExecutor
NAMES = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
         "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
def name_of(n):
    if n == "output_norm.weight": return "norm.weight"
    if n.startswith("blk."):
        _, k, rest, kind = n.split("."); return f"layers.{k}.{NAMES[rest]}.{kind}"
    return n
def work(job):
    import gguf
    name, shape, kind, n, at = job
    f = open(W / "all.bin", "rb"); f.seek(at); raw = np.frombuffer(f.read(n), np.uint8)
    if kind == "int8": x = raw.view(np.int8).reshape(shape).astype(np.float32)
    elif kind == "f32": x = raw.view(np.float32).reshape(shape)
    else:
        t = gguf.GGMLQuantizationType(kind)
        if kind == 0: x = raw.view(np.float32).reshape(shape)
        else:
            bs, ts = gguf.GGML_QUANT_SIZES[t]
            x = gguf.dequantize(raw.reshape(*shape[:-1], shape[-1] // bs * ts), t)
    f16 = torch.from_numpy(np.ascontiguousarray(x)).to(torch.float32 if kind in ("f32",) else torch.bfloat16)
    return name, f16.view(torch.int16).numpy() if f16.dtype == torch.bfloat16 else f16.numpy()
if __name__ == "__main__":
    meta = json.load(open(W / "meta.json"))
    if not (W / "all.bin").exists():
        with open(W / "all.bin", "wb") as o:
            for p in sorted(W.glob("w[0-9][0-9]")): o.write(p.read_bytes())
    total = sum(m[3] for m in meta); assert (W / "all.bin").stat().st_size == total, ((W / "all.bin").stat().st_size, total)
    at, jobs = 0, []
    for m in meta: jobs.append((*m, at)); at += m[3]
    sd = {}
    with ProcessPoolExecutor(int(os.environ.get("PROCS", "16"))) as ex:
        for name, x in ex.map(work, jobs): sd[name] = torch.from_numpy(x)
    sd["embed_tokens.weight"] = (sd.pop("token_embd.weight.int8").view(torch.bfloat16).float() * sd.pop("token_embd.weight.scale")).bfloat16().view(torch.int16)
    torch.save({name_of(k): v.view(torch.bfloat16) for k, v in sd.items()}, W / "qwen.pt"); log("qwen.pt", len(sd))
