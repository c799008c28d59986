"""The operator's page in a browser, before a running service."""

import json
import re

import numpy as np
import pytest
from browser import violations
from serving import SIDE, defective, noise, png, save_model, serving, until

from skad.monitor.share import share_interval
from skad.serve.collection import Collection, Original
from skad.serve.errors import Refused
from skad.serve.schema import Verdict

RATES = {"warn_fpr": 0.5, "reject_fpr": 0.1}
GOOD, WARNED = (np.full((SIDE, SIDE), n, np.uint8) for n in (100, 120))
BAD = defective()
HOSTILE = '<img src=x onerror="document.title=1">&amp;\u202eevil/../../x;y\'.png'


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("models") / "part.onnx")


@pytest.fixture
def served(model, tmp_path):
    with serving(model, collect=tmp_path / "collected", **RATES) as found:
        yield found


@pytest.fixture
def post(served):
    return lambda image, name="part.png", **query: send(served[0], image, name, **query)


def send(client, image, name, **query):
    files = {"file": (name, png(image))}
    return client.post("/v1/inspect", files=files, params=query).json()


@pytest.fixture
def page(served, open_page):
    return live(open_page(f"{served[1].address}/"))


def live(page):
    # Not wait_for_function: the page's policy forbids eval.
    until(lambda: page.evaluate("state.models.size > 0 && state.counts !== null"))
    return page


def wait_for(page, selector, text):
    until(lambda: text in page.locator(selector).first.text_content())


def shows(page, verdict):
    until(lambda: page.evaluate("state.shown?.id") == verdict["id"])
    return page.text_content("#word")


def pixels(page):
    """Of the heat over the large image: pixels of an outline, and mean opacity."""
    return page.evaluate(
        """async () => {
            const canvas = find(".stage > canvas");
            await paintHeat(find(".stage > img"), canvas, state.map, 96, 1);
            const { data } = canvas.getContext("2d").getImageData(0, 0, 96, 96);
            let [outline, alpha] = [0, 0];
            for (let i = 0; i < data.length; i += 4) {
                outline += LINE.every((level, j) => data[i + j] === level);
                alpha += data[i + 3];
            }
            return [outline, alpha / 96 ** 2 / 255];
        }"""
    )


# --- Verdicts ---------------------------------------------------------------------


def test_verdicts_counters_and_the_chart_follow_the_images(page, post):
    assert page.text_content("#word") == "WAITING"
    images = [GOOD, noise(1), WARNED, GOOD, BAD]
    verdicts = [post(image, f"{i}.png") for i, image in enumerate(images)]
    actions = [verdict["action"] for verdict in verdicts]
    assert actions == ["accept", "accept", "warn", "accept", "reject"]
    assert shows(page, verdicts[-1]) == "REJECT"
    assert page.get_attribute("#verdict", "data-action") == "reject"
    assert page.text_content("#source") == "4.png"
    wait_for(page, "[data-count=inspected]", "5")
    for action in set(actions):
        counted = page.text_content(f"[data-count={action}]")
        assert int(counted) == actions.count(action)
        assert page.locator(f"#trend path.{action}").count() == actions.count(action)
    low, high = (f"{100 * end:.2g}" for end in share_interval(2, 5, 0.05))
    expected = f"Flagged: 40 % (95 % interval {low} to {high} %)"
    assert page.text_content("#share") == expected
    lines = page.locator("#trend text.limit").all_text_contents()
    assert lines == ["warn at 0.5", "reject at 0.1"]
    strip = page.evaluate("findAll('#strip button').map((button) => button.ariaLabel)")
    names = [
        "GOOD, 0.png",
        "GOOD, 1.png",
        "CHECK, 2.png",
        "GOOD, 3.png",
        "REJECT, 4.png",
    ]
    assert strip == names[::-1]  # newest first


def test_what_is_anomalous_is_outlined_and_the_heat_map_blended(page, post):
    shows(page, post(GOOD))
    assert pixels(page)[0] == 0
    shows(page, post(BAD))
    slider, found = page.locator("#opacity"), []
    for key in ("Home", "End"):
        slider.press(key)
        found.append(pixels(page))
    (outline, faint), (same, strong) = found
    assert outline == same > 50  # around 12 x 8 pixels of 32 x 32
    assert faint < strong
    assert page.locator(".boxes rect").count() == 0
    speck = GOOD.copy()
    speck[20, 9] = 255
    shows(page, post(speck))
    box = page.locator(".boxes rect").first
    x, y, side = (float(box.get_attribute(name)) for name in ("x", "y", "width"))
    assert (x + side / 2, y + side / 2) == (9.5, 20.5)


def test_pausing_goes_back_and_counters_go_on(page, post):
    for i, image in enumerate((BAD, GOOD, BAD, GOOD, GOOD)):
        last = post(image, f"{i}.png")
    shows(page, last)
    page.keyboard.press("p")
    new = [post(BAD, f"new {i}.png") for i in range(2)]
    wait_for(page, "#mode", "Paused: 2 newer images")
    wait_for(page, "[data-count=inspected]", "7")
    assert page.text_content("#source") == "4.png"
    for key, name in (
        ("ArrowLeft", "3.png"),
        ("f", "2.png"),
        ("f", "0.png"),
        ("f", "0.png"),  # there is none before it
        ("ArrowLeft", "0.png"),
        ("ArrowRight", "1.png"),
    ):
        page.keyboard.press(key)
        wait_for(page, "#source", name)
    assert page.text_content("#word") == "GOOD"
    page.locator("#strip button").first.click()
    wait_for(page, "#source", "4.png")
    page.keyboard.press("p")
    assert shows(page, new[-1]) == "REJECT"
    assert page.text_content("#mode") == "Live"


def test_hostile_names_are_text(page, post, tmp_path):
    sent = post(BAD, HOSTILE)
    assert shows(page, sent) == "REJECT"
    assert page.text_content("#source") == sent["source"]
    assert "<img" in sent["source"]
    assert page.locator("#source *, #strip img[onerror]").count() == 0
    page.keyboard.press("p")
    page.keyboard.press("b")
    wait_for(page, "#marks-said", "Marked bad")
    (file,) = (tmp_path / "collected").rglob("*.*")
    assert re.fullmatch(r"\d{14}-[0-9a-f]{16}[A-Za-z0-9_-]*\.png", file.name)
    assert page.title() == "REJECT · Inspection"


# --- Marks ------------------------------------------------------------------------


def test_marks_write_the_original_and_are_taken_back(page, post, tmp_path):
    def files():
        found = (tmp_path / "collected").rglob("*.png")
        return {path.parent.name: path.read_bytes() for path in found}

    pressed = "findAll('[aria-pressed=true]').map((one) => one.dataset.mark)"
    shows(page, post(BAD))
    page.evaluate("state.shownAt = performance.now()")
    page.keyboard.press("g")  # it has just changed
    wait_for(page, "#marks-said", "Press again")
    assert files() == {}
    for key, expected in (
        ("g", {"good": png(BAD)}),
        ("b", {"bad": png(BAD)}),  # moved
        ("b", {}),  # taken back
        ("g", {"good": png(BAD)}),
        ("u", {}),
    ):
        page.keyboard.press(key)
        until(lambda expected=expected: files() == expected)
        label = next(iter(expected), "")
        wait_for(page, "#strip [aria-current=true] .mark", label)
        until(lambda e=expected: page.evaluate(pressed) == [*e])
    assert page.is_disabled("#undo")
    assert "Paused" in page.text_content("#mode")  # on what was marked


def test_without_a_folder_there_are_no_marks(model, open_page):
    with serving(model) as (client, server):
        page = live(open_page(f"{server.address}/"))
        assert page.is_hidden("[data-mark=good]")
        assert "--collect FOLDER" in page.text_content("#how-to-mark")
        path = f"/v1/images/{send(client, BAD, 'a.png')['id']}/label"
        refused = client.post(path, json={"label": "good"})
        page.close()
    assert (refused.status_code, "--collect" in refused.text) == (404, True)


def test_a_collection_keeps_some_files_and_models_apart(served, post, tmp_path):
    verdict = Verdict(**post(GOOD))
    collection = Collection(tmp_path / "two", ["part", "other"], most_files=2)
    for i in range(3):
        sent = verdict.model_copy(update={"id": str(i), "source": None})
        collection.keep(Original(png(GOOD, "BMP"), sent))
    with pytest.raises(Refused, match="no longer kept"):
        collection.original("0")
    path = collection.mark(collection.original("2"), "bad")
    assert path.parent == tmp_path / "two/part/bad"
    assert path.name.endswith("-2.bmp")
    collection.unmark("2")
    assert not path.exists()
    with pytest.raises(Refused, match="no mark"):
        collection.unmark("2")
    path.parent.rmdir()
    with pytest.raises(Refused, match="No such file or directory"):
        collection.mark(collection.original("2"), "bad")


# --- The connection ---------------------------------------------------------------


def test_a_restarted_service_goes_on(model, open_page):
    with serving(model) as (client, server):
        page = live(open_page(f"{server.address}/", expected=("Failed to load",)))
        assert shows(page, send(client, GOOD, "before.png")) == "GOOD"
    wait_for(page, "#word", "OFFLINE")
    wait_for(page, "#mode", "No connection since")
    with serving(model, port=int(server.address.rpartition(":")[2])) as (client, _):
        missed = send(client, BAD, "missed.png")
        assert shows(page, missed) == "REJECT"
        assert shows(page, send(client, GOOD, "after.png")) == "GOOD"
        assert page.locator("#strip li").count() == 3
        wait_for(page, "[data-count=inspected]", "2")
        page.close()


def test_alerts_are_told_until_somebody_closes_them(page, served, post):
    _, server = served
    for kind, data, words in (
        ("lost", {"count": 44}, "44 verdicts came too fast"),
        ("unreadable", {"error": "<i>.png: damaged"}, "<i>.png: damaged"),
    ):
        publish = server.service.events.publish
        server._loop.call_soon_threadsafe(publish, kind, json.dumps(data))
        wait_for(page, "#alerts", words)
    until(lambda: post(BAD) and "have drifted" in page.text_content("#alerts"))
    assert "ALARM at image" in page.text_content("#alerts details")
    page.on("dialog", lambda dialog: dialog.accept())
    for button in reversed(page.locator("#alerts button").all()):
        button.click()
    until(lambda: page.text_content("#alerts") == "")
    assert not server.service.drift["part"].alarm


def test_a_browser_signs_in_and_other_hosts_are_refused(model, open_page):
    with serving(model, token="correct horse") as (client, server):
        page = open_page(f"{server.address}/", expected=("Failed to load",))
        page.fill("[name=token]", "correct horse")
        page.press("[name=token]", "Enter")
        page.wait_for_url(f"{server.address}/")
        live(page)
        headers = {"Host": "evil.example", "Authorization": "Bearer correct horse"}
        for path in ("/", "/static/heat.js", "/v1/counts"):
            assert client.get(path, headers=headers).status_code == 403
            assert client.get(path).status_code == 401
        page.context.clear_cookies()
        wait_for(page, "#alerts", "Sign in again")
        page.close()


# --- Looks ------------------------------------------------------------------------


@pytest.mark.parametrize("size", ["wide", "narrow"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_is_accessible_and_fits(served, post, open_page, size, theme):
    page = live(open_page(f"{served[1].address}/", size, theme))
    if size == "wide":
        page.set_viewport_size({"width": 1280, "height": 800})
    shows(page, post(WARNED, "b.png"))
    assert violations(page) == {}
    shows(page, post(BAD, f"{'long name ' * 20}.png"))
    page.keyboard.press("p")
    page.evaluate("setAlert('lost', 'word '.repeat(40))")
    page.click("[data-mark=bad]")  # and the pointer stays there
    until(lambda: page.get_attribute("[data-mark=bad]", "aria-pressed") == "true")
    style = "getComputedStyle(find('[data-mark=bad]'))"  # axe takes 1 : 1 for hidden
    assert page.evaluate(f"{style}.color !== {style}.backgroundColor")
    assert violations(page) == {}
    root = "document.documentElement"
    assert page.evaluate(f"{root}.scrollWidth <= innerWidth")
    word, header = (page.locator(one).bounding_box() for one in ("#word", "#verdict"))
    assert word["x"] + word["width"] <= header["x"] + header["width"]
    if size == "wide":  # without scrolling, and to be read from two metres
        assert page.evaluate(f"{root}.scrollHeight <= innerHeight")
        assert page.evaluate("getComputedStyle(find('#word')).fontSize") == "96px"


def test_each_model_has_its_counters(model, tmp_path, open_page):
    other = save_model(tmp_path / "other.onnx", scale=5)
    with serving(model, other) as (client, server):
        page = live(open_page(f"{server.address}/"))
        send(client, BAD, "a.png", model="other")
        wait_for(page, "#models tr:nth-child(2) td", "1")
        names = page.locator("#models tbody th").all_text_contents()
        page.close()
    assert names == ["part", "other"]


@pytest.mark.parametrize("size", ["wide", "narrow"])
def test_the_page_about_the_api_names_every_address_and_field(served, open_page, size):
    page = open_page(f"{served[1].address}/docs", size=size)
    api = served[0].get("/openapi.json").json()
    until(lambda: page.locator("section#Verdict").count() == 1)
    shown = page.locator(".operation h2").all_text_contents()
    for path, methods in api["paths"].items():
        assert all(f"{method.upper()}{path}" in shown for method in methods)
    assert "p_value" in page.locator("section#Verdict").text_content()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert violations(page) == {}
