"""The flat graph computes what the original model computes."""

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; see requirements/install")

from transformers import BertConfig, BertForSequenceClassification  # noqa: E402

from training.flat import FlatBert, unsupported  # noqa: E402


def model(**changes: object) -> BertForSequenceClassification:
    """A small random model whose logits are of order one."""
    torch.manual_seed(1)
    shape = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 48}
    config = BertConfig(vocab_size=50, num_labels=1, initializer_range=0.3, **shape | changes)
    return BertForSequenceClassification(config).eval()


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_flat_logits_are_the_originals(layers: int) -> None:
    """For ragged masks and both type ids the flat model gives the original's logits."""
    original = model(num_hidden_layers=layers)
    ids = torch.randint(0, 50, (6, 17))
    mask = (torch.arange(17) < torch.tensor([[17], [2], [5], [16], [9], [3]])).long()
    types = (torch.arange(17) > 4).long().expand(6, 17)
    with torch.inference_mode():
        expected = original(input_ids=ids, attention_mask=mask, token_type_ids=types).logits[:, 0]
        found = FlatBert(original)(ids, mask, types)

    assert expected.std() > 0.1
    torch.testing.assert_close(expected, found, atol=1e-5, rtol=1e-5)


def test_flat_reads_no_masked_token() -> None:
    """Whatever stands at a masked place leaves the logit bit for bit as it is."""
    flat = FlatBert(model())
    ids = torch.randint(0, 50, (1, 12))
    mask = (torch.arange(12) < 7).long()[None]
    other = torch.where(mask.bool(), ids, torch.randint(0, 50, (1, 12)))
    with torch.inference_mode():
        assert torch.equal(flat(ids, mask, mask * 0), flat(other, mask, mask * 0))


@pytest.mark.parametrize(
    ("changes", "reason"), [({"hidden_act": "relu"}, "relu"), ({"num_labels": 2}, "2 labels")]
)
def test_other_computations_have_no_flat_form(changes: dict[str, object], reason: str) -> None:
    """A model the flat graph would get wrong is refused with the reason."""
    torch.manual_seed(1)
    shape = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 48}
    other = BertForSequenceClassification(BertConfig(**{"vocab_size": 50, "num_labels": 1} | shape | changes))

    assert reason in unsupported(other)
    with pytest.raises(ValueError, match=reason):
        FlatBert(other)
