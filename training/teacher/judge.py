"""Ask a causal language model, zero-shot, whether each product is what the query asks for.

Knows prompts and log-odds; does not know students.
Invariant: a pair's log-odds do not depend on the other pairs it was scored with.
"""

from __future__ import annotations

import copy
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.cache_utils import DynamicCache

from training.data.augment import UNLABELLED
from training.data.sources import FIELDS
from training.data.splits import normalize_query
from training.models.batching import batches_by_length
from training.models.hub import load_model, load_pretrained
from training.sections.teacher import JudgeRecipe
from training.stages import Context, Metrics
from training.teacher.shards import Scorer, by_query, score_shards

JUDGED = UNLABELLED.append(pa.field("target", pa.float32())).append(pa.field("log_odds", pa.float32()))
ANSWERS = (("yes", "Yes", " yes", " Yes", "YES"), ("no", "No", " no", " No", "NO"))


def answer_pieces(tokenizer: Any) -> list[list[int]]:
    """Return the ids of the single pieces that say yes, and of those that say no."""
    encoded = [[tokenizer.encode(word, add_special_tokens=False) for word in words] for words in ANSWERS]
    return [sorted({ids[0] for ids in answers if len(ids) == 1}) for answers in encoded]


def frame(tokenizer: Any, prompt: str, query: str) -> tuple[list[int], list[int]]:
    """Return the ids before and after the product text; ValueError if the chat template does not keep its place."""
    marker = "\u241f"
    message = [{"role": "user", "content": f"{prompt.format(query=query)} {marker}"}]
    text = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    before, after = text.split(marker)
    encode = tokenizer.encode
    return encode(before.rstrip(" "), add_special_tokens=False), encode(after, add_special_tokens=False)


class YesNoJudge:
    """Log-odds of yes against no at the answer position: log P(yes pieces) - log P(no pieces).

    The prompt and the query are run once per query and their cached states shared by its products.
    """

    def __init__(self, recipe: JudgeRecipe, weights: str) -> None:
        """Load the model in bfloat16 from a hub id or folder; StageError when it cannot be had."""
        self.recipe = recipe
        self.tokenizer = load_pretrained(AutoTokenizer, weights, recipe.gguf_file)
        self.model = load_model(AutoModelForCausalLM, weights, recipe.gguf_file, dtype=torch.bfloat16)
        self.model.eval()
        self.answers = answer_pieces(self.tokenizer)

    @torch.inference_mode()
    def log_odds(self, query: str, products: list[str]) -> np.ndarray:
        """Return the log-odds of each product text for one query, float32 [n]."""
        before, after = frame(self.tokenizer, self.recipe.prompt, query)
        prefix = self.model(torch.tensor([before]), use_cache=True, logits_to_keep=1).past_key_values
        clipped = [" " + text[: self.recipe.product_chars].replace("\n", " ") for text in products]
        tails = [self.tokenizer.encode(text, add_special_tokens=False) + after for text in clipped]
        scores = np.empty(len(tails), np.float32)
        for chosen in batches_by_length([len(tail) for tail in tails], self.recipe.batch):
            scores[chosen] = self._after(prefix, before, [tails[i] for i in chosen])
        return scores

    def _after(self, prefix: DynamicCache, before: list[int], tails: list[list[int]]) -> np.ndarray:
        """Return the log-odds at the end of each tail that follows the cached prefix."""
        width = max(map(len, tails))
        ids = torch.tensor([tail + [0] * (width - len(tail)) for tail in tails])
        real = torch.tensor([[1] * (len(before) + len(tail)) + [0] * (width - len(tail)) for tail in tails])
        cache: DynamicCache = copy.deepcopy(prefix)
        cache.batch_repeat_interleave(len(tails))
        out = self.model.base_model(ids, attention_mask=real, past_key_values=cache, use_cache=True)
        last = out.last_hidden_state[
            torch.arange(len(tails)), torch.tensor([len(tail) - 1 for tail in tails])
        ]
        head = self.model.get_output_embeddings().weight
        # in float32 and for the answer pieces alone: bfloat16 logits have steps of 1/8 at this size
        yes, no = (torch.logsumexp(last.float() @ head[pieces].float().T, dim=1) for pieces in self.answers)
        return (yes - no).numpy()

    def __call__(self, pairs: pa.Table) -> pa.Table:
        """Return the pairs with their log_odds; rows of one query must be neighbours."""
        scores: list[float] = []
        for query, rows in groupby(pairs.to_pylist(), key=lambda row: row["query"]):
            scores += self.log_odds(query, [row["title"] for row in rows]).tolist()
        return pairs.append_column("log_odds", pa.array(scores, pa.float32()))


def to_judge(labelled: list[dict[str, Any]], unlabelled: pa.Table, recipe: JudgeRecipe) -> pa.Table:
    """Return the pairs to judge: the longest labelled train lists, then the first unlabelled queries.

    `target` is the human soft target, null where there is none.
    """
    rows = []
    train = [row for row in labelled if row["split"] == "train"]
    train.sort(key=lambda row: (row["dataset"], row["query_id"], row["product_id"]))
    lists = [(k, list(g)) for k, g in groupby(train, key=lambda row: (row["dataset"], row["query_id"]))]
    lists.sort(key=lambda item: -len(item[1]))
    for (dataset, query_id), group in lists[: recipe.train_lists]:
        for row in group:
            texts = {field: row[field] for field in FIELDS}
            told = {"query_id": query_id, "query": row["query"], "query_source": dataset, "rank": -1}
            rows.append(told | {"product_id": row["product_id"], "target": row["target"]} | texts)
    seen = {normalize_query(row["query"]) for row in rows}
    groups = [(q, list(g)) for q, g in groupby(unlabelled.to_pylist(), key=lambda row: row["query_id"])]
    groups = [
        (q, g) for q, g in sorted(groups) if normalize_query(g[0]["query"]) not in seen
    ]  # ids are hashes
    for _, group in groups[: recipe.queries]:
        rows += [row | {"target": None} for row in group]
    return pa.Table.from_pylist(rows, schema=JUDGED.remove(JUDGED.get_field_index("log_odds")))


def run(context: Context) -> Metrics:
    """Write judged.parquet: the judged pairs with log_odds."""
    recipe = context.recipe.judge
    assert recipe is not None
    labelled = pq.read_table(context.inputs("data") / "pairs.parquet").to_pylist()
    unlabelled = pq.read_table(context.inputs("augment") / "pairs.parquet")
    pairs = to_judge(labelled, unlabelled, recipe)

    def scorer() -> Scorer:
        return YesNoJudge(recipe, context.weights(recipe.model))

    paths = score_shards(
        by_query(pairs, recipe.shard_queries), scorer, context.scratch, "judged", context.run.ray
    )
    table = pa.concat_tables([pq.read_table(path) for path in paths])
    pq.write_table(table, context.out / "judged.parquet", compression="zstd")
    human = table.filter(pa.compute.is_valid(table["target"]))
    return {"pairs": len(table), "human_pairs": len(human)}
