"""Builds a tiny real bundle: a WordPiece tokenizer, an ONNX graph, golden rows; no torch, no download.

Knows how to make every file of a bundle; does not know who tests what with it.
Invariant: the same call gives the same bytes, and the logit rises with the overlap of query and product.
"""

import hashlib
import string
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from bundle.manifest import (
    Calibration,
    FieldSpec,
    Golden,
    GraphSpec,
    Label,
    Manifest,
    PairTemplate,
    Provenance,
    Quality,
    QualityRow,
    TensorSpec,
    TextContract,
)
from bundle.store import write_bundle
from bundle.text import PairEncoder, Product
from bundle.verify import INPUT_NAMES, GoldenRow, dump_golden, golden_row

NAME = "tiny"
PAD, UNKNOWN, START, END = range(4)
WIDTH = 32
OPSET = 17
WORDS = """
and the for with of in set pack inch cm men women kids black white red blue green grey pink small large
shoe shoes boot boots running trail hiking jacket coat rain waterproof cotton wool shirt dress sock socks
phone case cable charger usb fast wireless headphones speaker laptop tablet screen battery camera lens
coffee tea mug cup kettle grinder machine steel glass ceramic pan pot knife board kitchen chair desk lamp
table sofa shelf bed pillow blanket towel soap cream oil garden hose plant seed tool drill hammer screw
dog cat food toy leash ball bike helmet light lock tent bag backpack bottle water sport yoga mat book
""".split()  # noqa: SIM905 - 150 quoted words read worse


def tokenizer_json() -> bytes:
    """Return a lower-casing WordPiece tokenizer over WORDS and single characters.

    The file carries truncation and padding that would spoil every row, as files in the wild do.
    """
    characters = string.ascii_lowercase + string.digits + string.punctuation
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *characters, *(f"##{char}" for char in characters), *WORDS]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=pieces[UNKNOWN]))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens([AddedToken(piece, special=True) for piece in pieces[:4]])
    tokenizer.enable_truncation(max_length=3)
    tokenizer.enable_padding(length=7)
    return tokenizer.to_str().encode()


def graph_onnx(  # noqa: PLR0913 - each is a way to be another graph
    vocabulary: int,
    *,
    inputs: Sequence[str] = INPUT_NAMES,
    output: str = "logits",
    output_type: int = TensorProto.FLOAT,
    seed: int = 7,
    scale: float = 8.0,
) -> bytes:
    """Return a graph whose logit is `scale` cos(mean query embedding, mean product embedding) - 2."""
    embeddings = np.random.default_rng(seed).normal(size=(vocabulary, WIDTH)).astype(np.float32)
    embeddings[[PAD, START, END]] = 0.0
    ids, mask, types = inputs
    constants = {
        "embeddings": embeddings,
        "one": np.float32(1),
        "tiny": np.float32(1e-6),
        "scale": np.float32(scale),
        "bias": np.float32(-2),
        "tokens_axis": np.array([1], np.int64),
        "last": np.array([-1], np.int64),
    }
    nodes = [
        helper.make_node("Gather", ["embeddings", ids], ["embedded"]),
        helper.make_node("Cast", [mask], ["kept"], to=TensorProto.FLOAT),
        helper.make_node("Cast", [types], ["second"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["one", "second"], ["first"]),
        helper.make_node("Mul", ["kept", "first"], ["query_mask"]),
        helper.make_node("Mul", ["kept", "second"], ["product_mask"]),
        *_unit_mean("query"),
        *_unit_mean("product"),
        helper.make_node("Mul", ["query_unit", "product_unit"], ["products"]),
        helper.make_node("ReduceSum", ["products", "last"], ["cosine"], keepdims=0),
        helper.make_node("Mul", ["cosine", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "bias"], ["biased"]),
        helper.make_node("Cast", ["biased"], [output], to=output_type),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"]) for name in inputs],
        [helper.make_tensor_value_info(output, output_type, ["batch"])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _unit_mean(part: str) -> list[onnx.NodeProto]:
    """Sum the embeddings under `part`_mask and scale the sum to length one (a mean has the same direction)."""
    return [
        helper.make_node("Unsqueeze", [f"{part}_mask", "last"], [f"{part}_weights"]),
        helper.make_node("Mul", ["embedded", f"{part}_weights"], [f"{part}_masked"]),
        helper.make_node("ReduceSum", [f"{part}_masked", "tokens_axis"], [f"{part}_sum"], keepdims=0),
        helper.make_node("ReduceL2", [f"{part}_sum"], [f"{part}_norm"], axes=[1], keepdims=1),
        helper.make_node("Add", [f"{part}_norm", "tiny"], [f"{part}_length"]),
        helper.make_node("Div", [f"{part}_sum", f"{part}_length"], [f"{part}_unit"]),
    ]


class TinySession:
    """An onnxruntime session on one thread, as `bundle.verify.Session` asks for."""

    def __init__(self, graph: bytes) -> None:
        """Load the graph from its bytes."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self.inputs = tuple(_tensor(node) for node in self._session.get_inputs())
        self.outputs = tuple(_tensor(node) for node in self._session.get_outputs())

    def run(self, feeds: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        """Return the graph's first output."""
        logits: NDArray[np.float32] = self._session.run(None, dict(feeds))[0]
        return logits


def _tensor(node: onnxruntime.NodeArg) -> TensorSpec:
    types = {"tensor(int64)": "int64", "tensor(float)": "float32"}
    return TensorSpec.model_construct(
        name=node.name, dtype=types.get(node.type, node.type), shape=tuple(node.shape)
    )


def text_contract(tokenizer: bytes) -> TextContract:
    """Return a contract of five fields, 48 tokens and the tokenizer's own vocabulary."""
    return TextContract(
        version=1,
        query_max_chars=120,
        query_max_tokens=12,
        fields=(
            FieldSpec(name="title", max_chars=400, max_tokens=24),
            FieldSpec(name="brand", max_chars=60, max_tokens=6),
            FieldSpec(name="color", max_chars=60, max_tokens=4),
            FieldSpec(name="description", max_chars=400, max_tokens=16),
            FieldSpec(name="text", max_chars=400, max_tokens=24),
        ),
        max_length=48,
        vocabulary=Tokenizer.from_buffer(tokenizer).get_vocab_size(),
        template=PairTemplate(prefix=(START,), middle=(END,), suffix=(END,), pad_id=PAD, type_ids=True),
    )


LABELS = (
    Label(name="irrelevant", gain=0.0),
    Label(name="complement", gain=0.01),
    Label(name="substitute", gain=0.1),
    Label(name="exact", gain=1.0),
)
CALIBRATION = Calibration(method="ordinal", slope=1.0, thresholds=(-1.5, 0.0, 1.5))

NASTY_PAIRS = (
    ("", Product()),
    ("red shoes", Product()),
    ("", Product(title="red shoes")),
    ("red shoes", Product(title="", brand="trail", color="red")),
    ("😀 mug", Product(title="😀👩‍👩‍👧‍👦🇩🇪 mug")),
    ("红色 鞋", Product(title="红色跑步鞋 red shoes", brand="跑")),
    ("red shoes", Product(title="red shoe " * 1200)),
    ("x" * 10_000, Product(title="laptop")),
    ("kettle", Product(description="kettle " * 1429)),
    ("red\0shoes", Product(title="red\0 shoes\0", text="\0")),
    ("حذاء أحمر", Product(title="حذاء رياضي أحمر red", color="أحمر")),
    ("\u202eseohs der", Product(title="\u202ered shoes\u202c")),
    ("lone \ud800 mug", Product(title="mug \udfff\ud83d", brand="\udc00")),
    ("cafe\u0301 cup", Product(title="café cup e\u0301\u0301\u0301\u0301")),
    ("[CLS] [SEP] mug", Product(title="[PAD] [SEP] [UNK] mug")),
    ("<script>alert(1)</script>", Product(title="'; DROP TABLE mug; -- {{7*7}} ${jndi}")),
    (" \t\r\n ", Product(title="\u00a0\u2003\u3000 \ufeff\u200b")),
    ("MUG", Product(title="Mug", brand="mUg", color="MUG", description="mug", text="muG")),
    ("12345 67.89", Product(title="1" * 300, description="½ ² ① Ⅷ 3,5")),
    ("dog food", Product(title="dog food", description="\n".join(["cat toy"] * 60))),
)
PLAIN_PAIRS = tuple(
    (" ".join(WORDS[i : i + 2]), Product(title=" ".join(WORDS[j : j + 9]), brand=WORDS[-i], color="black"))
    for i, j in zip(range(20, 100, 5), range(14, 110, 6), strict=True)
)


def golden_rows(tokenizer: bytes, graph: bytes) -> list[GoldenRow]:
    """Return every pair with the ids and the score that it has now."""
    manifest = tiny_manifest({"tokenizer.json": tokenizer})
    encoder, session = PairEncoder(tokenizer, manifest.text), TinySession(graph)
    return [golden_row(session, encoder, manifest, pair) for pair in (*NASTY_PAIRS, *PLAIN_PAIRS)]


def tiny_files(*, seed: int = 7, scale: float = 8.0) -> dict[str, bytes]:
    """Return every file of the tiny bundle but its manifest; below 0 the `scale` turns the order round."""
    tokenizer = tokenizer_json()
    contract = text_contract(tokenizer)
    graph = graph_onnx(contract.vocabulary, seed=seed, scale=scale)
    return {
        "model.onnx": graph,
        "tokenizer.json": tokenizer,
        "golden.jsonl": dump_golden(golden_rows(tokenizer, graph)),
        "card.md": b"# tiny\n\nAn untrained model for tests.\n",
    }


def tiny_manifest(files: Mapping[str, bytes]) -> Manifest:
    """Return the manifest of these files, complete but for `files`, which `write_bundle` fills in."""
    nothing = hashlib.sha256(b"").hexdigest()
    pair = ("batch", "sequence")
    return Manifest(
        schema_version=1,
        name=NAME,
        version="1.0.0",
        files={},
        graphs=(
            GraphSpec(
                file="model.onnx",
                precision="fp32",
                opset=OPSET,
                inputs=tuple(TensorSpec(name=name, dtype="int64", shape=pair) for name in INPUT_NAMES),
                outputs=(TensorSpec(name="logits", dtype="float32", shape=("batch",)),),
            ),
        ),
        default_precision="fp32",
        text=text_contract(files["tokenizer.json"]),
        tokenizer="tokenizer.json",
        labels=LABELS,
        calibration=CALIBRATION,
        quality=Quality(
            gain_map="E 1, S 0.1, C 0.01, I 0",
            data_sha256=nothing,
            rows=(
                QualityRow(
                    dataset="none", metric="ndcg@10", model=NAME, value=0.5, low=0.4, high=0.6, lists=1
                ),
            ),
        ),
        golden=Golden(file="golden.jsonl", rows=len(NASTY_PAIRS) + len(PLAIN_PAIRS), tolerance=1e-5),
        provenance=Provenance(
            created="2026-01-01T00:00:00Z",
            commit="0" * 40,
            recipe_sha256=nothing,
            data_sha256=nothing,
            teacher="none",
            seed=7,
            libraries={"onnx": onnx.__version__},
            licences=("Apache-2.0",),
        ),
        gates={"ndcg@10": 0.4},
    )


def build_tiny(
    root: Path, name: str = NAME, *, version: str = "1.0.0", seed: int = 7, scale: float = 8.0
) -> Path:
    """Write the tiny bundle, or one like it, to `root/name` in the place of another, and return that path."""
    files = tiny_files(seed=seed, scale=scale)
    manifest = tiny_manifest(files).model_copy(update={"version": version})
    return write_bundle(root, name, manifest, files, replace=True)
