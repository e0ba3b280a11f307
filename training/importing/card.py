"""Writes the card of an imported bundle: what was taken over, what was decided, and what was measured.

Knows the manifest and the notes of the import; adds no figure of its own.
Invariant: every number on the card is in the manifest, or in a note that says where it comes from.
"""

from collections.abc import Sequence

from bundle.manifest import Manifest
from training.measure.figures import tables
from training.pack.card import SHOWN


def card(manifest: Manifest, *, made: Sequence[str], text: str, score: Sequence[str]) -> str:
    """Return the card as Markdown, one sentence a line; `made`, `text` and `score` are what the import said of each."""
    told, graph = manifest.provenance, manifest.graph()
    shown = [row for row in manifest.quality.rows if row.metric in SHOWN]
    return "\n".join(
        [
            f"# {manifest.name} {manifest.version}",
            "",
            "A cross-encoder that was imported as it is: it scores how relevant a product is to a shopper's query.",
            f"It is {told.teacher}; nothing was trained.",
            "",
            "## Text",
            "",
            f"It reads the query, at most {manifest.text.query_max_tokens} tokens of it, and as second text the product's "
            f"{text}.",
            "A product that is sent as one text is read as that text.",
            f"Query and product have at most {manifest.text.max_length} tokens together; a product that does not fit loses "
            "its end.",
            "",
            "## Score",
            "",
            *score,
            "",
            "## Quality",
            "",
            *(
                [
                    "On the judged lists that were given; calibration was fitted on the same lists, the order of products was "
                    "not.",
                    "",
                    tables(shown),
                ]
                if shown
                else ["Not measured: no judgements were given. `evaluate` measures it on yours.", ""]
            ),
            "## How it was made",
            "",
            *(f"- {line}" for line in made),
            f"- default graph: {graph.file}, {graph.precision}, opset {graph.opset}",
            *(f"- {name}: {value:.4g}" for name, value in manifest.gates.items()),
            f"- Licences: {'; '.join(told.licences)}.",
            f"- commit {told.commit}, {', '.join(f'{name} {version}' for name, version in sorted(told.libraries.items()))}",
            "- The bundle's id vouches for every byte, not for who made it: no author's signature comes with it yet.",
            "",
        ]
    )
