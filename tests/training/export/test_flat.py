"""The flat graph computes what the original model computes, for every architecture."""

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; see requirements/install")

from tests.training.families import FAMILIES, LONGEST, OTHERS, VOCABULARY, make  # noqa: E402
from training.export.architectures import unsupported  # noqa: E402
from training.export.export import PlainGraph  # noqa: E402
from training.export.flat import FlatBert  # noqa: E402

SHAPES = ((1, 2), (1, LONGEST), (6, 17), (3, LONGEST))  # of a batch: rows and their length


def feeds(batch: int, sequence: int, pad_id: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random ids with padding on the right, the first row without any, mask and both token types."""
    draws = torch.Generator().manual_seed(batch * sequence)
    lengths = torch.randint(2, sequence + 1, (batch, 1), generator=draws)
    lengths[0] = sequence
    mask = (torch.arange(sequence) < lengths).long()
    ids = torch.randint(0, VOCABULARY, (batch, sequence), generator=draws)
    return torch.where(mask.bool(), ids, pad_id), mask, (torch.arange(sequence) > 4).long() * mask


@pytest.mark.parametrize(("batch", "sequence"), SHAPES)
@pytest.mark.parametrize("name", FAMILIES)
def test_flat_logits_are_the_originals(name: str, batch: int, sequence: int) -> None:
    """Alone and in a batch, short and as long as can be, with ragged masks, the logits are the original's."""
    original = make(name)
    inputs = feeds(batch, sequence, original.config.pad_token_id)
    with torch.inference_mode():
        expected = PlainGraph(original)(*inputs)
        found = FlatBert(original)(*inputs)

    assert expected.abs().max() > 0.01
    torch.testing.assert_close(expected, found, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_depend_on_order_and_text(name: str) -> None:
    """The models compared tell other words and another order of the same words apart, so parity means something."""
    ids, mask, types = feeds(1, 12, pad_id=1)
    ids = ids.clamp(min=3)
    with torch.inference_mode():
        flat = FlatBert(make(name))
        logits = [flat(each, mask, types) for each in (ids, ids.roll(1, dims=1), ids.clamp(max=30))]

    assert len({round(float(logit), 4) for logit in logits}) == 3


@pytest.mark.parametrize("layers", [1, 2])
def test_shallow_models_are_flat_too(layers: int) -> None:
    """A model of one layer has only the last, which reads the embeddings."""
    original = make("bert", num_hidden_layers=layers)
    inputs = feeds(4, 11, 0)
    with torch.inference_mode():
        torch.testing.assert_close(PlainGraph(original)(*inputs), FlatBert(original)(*inputs))


@pytest.mark.parametrize("name", FAMILIES)
def test_flat_reads_no_masked_token(name: str) -> None:
    """Whatever stands at a masked place leaves the logit bit for bit as it is."""
    flat = FlatBert(make(name))
    ids, _, types = feeds(1, 12, 0)
    mask = (torch.arange(12) < 7).long()[None]
    other = torch.where(mask.bool(), ids, 3)
    with torch.inference_mode():
        assert torch.equal(flat(ids, mask, types), flat(other, mask, types))


@pytest.mark.parametrize("name", ["bert-one-type", "distilbert", "mpnet", "roberta", "xlm-roberta"])
def test_an_architecture_without_types_ignores_them(name: str) -> None:
    """Type ids, which a service may send to any graph, change nothing where the model has none."""
    flat = FlatBert(make(name))
    ids, mask, types = feeds(2, 12, 1)
    with torch.inference_mode():
        assert torch.equal(flat(ids, mask, types), flat(ids, mask, torch.zeros_like(types)))


@pytest.mark.parametrize("name", FAMILIES)
def test_flat_knows_how_long_a_row_may_be(name: str) -> None:
    """The limit is what the original's position table has room for, beside its padding."""
    assert FlatBert(make(name)).longest == LONGEST


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("bert", {"hidden_act": "silu"}, "activation silu"),
        ("bert", {"num_labels": 2}, "2 labels"),
        ("roberta", {"num_labels": 3}, "3 labels"),
        ("bert", {"is_decoder": True}, "decoder"),
        ("bert", {"position_embedding_type": "relative_key"}, "relative_key"),
        *((name, {}, "is none of BertForSequenceClassification") for name in OTHERS),
    ],
)
def test_other_computations_have_no_flat_form(name: str, changes: dict[str, object], reason: str) -> None:
    """A model the flat graph would get wrong is refused with the reason."""
    other = make(name, **changes)

    assert reason in unsupported(other)
    with pytest.raises(ValueError, match=reason):
        FlatBert(other)
