import hashlib, numpy as np, pyarrow as pa, pyarrow.parquet as pq, sys
sys.path.insert(0, ".")
from training.data.splits import normalize_query
P = pq.read_table("OUT/data/products.parquet", columns=["product_id"])["product_id"].to_pylist()
Q = pq.read_table("OUT/data/queries.parquet", columns=["query"])["query"].to_pylist()
pairs = np.load("OUT/pairs.npy"); lab = np.load("OUT/labels.npz")["label"]
assert len(pairs) == len(lab) == 641117
qid = [hashlib.sha256(normalize_query(q).encode()).hexdigest()[:16] for q in Q]
t = pa.table({"query_id": pa.array([qid[i] for i in pairs[:, 0]]).dictionary_encode(), "product_id": pa.array([P[i] for i in pairs[:, 1]]).dictionary_encode(), "rank": pa.array(pairs[:, 2].astype(np.int16)), "logit": pa.array(lab)})
import os; os.makedirs("training/labels", exist_ok=True)
pq.write_table(t, "training/labels/qwen2.5-coder-1.5b.parquet", compression="zstd", compression_level=19, data_page_size=1<<20)
print(os.path.getsize("training/labels/qwen2.5-coder-1.5b.parquet")/1e6, len(set(qid)), len(set(P)))
