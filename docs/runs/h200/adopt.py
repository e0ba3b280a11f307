"""Put the teacher's scores and a student made elsewhere where the recipe volume-default.toml expects those stages.

adopt.py STUDENT.safetensors STUDENT.npz HUMAN_TEACHER.npz HUMAN.parquet MINILM_FOLDER LOSS   (in the project's root, after `data`)
"""
import json, shutil, sys
from pathlib import Path
import numpy as np, pyarrow as pa, pyarrow.parquet as pq, torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification
sys.path.insert(0, ".")
from training.student import student
from training.recipe import load_recipe
from training.stages import Run
weights, scores, teacher, human, body, loss = sys.argv[1:]
run = Run(load_recipe(Path("training/recipes/volume-default.toml")))
CARD = "NVIDIA H200"
def stage(name, metrics, seconds):
    out = run.root / name; shutil.rmtree(out, ignore_errors=True); out.mkdir(parents=True)
    told = {"stage": name, "key": run.key(name), "seconds": seconds, "metrics": metrics, "finished": "2026-11-27T13:52:00+00:00"}
    (out / "stage.json").write_text(json.dumps(told, indent=2, sort_keys=True) + "\n"); return out
rows = pq.read_table(human).to_pylist(); told = np.load(teacher)["teacher"]
out = stage("teacher", {"made on": CARD}, 46.0)
keep = [i for i, r in enumerate(rows) if r["split"] == "validation"]
pq.write_table(pa.table({**{c: [rows[i][c] for i in keep] for c in ("dataset", "query_id", "product_id")}, "score": told[keep]}), out / "scores.parquet")
out = stage("distil", {"made on": CARD, "pairs": 640000, "train_loss": float(loss)}, 193.0)
tokenizer = AutoTokenizer.from_pretrained(body)
config = BertConfig(**json.loads((Path(body) / "config.json").read_text()) | {"num_labels": 1})
model = BertForSequenceClassification(config)
state = {k.removeprefix("net."): v.float() if v.is_floating_point() else v for k, v in load_file(weights).items()}
missing = model.load_state_dict(state, strict=False); print(missing)
contract = student.text_contract(run.recipe.text, tokenizer)
student.save(model.eval(), tokenizer, contract, out)
made = student.load(out)
from training.data.lists import product_of
mine = np.load(scores)["s"]; some = keep[::7]
got = np.concatenate([made.score(made.encoder.encode(rows[i]["query"], [product_of(rows[i] | {"bullets": "", "description": ""})])) for i in some])
print("differs from the card's scores by at most", np.abs(got - mine[some]).max(), "of a spread of", mine[some].std())
run.write_manifest()
