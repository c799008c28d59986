"""The documentation site: it lacks no public name, no page, and no version."""

import re
from importlib import import_module
from pathlib import Path

import pytest
from optional import optional

import skad

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
API = (DOCS / "api.md").read_text(encoding="utf-8")


def public_names():
    """Names of skad, and of its public modules unless they are the same objects."""
    names = {f"skad.{name}" for name in skad._MODULE_OF}
    objects = [getattr(skad, name) for name in skad._MODULE_OF]
    for module in skad._SUBMODULES:
        found = import_module(f"skad.{module}")
        names |= {
            f"skad.{module}.{name}"
            for name in found.__all__
            if not any(getattr(found, name) is known for known in objects)
        }
    return names


def test_the_reference_lists_every_public_name():
    for module in ("distributed", "pyarrow"):  # without them, skad.distributed is not
        optional(module)
    assert set(re.findall(r"^   (skad[.\w]+)$", API, re.MULTILINE)) == public_names()


def test_every_page_is_in_the_table_of_contents():
    entries = set()
    for page in DOCS.glob("*.md"):
        text = page.read_text(encoding="utf-8")
        for tree in re.findall(r"```{toctree}\n(.*?)```", text, re.DOTALL):
            entries |= set(re.findall(r"^(?:.*<)?([\w/]+)>?$", tree, re.MULTILINE))
    assert {page.stem for page in DOCS.glob("*.md")} - entries == {"index"}


@pytest.mark.parametrize("page", [*DOCS.glob("*.md"), *ROOT.glob("*.md")], ids=str)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:|gallery/)([^)#]+)", text)
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_citation_is_of_this_version():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {skad.__version__}\n" in citation


def test_the_command_is_the_one_of_the_gate():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    gate = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert '".[docs]" && sphinx-build -W docs docs/_build/html' in readme
    assert "sphinx-build -q -W docs docs/_build/html" in gate
