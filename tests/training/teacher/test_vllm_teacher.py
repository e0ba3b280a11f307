"""The vLLM adapter against a stand-in with the interface that vLLM documents; the real one needs a GPU."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; see requirements/install")

from tests.training import support  # noqa: E402
from training.errors import StageError  # noqa: E402
from training.sections.teacher import TeacherRecipe  # noqa: E402
from training.teacher.teacher import Teacher  # noqa: E402
from training.teacher.vllm_teacher import VllmTeacher  # noqa: E402

ROWS = [{"query": "red shoes", "title": t, "brand": ""} for t in ("red shoes", "blue lamp", "red lamp blue")]
RECIPE = TeacherRecipe(fields=("title", "brand"), max_length=16)


class FakeLLM:
    """Keeps what it was given; its logit is the sum of a prompt's token ids."""

    made: dict[str, Any]
    params: Any

    def __init__(self, **options: Any) -> None:
        FakeLLM.made = options

    def classify(self, prompts: list[Any], *, pooling_params: Any, use_tqdm: bool) -> list[Any]:
        """Return one output per prompt, as vllm.ClassificationRequestOutput is read."""
        assert not use_tqdm
        FakeLLM.params = pooling_params
        sums = [float(sum(prompt["prompt_token_ids"])) for prompt in prompts]
        return [SimpleNamespace(outputs=SimpleNamespace(probs=[value])) for value in sums]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A decoder folder, and a module that stands in for vllm."""
    support.make_decoder(tmp_path, ["red shoes", "blue lamp query product relevance"])
    fake = ModuleType("vllm")
    fake.LLM, fake.PoolingParams = FakeLLM, lambda **options: options  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", fake)
    return tmp_path


def test_the_model_gets_the_tokens_of_the_transformers_teacher(folder: Path) -> None:
    """Scores come back in order, for token ids that transformers would have seen, without an activation."""
    teacher = VllmTeacher(folder, RECIPE)
    wanted = [sum(one["input_ids"]) for one in Teacher(None, teacher.encoder.tokenizer, RECIPE).encode(ROWS)]

    assert teacher.score(ROWS).tolist() == wanted
    assert teacher.score(ROWS).dtype == np.float32
    assert FakeLLM.params == {"use_activation": False}
    assert FakeLLM.made["runner"] == "pooling"
    assert FakeLLM.made["convert"] == "classify"
    assert FakeLLM.made["max_model_len"] == RECIPE.max_length


def test_without_vllm_one_line_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing package is a stage error that names it."""
    monkeypatch.setitem(sys.modules, "vllm", None)

    with pytest.raises(StageError, match="needs vLLM"):
        VllmTeacher(folder, RECIPE)
