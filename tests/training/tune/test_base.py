"""A bundle is read back as the model to train on, or refused."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed; see requirements/install")

import torch

from training.data.golden import golden_pairs
from training.errors import StageError
from training.models.runtime import OrtSession, score_rows
from training.tune import base


@pytest.mark.parametrize("name", ["default", "tiny"])
def test_a_shipped_bundle_scores_as_it_is_served(name: str, tiny: Path) -> None:
    """The model that is read back gives the served logits, but for the rounding of int8."""
    bundle = base.open_bundle(tiny.parent / name)
    student = base.student_of(bundle)
    rows = [student.encoder.encode(query, [product])[0] for query, product in golden_pairs()]
    served = score_rows(OrtSession(bundle.files[bundle.manifest.graph().file]), rows, student.contract)

    assert np.sqrt(np.mean((student.score(rows) - served) ** 2)) < 0.02 * served.std()
    assert not any(parameter.isnan().any() for parameter in student.model.parameters())


def test_weights_that_do_not_score_as_the_graph_are_refused(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph of another function, read as if it were a BERT's, is not trained on."""
    read = base.read_graph

    def other(graph: bytes) -> object:
        tensors, config = read(graph)
        torch.manual_seed(0)
        name = "bert.encoder.layer.0.output.dense.weight"
        return tensors | {name: torch.randn(tensors[name].shape).numpy()}, config

    monkeypatch.setattr(base, "read_graph", other)

    with pytest.raises(StageError, match="weights read back do not score as it does"):
        base.student_of(base.open_bundle(tiny))


def test_a_graph_that_is_no_bert_is_refused(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line names the bundle and says which bundles can be tuned."""

    def none(_: bytes) -> object:
        raise ValueError("not the graph of a flat BERT: it has no attention")

    monkeypatch.setattr(base, "read_graph", none)

    with pytest.raises(StageError, match=r"bundle tiny cannot be trained on: .* only BERT bundles can"):
        base.student_of(base.open_bundle(tiny))
