"""Writes the card of an imported bundle: what was taken over, what was decided, and what was measured.

Knows the manifest and the notes of the import; adds no figure of its own.
Invariant: every number on the card is in the manifest, or in a note that says where it comes from.
"""

from collections.abc import Sequence

from bundle.manifest import Manifest
from training.measure.figures import tables
from training.pack.card import SHOWN, UNSIGNED

UNMEASURED = "Not measured: no judgements were given. `python -m training evaluate` measures it on yours."


def card(manifest: Manifest, *, made: Sequence[str], text: str, score: Sequence[str]) -> str:
    """Return the card as Markdown, one sentence a line; `made`, `text` and `score` are what the import said of each."""
    told, graph, contract = manifest.provenance, manifest.graph(), manifest.text
    shown = [row for row in manifest.quality.rows if row.metric in SHOWN]
    measured = [
        "On the judged lists that were given. Their order is the model's own; calibration was fitted on them.",
        "",
    ]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(told.libraries.items()))
    return "\n".join(
        [
            f"# {manifest.name} {manifest.version}",
            "",
            "A cross-encoder that was imported as it is: it scores how relevant a product is to a shopper's query.",
            f"It is {told.teacher}; nothing was trained.",
            "",
            "## Text",
            "",
            f"It reads the query, at most {contract.query_max_tokens} tokens of it, and as second text the product's {text}.",
            "A product that is sent as one text is read as that text.",
            f"Both have at most {contract.max_length} tokens together; a product that does not fit loses its end.",
            "",
            "## Score",
            "",
            *score,
            "",
            "## Quality",
            "",
            *([*measured, tables(shown)] if shown else [UNMEASURED, ""]),
            "## How it was made",
            "",
            *(f"- {line}" for line in made),
            f"- default graph: {graph.file}, {graph.precision}, opset {graph.opset}",
            *(f"- {name}: {value:.4g}" for name, value in manifest.gates.items()),
            f"- Licences: {'; '.join(told.licences)}.",
            f"- commit {told.commit}, {versions}",
            UNSIGNED,
            "",
        ]
    )
