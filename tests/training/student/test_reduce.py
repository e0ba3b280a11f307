"""Smaller bodies cut out of larger ones, and how far their states are from them."""

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; see requirements/install")

from transformers import BertConfig, BertModel  # noqa: E402

from training.student.reduce import StateDistance, most_active, reduced  # noqa: E402


@pytest.fixture
def body() -> BertModel:
    """A random body of four layers with eight heads of four units."""
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=8,
        intermediate_size=128,
        max_position_embeddings=24,
    )
    return BertModel(config, add_pooling_layer=False).eval()


def feeds(rows: int = 6, length: int = 12) -> dict[str, torch.Tensor]:
    """Random rows, the last third of each padded."""
    ids = torch.randint(1, 50, (rows, length), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(ids)
    mask[:, 2 * length // 3 :] = 0
    return {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}


def test_units_that_carry_nothing_are_cut_without_a_trace(body: BertModel) -> None:
    """A body whose upper half of units, heads and feed-forward is dead is reduced to the very same function.

    The normalisations are over other numbers of units, so their gain is set to hold the comparison.
    """
    with torch.no_grad():
        for layer in body.encoder.layer:
            layer.attention.output.dense.weight[:, 16:] = 0  # heads 4 to 7 are not read
            layer.attention.self.value.weight[16:] = 0
            layer.attention.self.value.bias[16:] = 0
            layer.output.dense.weight[:, 64:] = 0
    kept = most_active(body, [feeds()], (0, 1, 2, 3), 32)
    assert all(set(range(4)) <= set(each.tolist()) for each in kept.heads)

    half = most_active(body, [feeds()], (0, 1, 2, 3), 16)
    assert [each.tolist() for each in half.heads] == [[0, 1, 2, 3]] * 4
    assert all(int(each.max()) < 64 for each in half.inner)


def test_keeping_everything_keeps_the_function(body: BertModel) -> None:
    """A reduction to all units and layers computes the same states."""
    same = reduced(body, (0, 1, 2, 3), most_active(body, [feeds()], (0, 1, 2, 3), 32)).eval()

    wanted = body(**feeds()).last_hidden_state
    torch.testing.assert_close(same(**feeds()).last_hidden_state, wanted, atol=1e-5, rtol=1e-5)


def test_a_reduced_body_has_the_weights_of_the_kept_units(body: BertModel) -> None:
    """Shapes are those asked for, and a weight is the larger body's at its row and column."""
    kept = most_active(body, [feeds()], (1, 3), 8)
    small = reduced(body, (1, 3), kept)

    assert (small.config.num_hidden_layers, small.config.hidden_size) == (2, 8)
    assert (small.config.num_attention_heads, small.config.intermediate_size) == (2, 32)
    place = 4 * int(kept.heads[1][1]) + 3
    query, source = (
        each.attention.self.query.weight for each in (small.encoder.layer[1], body.encoder.layer[3])
    )
    assert torch.equal(query[7], source[place][kept.hidden])
    out, source = (each.output.dense.weight for each in (small.encoder.layer[0], body.encoder.layer[1]))
    assert torch.equal(out[:, 5], source[kept.hidden, kept.inner[0][5]])


def test_units_are_chosen_by_real_tokens_alone(body: BertModel) -> None:
    """What stands in the padding changes nothing."""
    other = feeds()
    other["input_ids"] = torch.where(other["attention_mask"] == 0, 7, other["input_ids"])

    one, two = (most_active(body, [each], (0, 3), 8) for each in (feeds(), other))

    assert torch.equal(one.hidden, two.hidden)
    assert all(torch.equal(a, b) for a, b in zip(one.heads + one.inner, two.heads + two.inner, strict=True))


def test_distance_is_zero_for_the_body_itself_and_falls_by_training(body: BertModel) -> None:
    """With identity maps a body is at no distance from itself; a smaller one comes nearer, the larger stays."""
    torch.manual_seed(3)
    itself = StateDistance(body, body, (0, 1, 2, 3))
    for each in itself.maps:
        torch.nn.init.eye_(each.weight)
        torch.nn.init.zeros_(each.bias)
    assert itself.eval()(**feeds()).logits.abs().max() < 1e-8

    large = reduced(body, (0, 1, 2, 3), most_active(body, [feeds()], (0, 1, 2, 3), 32))
    before = [weight.clone() for weight in large.parameters()]
    small = reduced(large, (1, 3), most_active(large, [feeds()], (1, 3), 16))
    distance = StateDistance(small, large, (1, 3)).train()
    optimizer = torch.optim.Adam([p for p in distance.parameters() if p.requires_grad], 1e-2)
    found = []
    for _ in range(40):
        rows = distance(**feeds()).logits
        assert rows.shape == (6, 1)
        optimizer.zero_grad()
        rows.mean().backward()
        optimizer.step()
        found.append(rows.mean().item())
    assert found[-1] < 0.5 * found[0]
    assert not large.training
    assert all(torch.equal(a, b) for a, b in zip(before, large.parameters(), strict=True))
