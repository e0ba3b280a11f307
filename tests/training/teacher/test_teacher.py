"""The teacher: text, soft targets, training, LoRA and decoders, on tiny models made here."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; see requirements/install")

from transformers import (  # noqa: E402
    LlamaConfig,
    LlamaForSequenceClassification,
    MistralConfig,
    MistralForSequenceClassification,
)

from training.data import synthetic  # noqa: E402
from training.data.sources import judged  # noqa: E402
from training.errors import StageError  # noqa: E402
from training.models.fresh import train_tokenizer  # noqa: E402
from training.recipe import load_recipe  # noqa: E402
from training.sections.models import FreshRecipe  # noqa: E402
from training.sections.teacher import TeacherRecipe  # noqa: E402
from training.teacher import teacher  # noqa: E402
from training.teacher.teacher import calibrate_judge, fine_tune, load, load_base, product_text, training_rows  # noqa: E402

RECIPES = Path(__file__).parents[3] / "training" / "recipes"
SHAPE = FreshRecipe(hidden=32, layers=1, heads=2, vocabulary=300)


def rows(queries: int = 8) -> list[dict]:
    """Judged synthetic pairs, all in the train split."""
    return [judged(row) | {"split": "train", "dataset": "s"} for row in synthetic.judged_pairs(5, queries)]


def texts() -> list[str]:
    """Words for a tokenizer."""
    return [f"{row['query']} {row['title']}" for row in rows()]


def test_product_text_keeps_order_and_clips_fields() -> None:
    """Fields come in the recipe's order, clipped by characters, empty ones left out."""
    recipe = TeacherRecipe(fields=("title", "brand", "description"), field_chars={"description": 6})
    row = {"title": "Red  shoe", "brand": "", "description": "long text"}

    assert product_text(row, recipe) == "Red shoe; long t"


def test_training_lowers_the_loss_and_reload_scores_alike(tmp_path: Path) -> None:
    """Fine-tuning moves exact above irrelevant, and a saved teacher scores as the trained one."""
    torch.manual_seed(0)
    recipe = TeacherRecipe(fields=("title",), fresh=SHAPE, epochs=12, learning_rate=1e-2, max_length=32)
    data = [row | {"weight": 1.0} for row in rows()]
    made = load_base(recipe, "", texts())
    target = np.array([row["target"] for row in data])

    def gap() -> float:
        scores = made.score(data)
        return float(scores[target == 1].mean() - scores[target == 0].mean())

    before = gap()
    fine_tune(made, data, tmp_path / "scratch", seed=1)
    made.model.save_pretrained(tmp_path / "teacher")
    made.tokenizer.save_pretrained(tmp_path / "teacher")

    assert gap() > before + 0.5
    np.testing.assert_allclose(load(tmp_path / "teacher", recipe).score(data), made.score(data), atol=1e-5)


def test_scores_do_not_depend_on_batch_mates() -> None:
    """A pair scores the same alone and in a batch, up to float rounding."""
    made = load_base(TeacherRecipe(fields=("title",), fresh=SHAPE, max_length=32), "", texts())
    data = rows(4)
    together = made.score(data, batch=16)

    alone = np.concatenate([made.score([row]) for row in data])

    np.testing.assert_allclose(alone, together, atol=1e-5)


@pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)  # peft asks for it
def test_decoder_with_lora_trains_and_merges(tmp_path: Path) -> None:
    """A Llama-style classifier takes the same path: LoRA, a pad token, and merged weights that score alike."""
    folder = tmp_path / "decoder"
    tokenizer = train_tokenizer([*texts(), "query: product: relevance:"], 300)
    tokenizer.sep_token, tokenizer.cls_token = None, None
    tokenizer.backend_tokenizer.post_processor = None
    tokenizer.eos_token = "[MASK]"
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForSequenceClassification(LlamaConfig(vocab_size=len(tokenizer), num_labels=1, **size))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    recipe = TeacherRecipe(
        model=str(folder), fields=("title",), lora_rank=4, epochs=2, learning_rate=1e-2, accumulation=2
    )
    data = [row | {"weight": 1.0} for row in rows(6)]
    made = load_base(recipe, str(folder), [])
    untrained = made.score(data)
    fine_tune(made, data, tmp_path / "scratch", seed=1)
    trained = made.score(data)

    merged = teacher.Teacher(made.model.merge_and_unload(), made.tokenizer, recipe)

    assert np.abs(trained - untrained).max() > 1e-3
    np.testing.assert_allclose(merged.score(data), trained, atol=1e-4)


def test_hard_targets_are_zero_or_one() -> None:
    """The hard variant keeps exact pairs as positives and nothing else."""
    found = training_rows(rows(), [], TeacherRecipe(targets="hard"))

    assert {(row["label"], row["target"]) for row in found} == {
        ("E", 1.0),
        ("S", 0.0),
        ("C", 0.0),
        ("I", 0.0),
    }


def test_only_train_pairs_are_trained_on() -> None:
    """A validation pair never reaches the training rows."""
    pairs = [rows()[0] | {"split": "validation"}, rows()[1]]

    assert training_rows(pairs, [], TeacherRecipe()) == [rows()[1] | {"weight": 1.0}]


def test_judge_targets_are_calibrated_on_human_pairs() -> None:
    """Log-odds become probabilities near the human targets, though their level drifts between queries."""
    generator = np.random.default_rng(0)
    told = []
    for query in range(40):
        drift = generator.normal(scale=2)
        for _ in range(8):
            relevant = generator.random() < 0.5
            odds = 3 * relevant - 1.5 + drift + generator.normal(scale=0.3)
            told.append({"query": f"q{query}", "log_odds": odds, "relevant": relevant})
    known = [row | {"target": float(row["relevant"]) if i < 160 else None} for i, row in enumerate(told)]

    found = calibrate_judge(known)
    truth = np.array([row["relevant"] for row in told])

    assert np.mean((found[160:] > 0.5) == truth[160:]) > 0.9


def test_judge_without_human_pairs_is_refused() -> None:
    """Too few labelled pairs to calibrate on is an error that says what to raise."""
    with pytest.raises(StageError, match="train_lists"):
        calibrate_judge([{"query": "q", "log_odds": 1.0, "target": None}] * 40)


def test_unreachable_weights_name_themselves() -> None:
    """A model that is neither a folder nor to be had from the hub is one clear error."""
    with pytest.raises(StageError, match="no-such-owner/no-such-model"):
        load_base(TeacherRecipe(model="no-such-owner/no-such-model"), "no-such-owner/no-such-model", [])


def test_the_full_recipe_trains_a_sixth_of_a_percent_of_seven_billion_weights() -> None:
    """On the meta device, without weights: LoRA finds every target of the recipe in a Mistral-7B, and its head learns."""
    recipe = load_recipe(RECIPES / "esci-full.toml").teacher
    with torch.device("meta"):
        model = teacher._with_lora(MistralForSequenceClassification(MistralConfig(num_labels=1)), recipe)
    sizes = {name: weight.numel() for name, weight in model.named_parameters()}
    trained = {name: weight.numel() for name, weight in model.named_parameters() if weight.requires_grad}
    layers, hidden, inner, keys, rank = 32, 4096, 14336, 1024, recipe.lora_rank
    pairs = 2 * (hidden + hidden) + 2 * (hidden + keys) + 3 * (hidden + inner)

    assert sum(sizes.values()) > 7.0e9
    assert sum(trained.values()) == layers * rank * pairs + hidden
    assert any("score" in name for name in trained)
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in trained if ".lora_" in name} == set(
        recipe.lora_targets
    )
