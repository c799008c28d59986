"""Pages are one file, escaped, and allow nothing but their own style and script."""

import re
from base64 import b64encode
from hashlib import sha256

import pytest
from optional import optional

from skad.report.rendering import printable, render

optional("jinja2")
TEMPLATE = """{% extends "page.html" %}
{% from "parts.html" import facts %}
{% block main %}{{ facts(rows) }}{% endblock %}
{% block data %}<script id="data" type="application/json">{{ rows|tojson }}</script>
{% endblock %}"""
HOSTILE = """</script><script>alert("1")</script><img src=x onerror='alert(2)'>"""


@pytest.fixture
def page(tmp_path):
    (tmp_path / "own.html").write_text(TEMPLATE)
    (tmp_path / "own.js").write_text('document.title += "!";')
    return render(
        "own.html",
        styles=["page.css"],
        scripts=["own.js"],
        folder=tmp_path,
        title=f"a {HOSTILE}",
        version="1",
        created="today",
        rows=[("path", HOSTILE)],
    )


def test_a_page_escapes_what_comes_from_users(page):
    assert page.count("<script") == 2  # its data and its own
    assert "<img" not in page
    assert "&lt;img src=x" in page


def test_a_page_allows_its_own_style_and_script_alone(page):
    policy = re.search(r'content="(default-src[^"]*)"', page)[1].replace("&#39;", "'")
    assert policy.startswith("default-src 'none'; img-src data:; ")
    for name in ("style", "script"):
        text = re.findall(rf"<{name}>(.*?)</{name}>", page, re.DOTALL)[-1]
        digest = b64encode(sha256(text.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
    assert "http:" not in page
    assert "https:" not in page


def test_any_file_name_can_be_printed():
    assert printable("a\udcff.png") == r"a\udcff.png"
