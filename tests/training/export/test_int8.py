"""Static int8: faithful, batch-invariant, and int8 where it should be."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; see requirements/install")

import onnx  # noqa: E402
from onnx import helper, numpy_helper  # noqa: E402

from bundle.rows import Row, assemble, padded_length  # noqa: E402
from training.data.lists import encode_lists, read_lists  # noqa: E402
from training.export import export, int8  # noqa: E402
from training.export.smooth import smoothing  # noqa: E402
from training.models.runtime import OrtSession, score_rows  # noqa: E402
from training.student.student import Student, load  # noqa: E402


@pytest.fixture(scope="module")
def student(exported: Path) -> Student:
    """The random student."""
    return load(exported / "distil")


@pytest.fixture(scope="module")
def rows(exported: Path, student: Student) -> list[Row]:
    """Every training pair."""
    return encode_lists(student.encoder, read_lists(exported / "data" / "pairs.parquet", "train"))


@pytest.fixture(scope="module", params=["flat", "plain"])
def graph(request: pytest.FixtureRequest, exported: Path) -> bytes:
    """The fp32 graph, in both forms."""
    model = export.load_student(exported / "distil")
    return export.to_onnx(export.graph_module(model, request.param), 20).SerializeToString()


@pytest.fixture(scope="module")
def quantized(graph: bytes, rows: list[Row], student: Student) -> bytes:
    """The int8 graph as the default recipe makes it."""
    return int8.quantize(graph, rows[:200], student.contract)


def test_every_linear_outside_the_head_is_integer(graph: bytes, quantized: bytes) -> None:
    """Three layers have their products in int8, the head keeps its two in fp32, and nothing is dynamic."""
    kinds = [node.op_type for node in onnx.load_from_string(quantized).graph.node]
    linears = int8.find_linears(onnx.load_from_string(graph))

    assert kinds.count("MatMulIntegerToFloat") == len(linears) >= 13
    assert not any(kind.startswith("Dynamic") for kind in kinds)
    assert not int8.find_linears(onnx.load_from_string(quantized))


def test_int8_follows_fp32(graph: bytes, quantized: bytes, rows: list[Row], student: Student) -> None:
    """On rows that calibration did not see, logits correlate and errors are small beside their spread."""
    exact = score_rows(OrtSession(graph), rows[200:], student.contract)
    rounded = score_rows(OrtSession(quantized), rows[200:], student.contract)

    assert exact.std() > 0.1
    assert np.corrcoef(exact, rounded)[0, 1] > 0.98
    assert np.sqrt(np.mean((exact - rounded) ** 2)) < 0.2 * exact.std()


def test_a_pair_scores_bit_for_bit_alike_in_any_batch(
    quantized: bytes, rows: list[Row], student: Student
) -> None:
    """Over 200 random batches, no score differs in one bit from the score of the pair alone."""
    session, draws = OrtSession(quantized), np.random.default_rng(0)
    by_length: dict[int, list[Row]] = {}
    for row in rows:
        by_length.setdefault(padded_length(len(row), student.contract.max_length), []).append(row)
    template = student.contract.template
    alone = {
        row.ids: session.run(assemble([row], template, length))[0]
        for length, members in by_length.items()
        for row in members
    }
    for _ in range(200):
        length = int(draws.choice(list(by_length)))
        members = by_length[length]
        batch = [members[i] for i in draws.integers(0, len(members), int(draws.integers(1, 41)))]
        together = session.run(assemble(batch, template, length))

        assert [alone[row.ids] for row in batch] == together.tolist()


def test_reduced_range_cannot_saturate_sixteen_bits(quantized: bytes) -> None:
    """Any two neighbouring u8 x s8 products add up within an int16, and weights use more than 7 bits of s8."""
    weights = [
        numpy_helper.to_array(tensor).astype(np.int64)
        for tensor in onnx.load_from_string(quantized).graph.initializer
        if tensor.name.endswith(".integer") and len(tensor.dims) == 2
    ]

    signs = [np.maximum(w, 0) for w in weights] + [np.maximum(-w, 0) for w in weights]

    assert weights
    assert all(255 * (part[:-1] + part[1:]).max() <= np.iinfo(np.int16).max for part in signs)
    assert all(w.max() <= 127 and w.min() >= -127 for w in weights)
    assert max(part.max() for part in signs) > 63


def test_full_range_uses_eight_bits(graph: bytes, rows: list[Row], student: Student) -> None:
    """Without the reduction every output channel reaches 127, and some sums would not fit 16 bits."""
    model = onnx.load_from_string(int8.quantize(graph, rows[:64], student.contract, reduce_range=False))
    weights = [
        np.abs(numpy_helper.to_array(tensor).astype(int))
        for tensor in model.graph.initializer
        if tensor.name.endswith(".integer") and len(tensor.dims) == 2
    ]

    assert all((w.max(axis=0) == 127).all() for w in weights)
    assert any(255 * (w[:-1] + w[1:]).max() > np.iinfo(np.int16).max for w in weights)


@pytest.mark.parametrize("smooth", [0.0, 0.5, 1.0])
def test_smoothing_leaves_the_fp32_function_alone(
    graph: bytes, rows: list[Row], student: Student, smooth: float
) -> None:
    """With every x / r times r W in fp32, in place of x W, logits move by rounding alone."""
    model = onnx.load_from_string(graph)
    linears = int8.find_linears(model)
    seen = int8.calibrate(graph, sorted({one.source for one in linears}), rows[:64], student.contract)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for one in linears:
        readers = [other.weight for other in linears if other.source == one.source]
        divisors = smoothing(seen[one.source].peak(), readers, smooth)
        stored[one.name].CopyFrom(numpy_helper.from_array(one.weight * divisors[:, None], one.name))
        node = next(n for n in model.graph.node if n.output[0] == one.nodes[0])
        scaled, inverse = f"{one.name}.scaled", f"{one.name}.inverse"
        model.graph.initializer.append(numpy_helper.from_array(1 / divisors, inverse))
        model.graph.node.insert(
            list(model.graph.node).index(node), helper.make_node("Mul", [one.source, inverse], [scaled])
        )
        node.input[0] = scaled
    exact = score_rows(OrtSession(graph), rows[200:], student.contract)
    moved = score_rows(OrtSession(model.SerializeToString()), rows[200:], student.contract)

    assert np.abs(exact - moved).max() < 1e-4


def test_large_embedding_tables_become_int8(
    graph: bytes, rows: list[Row], student: Student, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table above the size limit is stored in one byte a value, and its rows come back nearly as they were."""
    words = student.model.bert.embeddings.word_embeddings.weight.detach().numpy()
    monkeypatch.setattr(int8, "TABLE_ROWS", len(words))
    model = onnx.load_from_string(int8.quantize(graph, rows[:64], student.contract))
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    tables = {n: v for n, v in stored.items() if "word" in n and v.shape == words.shape}
    (name,) = tables
    restored = stored[name] * stored[name.replace(".integer", ".scale")]

    assert np.abs(restored - words).max() <= np.abs(words).max() / 127
    assert tables[name].dtype == np.int8


def test_a_graph_without_linears_is_refused(tiny_bundle: Path, rows: list[Row], student: Student) -> None:
    """There is nothing to quantise in a graph without constant products, and that is an error."""
    graph = next((tiny_bundle / "tiny").glob("*.onnx")).read_bytes()
    with pytest.raises(ValueError, match="no matrix product"):
        int8.quantize(graph, rows[:8], student.contract)
