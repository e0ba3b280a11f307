"""A comparison of systems as one HTML page that stands alone: no script, no font, no picture from elsewhere.

Knows comparisons and HTML; does not know where scores come from.
Invariant: every text is escaped, so that a query or a title is never markup.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from training.measure.comparison import LEGEND, MAIN, Change, Comparison, Place, shown

MOST = 10  # queries that won and as many that lost
LONGEST_TITLE = 90
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; } td, th { padding: .3rem .7rem; text-align: left; }
th { border-bottom: 2px solid #888; } td { border-bottom: 1px solid #ddd; vertical-align: top; }
ol { margin: 0; padding-left: 1.4rem; } .grade { color: #777; } .verdict { font-size: 1.2rem; }
.up { color: #17692c; } .down { color: #a11d1d; } .note { color: #666; }
"""


def html(comparison: Comparison, title: str, notes: Sequence[str] = ()) -> str:
    """Return the page: what the first difference says, the tables, and the queries that won and lost most.

    `notes` are paragraphs under the title: what was compared, and what to be careful about. The queries are those of
    the second system against the first.
    """
    second = comparison.others[:1]
    verdicts = (verdict(comparison, name, comparison.reference) for name in second)
    parts = [
        f"<h1>{escape(title)}</h1>",
        *(f"<p>{escape(note)}</p>" for note in notes),
        *(f'<p class="verdict">{escape(told)}</p>' for told in verdicts),
    ]
    for heading, (header, *rows) in comparison.tables():
        parts.append(
            f"<h2>{escape(heading)}</h2>{_table(header, ([escape(c) for c in row] for row in rows))}"
        )
    parts.append(f'<p class="note">{escape(LEGEND)}</p>')
    for name in second:
        parts += _changes(comparison, name)
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def verdict(comparison: Comparison, system: str, other: str) -> str:
    """Say in one sentence what the paired difference of two systems means."""
    found = comparison.paired(system, other)
    told = "is better than" if found.low > 0 else "is worse than" if found.high < 0 else "cannot be told from"
    return f"{system} {told} {other} on these {found.lists} queries: {MAIN} {shown(found, sign='+')}."


def _changes(comparison: Comparison, system: str) -> list[str]:
    changes = comparison.changes(system, comparison.reference)
    won = [change for change in changes if change.gain > 0]
    lost = [change for change in reversed(changes) if change.gain < 0]
    same = len(comparison.lists) - len(won) - len(lost)
    header = ["query", MAIN, comparison.reference, system]
    parts = [f"<p>{len(won)} queries won, {len(lost)} lost, {same} have the same {MAIN}.</p>"]
    for heading, found in (("Queries that won most", won), ("Queries that lost most", lost)):
        if found:
            parts.append(f"<h2>{heading}</h2>{_table(header, map(_change, found[:MOST]))}")
    return parts


def _change(change: Change) -> list[str]:
    arrow = "up" if change.gain > 0 else "down"
    figure = f'{change.before:.3f} to {change.after:.3f}<br><span class="{arrow}">{change.gain:+.3f}</span>'
    return [escape(change.query), figure, _ranking(change.first), _ranking(change.then)]


def _ranking(places: Iterable[Place]) -> str:
    """Return the first products with their grades, of which 3 is the best."""
    items = (
        f'<li>{escape(_short(place.title))} <span class="grade">({place.grade} of 3)</span></li>'
        for place in places
    )
    return f"<ol>{''.join(items)}</ol>"


def _short(title: str) -> str:
    return title if len(title) <= LONGEST_TITLE else f"{title[: LONGEST_TITLE - 1]}\u2026"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table whose header is text and whose cells are HTML already."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "\n".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table>\n<tr>{head}</tr>\n{body}\n</table>"
