"""Writes the card of a bundle: for people who decide whether to use the model.

Knows the manifest; adds no figure of its own.
Invariant: every number on the card is in the manifest.
"""

from collections.abc import Sequence

from bundle.manifest import Manifest
from training.evaluate.evaluate import behind
from training.measure.figures import tables

NO_TEACHER = "none: human labels alone"  # as a manifest's provenance says it
SHOWN = ("ndcg@10", "ndcg", "pair accuracy", "auc exact", "calibration error")
UNSIGNED = (
    "- The bundle's id vouches for every byte, not for who made it: no author's signature comes with it yet."
)


def card(manifest: Manifest, *, data: Sequence[str] = (), limits: Sequence[str] = ()) -> str:
    """Return the card as Markdown, one sentence a line; `data` and `limits` are lines from the recipe."""
    told, graph = manifest.provenance, manifest.graph()
    fields = ", ".join(field.name for field in manifest.text.fields)
    gains = ", ".join(f"{label.name} {label.gain:g}" for label in manifest.labels)
    shown = [row for row in manifest.quality.rows if row.metric in SHOWN]
    warning = behind(manifest.quality.rows)
    return "\n".join(
        [
            f"# {manifest.name} {manifest.version}",
            "",
            *([f"> **Warning:** {warning}.", ""] if warning else []),
            "A small cross-encoder that scores how relevant a product is to a shopper's query.",
            "It learnt from human labels alone, without a teacher."
            if told.teacher == NO_TEACHER
            else f"It was distilled from a larger teacher ({told.teacher}).",
            "",
            "## Intended use",
            "",
            "Reranking the products that a search engine found, tens to a few hundred per query, on a CPU.",
            f"It reads the query and the product's {fields}, at most {manifest.text.max_length} tokens together.",
            f"The score is the expected gain of four classes ({gains}); their probabilities are calibrated.",
            "It is not meant for judging people, medical or legal content, nor as a filter for what may be sold.",
            "",
            "## Data and licences",
            "",
            *(f"- {line}" for line in data),
            f"- Licences: {'; '.join(told.licences) or 'none stated'}.",
            "",
            "## Quality",
            "",
            "Held-out queries, never seen by teacher or student; the unit is the list, so few lists mean wide intervals.",
            "",
            tables(shown),
            "## Limits",
            "",
            *(f"- {line}" for line in limits),
            "- Class probabilities follow the label shares of the training data, not those of your traffic.",
            "- Words in product text can raise a score; text from untrusted sellers can be written to do so.",
            "",
            "## How it was made",
            "",
            f"- graph: {graph.file}, {graph.precision}, opset {graph.opset}",
            f"- commit {told.commit}, recipe {told.recipe_sha256[:12]}, data {told.data_sha256[:12]}, seed {told.seed}",
            f"- {', '.join(f'{name} {version}' for name, version in sorted(told.libraries.items()))}",
            UNSIGNED,
            "",
        ]
    )
