"""The documentation names what exists."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


@pytest.mark.parametrize("package", ["bundle", "service", "training"])
def test_architecture_names_every_module(package: str) -> None:
    """Who adds or removes a module says so in docs/architecture.md."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    tables = [table for table in text.split("\n\n") if re.match(rf"\| {package}(: [a-z ]+)? \| \|\n", table)]
    section = "\n".join(tables)
    folder = ROOT / package
    modules = {str(path.relative_to(folder)) for path in folder.rglob("*.py") if path.name != "__init__.py"}

    assert set(re.findall(r"`([\w/]+\.py)`", section)) == modules


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
