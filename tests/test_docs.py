"""The documentation names what exists."""

import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MOST_STEPS = 60
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


@pytest.mark.parametrize("package", ["bundle", "service", "shelfrank", "training"])
def test_architecture_names_every_module(package: str) -> None:
    """Who adds or removes a module says so in docs/architecture.md."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    tables = [table for table in text.split("\n\n") if re.match(rf"\| {package}(: [a-z ]+)? \| \|\n", table)]
    section = "\n".join(tables)
    folder = ROOT / package
    modules = {str(path.relative_to(folder)) for path in folder.rglob("*.py") if path.name != "__init__.py"}

    assert set(re.findall(r"`([\w/]+\.py)`", section)) == modules


def _functions(path: Path) -> set[str]:
    """Return the functions of a module and the methods of its classes, as `function` and `Class.method`."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    classes = {node.name: node.body for node in body if isinstance(node, ast.ClassDef)}
    return {
        prefix + node.name
        for prefix, nodes in [("", body), *((f"{name}.", inner) for name, inner in classes.items())]
        for node in nodes
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_the_way_of_a_rerank_exists() -> None:
    """The page that follows a rerank names functions that there are, where they are, and at most sixty."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    page = text.partition("### A rerank, function by function\n")[2].partition("\n#")[0]
    steps = [
        (file, function)
        for file, functions in re.findall(r"^\| `([\w/]+\.py)` \| (`.*?`) \|", page, re.MULTILINE)
        for function in re.findall(r"`([\w.]+)`", functions)
    ]
    unknown = [step for step in steps if step[1] not in _functions(ROOT / "service" / step[0])]

    assert unknown == []
    assert 1 <= len(set(steps)) <= MOST_STEPS


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_json_examples_are_json(document: Path) -> None:
    """What is shown as JSON can be pasted as JSON."""
    for example in re.findall(
        r"^```json\n(.*?)^```$", document.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    ):
        json.loads(example)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_somewhere(document: Path) -> None:
    """A link to another file of the repository leads to a file."""
    links = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8"))

    assert [link for link in links if not (document.parent / link).exists()] == []
