"""A headless browser for tests of pages; a test fails where a page calls out or errs.

conftest.py has its fixtures for all tests.
"""

import pytest
from optional import optional, program

FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update"),
    "--disable-sync",
]
LOCAL = ("file:", "data:", "blob:")
SIZES = {"wide": (1280, 900), "narrow": (390, 844)}  # of a desktop and a telephone


@pytest.fixture(scope="session")
def browser():
    """Start the Chromium that the system has, once for all tests."""
    playwright = optional("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(
            executable_path=program("chromium"), args=FLAGS
        )
        yield started
        started.close()


@pytest.fixture
def open_page(browser):
    """Return what opens a file or address as a page of Playwright.

    The page may ask its own server; errors that have one of the words `expected` are
    no faults.
    """
    contexts, faults = [], []

    def open_(place, size="wide", theme="light", expected=()):
        url = place if isinstance(place, str) else place.as_uri()
        origin = "/".join(url.split("/")[:3]) + "/"
        allowed = LOCAL if url.startswith("file:") else (*LOCAL, origin)
        width, height = SIZES[size]
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=theme
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(5000)  # ms
        page.on("request", lambda request: _note_remote(request.url, allowed, faults))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda line: _note_error(line, expected, faults))
        page.goto(url)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert faults == []


def violations(page):
    """Rules of axe-core that a page breaks, each with the first element that does."""
    axe = optional("axe_playwright_python.sync_playwright").Axe()
    found = axe.run(page).response["violations"]
    return {rule["id"]: rule["nodes"][0]["html"][:200] for rule in found}


def _note_remote(url, allowed, faults):
    if not url.startswith(allowed):
        faults.append(f"request to {url}")


def _note_error(line, expected, faults):
    # Such as what the page's own policy refuses.
    if line.type == "error" and not any(words in line.text for words in expected):
        faults.append(line.text)
