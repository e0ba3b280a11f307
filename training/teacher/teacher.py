"""Fine-tune a pretrained model as a relevance classifier on soft targets, and score pairs with it.

Knows Hugging Face sequence classification, encoder or decoder; does not know students.
Invariant: only pairs of the train split, human or judged, reach the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from training.data.lists import LABELS, rankable, read_lists, read_scores
from training.data.sources import write_rows
from training.data.splits import normalize_query
from training.errors import StageError
from training.measure.baselines import bm25_scores, random_order
from training.measure.calibration import fit
from training.measure.figures import figures
from training.models import trainer
from training.models.batching import batches_by_length
from training.models.fresh import fresh_body
from training.models.hub import load_model, load_pretrained, one_line
from training.models.losses import soft_target_bce
from training.sections.teacher import TeacherRecipe
from training.stages import Context, Metrics

DECODER_PROMPT = "query: {query}\nproduct: {product}\nrelevance:"

SCORES = pa.schema(
    [
        *((name, pa.string()) for name in ("dataset", "query_id", "product_id", "split")),
        ("grade", pa.int32()),
        ("score", pa.float32()),
    ]
)

Row = dict[str, Any]


def product_text(row: Row, recipe: TeacherRecipe) -> str:
    """Return the product text a teacher reads: its fields in order, each clipped, joined by `; `."""
    texts = ((row[field] or "")[: recipe.field_chars.get(field, 400)] for field in recipe.fields)
    return "; ".join(" ".join(text.split()) for text in texts if text)


@dataclass(frozen=True, slots=True)
class Teacher:
    """A sequence classifier of one logit with its tokenizer."""

    model: Any
    tokenizer: Any
    recipe: TeacherRecipe

    def encode(self, rows: Sequence[Row]) -> list[dict[str, list[int]]]:
        """Return token ids per pair; the product is cut first, the query only when it fills the length alone."""
        queries = [row["query"][:256] for row in rows]
        products = [product_text(row, self.recipe) for row in rows]
        options: dict[str, Any] = {"truncation": True, "max_length": self.recipe.max_length}
        if self.tokenizer.sep_token is None:
            texts = [
                DECODER_PROMPT.format(query=q, product=p) for q, p in zip(queries, products, strict=True)
            ]
            out = self.tokenizer(texts, **options)
        else:
            out = self.tokenizer(queries, products, **options)
        return [{name: out[name][i] for name in out} for i in range(len(rows))]

    @torch.inference_mode()
    def score(self, rows: Sequence[Row], batch: int = 64, *, bf16: bool = False) -> NDArray[np.float32]:
        """Return one relevance logit per row, float32 [n]; higher is more relevant."""
        self.model.eval()
        encoded = self.encode(rows)
        out = np.empty(len(rows), np.float32)
        device = next(self.model.parameters()).device
        for chosen in batches_by_length([len(one["input_ids"]) for one in encoded], batch):
            inputs = self.tokenizer.pad([encoded[i] for i in chosen], return_tensors="pt").to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                out[chosen] = self.model(**inputs).logits[:, 0].float().cpu().numpy()
        return out


def load_base(recipe: TeacherRecipe, weights: str, texts: Sequence[str]) -> Teacher:
    """Return an untrained teacher: a pretrained body with a fresh head, with LoRA if the recipe asks for it."""
    if not recipe.model:
        model, tokenizer = fresh_body(texts, recipe.fresh)
        return Teacher(model, tokenizer, recipe)
    tokenizer = load_pretrained(AutoTokenizer, weights, recipe.gguf_file)
    dtype = torch.bfloat16 if recipe.lora_rank and recipe.bf16 else torch.float32
    loader = AutoModelForSequenceClassification
    model = load_model(loader, weights, recipe.gguf_file, dtype=dtype, num_labels=1)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.pad_token_id
    if recipe.lora_rank:
        model = _with_lora(model, recipe)
    return Teacher(model, tokenizer, recipe)


def _with_lora(model: Any, recipe: TeacherRecipe) -> Any:
    from peft import LoraConfig, TaskType, get_peft_model  # noqa: PLC0415 - a second to import, for LoRA alone

    targets = list(recipe.lora_targets) or "all-linear"
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=recipe.lora_rank,
        lora_alpha=2 * recipe.lora_rank,
        target_modules=targets,
    )
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise StageError(f"teacher.lora_targets: {one_line(error)}") from error


def load(folder: Path, recipe: TeacherRecipe) -> Teacher:
    """Read a fine-tuned teacher from its folder, float32 and in eval mode."""
    model = load_model(AutoModelForSequenceClassification, str(folder), dtype=torch.float32)
    return Teacher(model.eval(), load_pretrained(AutoTokenizer, str(folder)), recipe)


def calibrate_judge(judged: Sequence[Row]) -> NDArray[np.float64]:
    """Turn the judge's log-odds into soft targets in (0, 1), fitted on the human-labelled pairs among them.

    A judge orders a list well but its level drifts from query to query, so the target is
    sigmoid(a x + b (x - mean of x over the query) + c), fitted by soft-target cross-entropy.
    """
    odds = np.array([row["log_odds"] for row in judged], np.float64)
    queries = [normalize_query(row["query"]) for row in judged]
    _, group = np.unique(queries, return_inverse=True)
    mean = np.bincount(group, odds) / np.bincount(group)
    features = np.stack([odds, odds - mean[group], np.ones_like(odds)], axis=1)
    known = np.array([row["target"] is not None for row in judged])
    if known.sum() < 30:
        raise StageError(f"only {known.sum()} judged pairs have human labels: raise judge.train_lists")
    target = np.array([row["target"] for row in judged if row["target"] is not None])

    def loss(beta: NDArray[np.float64]) -> float:
        logits = features[known] @ beta
        return float(np.mean(np.logaddexp(0, logits) - target * logits) + 1e-3 * beta @ beta)

    beta = minimize(loss, np.zeros(3), method="BFGS").x
    fitted: NDArray[np.float64] = 1 / (1 + np.exp(-features @ beta))
    return fitted


def training_rows(pairs: Sequence[Row], judged: Sequence[Row], recipe: TeacherRecipe) -> list[Row]:
    """Return the rows to train on with `target` and `weight`: human train pairs, then judged unlabelled ones."""
    rows = [row | {"weight": 1.0} for row in pairs if row["split"] == "train"]
    if recipe.targets == "hard":
        rows = [row | {"target": float(row["target"] >= 1.0)} for row in rows]
    if judged and recipe.judge_weight:
        targets = calibrate_judge(judged)
        rows += [
            row | {"target": float(target), "weight": recipe.judge_weight}
            for row, target in zip(judged, targets, strict=True)
            if row["target"] is None
        ]
    return rows


def fine_tune(teacher: Teacher, rows: Sequence[Row], scratch: Path, seed: int) -> None:
    """Train the teacher in place; resumes from the newest checkpoint in `scratch`."""
    recipe = teacher.recipe
    encoded = teacher.encode(rows)
    items = [e | {"targets": r["target"], "weights": r["weight"]} for e, r in zip(encoded, rows, strict=True)]

    def collate(batch: list[Row]) -> dict[str, Tensor]:
        told = {name: torch.tensor([item[name] for item in batch]) for name in ("targets", "weights")}
        ids = [{k: v for k, v in item.items() if k not in told} for item in batch]
        return dict(teacher.tokenizer.pad(ids, return_tensors="pt")) | told

    trainer.fit(
        teacher.model,
        items,
        collate,
        soft_target_bce,
        targets=("targets", "weights"),
        schedule=recipe,
        batch_items=recipe.batch_size,
        scratch=scratch,
        seed=seed,
        gradient_accumulation_steps=recipe.accumulation,
        activation_checkpointing=recipe.activation_checkpointing,
        # batches of one length pad little, but lengths tell labels, and a body that knows nothing yet learns those
        train_sampling_strategy="group_by_length" if recipe.model else "random",
        save_steps=200,
        logging_steps=20,
    )


def run(context: Context) -> Metrics:
    """Write the fine-tuned teacher, its class calibration and its held-out scores and figures."""
    recipe = context.recipe.teacher
    torch.manual_seed(context.seed)
    pairs = pq.read_table(context.inputs("data") / "pairs.parquet").to_pylist()
    judged: list[Row] = []
    if context.recipe.judge is not None:
        judged = pq.read_table(context.inputs("judge") / "judged.parquet").to_pylist()
    rows = training_rows(pairs, judged, recipe)
    texts = [f"{row['query']} {product_text(row, recipe)}" for row in rows] if not recipe.model else []
    teacher = load_base(recipe, context.weights(recipe.model), texts)
    fine_tune(teacher, rows, context.scratch, context.seed)
    model = teacher.model.merge_and_unload() if recipe.lora_rank else teacher.model
    model.save_pretrained(context.out)
    teacher.tokenizer.save_pretrained(context.out)

    held_out = [row for row in pairs if row["split"] != "train"]
    scores = Teacher(model, teacher.tokenizer, recipe).score(held_out)
    told = [row | {"score": float(score)} for row, score in zip(held_out, scores, strict=True)]
    write_rows(told, SCORES, context.out / "scores.parquet")
    validation = [row for row in told if row["split"] == "validation"]
    calibration = fit(
        np.array([row["score"] for row in validation]),
        np.array([row["grade"] for row in validation]),
        len(LABELS),
    )
    (context.out / "calibration.json").write_text(calibration.model_dump_json() + "\n", encoding="utf-8")
    return {"pairs": len(rows), **_held_out_figures(context, context.out / "scores.parquet")}


def _held_out_figures(context: Context, scores: Path) -> dict[str, float]:
    """Return NDCG@10 of teacher, BM25 and random order on the validation lists, and log every figure."""
    pairs = context.inputs("data") / "pairs.parquet"
    lists = rankable(read_lists(pairs, "validation"))
    found: dict[str, float] = {}
    for dataset in dict.fromkeys(judged.dataset for judged in lists):
        of_set = [judged for judged in lists if judged.dataset == dataset]
        ranked = {
            "teacher": read_scores(scores, of_set),
            "bm25": bm25_scores(pairs, of_set, ("title", "brand", "color", "category")),
            "random": [random_order(len(judged)) for judged in of_set],
        }
        for name, each in ranked.items():
            figures_of = figures(of_set, each, resamples=1000)
            context.log(
                "held-out", dataset=dataset, model=name, **{k: v.value for k, v in figures_of.items()}
            )
            found[f"{dataset} {name} ndcg@10"] = round(figures_of["ndcg@10"].value, 4)
            found[f"{dataset} {name} pair accuracy"] = round(figures_of["pair accuracy"].value, 4)
    return found
