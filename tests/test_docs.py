"""What the documentation names exists."""

import re
from pathlib import Path

import pytest

from detkit.config.reference import reference

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(("name", "least"), [("reliability", 20), ("web", 8)])
def test_the_tests_that_documents_name_exist(name: str, least: int) -> None:
    named = re.findall(r"`(tests/\w+\.py)::(\w+)`", (ROOT / f"docs/{name}.md").read_text(encoding="utf-8"))
    assert len(named) > least
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file} has no {test}"


def test_the_config_reference_is_that_of_the_schema() -> None:
    assert (ROOT / "docs/config.md").read_text(encoding="utf-8") == reference(), "python -m detkit.config.reference"


def test_every_key_is_explained() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| (.+) \| `(.*)` \| (.*) \|$", reference(), re.M)
    assert len(rows) > 100
    assert [key for key, values, _, meaning in rows if not values or not meaning.endswith((".", "..."))] == []
    assert ("train.clip_norm", "number, >= 0", "0", "Gradients are scaled to at most this norm; 0 is off.") in rows


def test_links_of_the_documents_lead_to_files() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).is_file(), f"{page.name}: {target}"
