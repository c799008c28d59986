"""The page of a report in a browser: what people do, and what follows."""

import os

import numpy as np
import pytest
from browser import violations
from optional import optional
from scipy.stats import binomtest
from small_reports import HOSTILE, data_of, fitted, write_images

import skad
from skad.cli.main import main
from skad.images.label_file import read_labels
from skad.threshold.conformal import conformal_p_value, conformal_threshold

optional("jinja2")
N_GOOD, N_BAD = 26, 4


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a report, report.html, with its images and model."""
    root = tmp_path_factory.mktemp("page")
    images = skad.ImageFolder(write_images(root / "images"), recursive=True)
    skad.save(fitted(), root / "part.safetensors")
    y = [1 if path.parent.name == "good" else -1 for path in images.paths]
    path = root / "report.html"
    good = root / "images" / "good"
    skad.write_report(fitted(), images.paths, path, y, n_to_mark=5, good=good)
    return root


@pytest.fixture
def page(made, open_page):
    return open_page(made / "report.html")


@pytest.fixture(scope="module")
def scored(made):
    return np.array(data_of(made / "report.html")["scored"])


def row(page, name):
    cells = page.locator(f'#figures tr[data-row="{name}"] td').all_text_contents()
    return [int(n) for n in cells[0].split(" of ")]


def shown(page):
    return page.locator("#gallery > .card:not([hidden])").count()


def has_outline(page, place):
    """Whether a card's canvas has a pixel of the colour of outlines."""
    return page.evaluate(
        """async (place) => {
            await paintCard(cards[place]);
            const canvas = cards[place].querySelector("canvas");
            const { data } = canvas.getContext("2d")
                .getImageData(0, 0, canvas.width, canvas.height);
            for (let i = 0; i < data.length; i += 4) {
                if (LINE.every((level, j) => data[i + j] === level)
                    && data[i + 3] === 255) return true;
            }
            return false;
        }""",
        place,
    )


def test_intervals_are_wilson_intervals(page):
    for k, n in ((0, 5), (3, 10), (7, 7), (50, 1000)):
        expected = binomtest(k, n).proportion_ci(method="wilson")
        found = page.evaluate(f"wilson({k}, {n})")
        np.testing.assert_allclose(found, [expected.low, expected.high], atol=1e-12)


def test_promised_rates_are_those_of_conformal_thresholds(page):
    scores = fitted().calibration_scores_
    m = len(scores)
    for k in (1, 2, 5, m):
        offset = conformal_threshold(scores, k / (m + 1))
        assert page.evaluate(f"promisedRate({-offset!r})") == pytest.approx(k / (m + 1))
    assert page.evaluate("promisedRate(1e9)") == pytest.approx(1 / (m + 1))


def test_figures_follow_the_dragged_threshold(page, scored):
    slider = page.locator("#threshold")
    box = slider.bounding_box()
    assert "This is the model's threshold" in page.text_content("#promise")
    for part in (0.15, 0.3, 0.6, 0.95):
        y = box["y"] + box["height"] / 2
        page.mouse.move(box["x"] + box["width"] / 2, y)
        page.mouse.down()
        page.mouse.move(box["x"] + part * box["width"], y, steps=3)
        page.mouse.up()
        threshold = page.evaluate("state.threshold")
        over = scored[:, 0] > threshold
        assert row(page, "all") == [over.sum(), N_GOOD + N_BAD]
        assert row(page, "good") == [over[scored[:, 1] == 1].sum(), N_GOOD]
        assert row(page, "bad") == [over[scored[:, 1] == -1].sum(), N_BAD]
        alarms = sum(-fitted().calibration_scores_ > threshold)
        assert row(page, "calibration")[0] == alarms
        assert page.locator(".verdict.bad").count() == over.sum()
        assert "promises nothing about new ones" in page.text_content("#promise")
        # Outlines agree with verdicts, also next to the threshold.
        n = int(over.sum())
        for place in {0, max(n - 1, 0), min(n, len(scored) - 1), len(scored) - 1}:
            assert has_outline(page, place) == (place < n)


def test_the_threshold_is_a_slider_for_the_keyboard(page, made, scored, tmp_path):
    slider, before = page.locator("#threshold"), page.evaluate("state.threshold")
    slider.press("ArrowRight")
    slider.press("ArrowRight")
    after = page.evaluate("state.threshold")
    assert after > before
    n_over = (scored[:, 0] > after).sum()
    said = slider.get_attribute("aria-valuetext")
    assert said.endswith(f": {n_over} of {len(scored)} images above")
    slider.press("Home")
    assert row(page, "all")[0] == len(scored)
    page.fill("#typed", str(after))
    page.press("#typed", "Enter")
    page.locator("#reset").focus()
    assert page.evaluate("state.threshold") == after
    # What is copied gives the same verdicts.
    command = page.text_content("#command").split()
    assert command[:4] == ["skad", "score", "MODEL", "IMAGES"]
    options = [*command[4:], "--no-heat-maps", "--output", str(tmp_path), "--recursive"]
    main(["score", str(made / "part.safetensors"), str(made / "images"), *options])
    assert (tmp_path / "scores.csv").read_bytes().count(b",anomalous,") == n_over
    page.click("#reset")
    assert page.evaluate("state.threshold") == before


def test_filters_and_order(page, scored):
    n_over = int((scored[:, 0] > fitted().pixel_threshold_).sum())
    page.select_option("[name=verdict]", "anomalous")
    assert shown(page) == n_over
    page.select_option("[name=verdict]", "")
    page.select_option("[name=label]", "-1")
    assert shown(page) == N_BAD
    page.select_option("[name=label]", "")
    page.fill("[name=p_value]", "0.5")
    p_values = conformal_p_value(-scored[:, 0], fitted().calibration_scores_)
    assert shown(page) == (p_values <= 0.5).sum()
    page.fill("[name=p_value]", "")
    page.check("[name=to_mark]")
    assert shown(page) == 5
    assert "5 of 30 images shown" in page.text_content("#shown")
    page.uncheck("[name=to_mark]")
    page.select_option("[name=order]", "-1")
    places = page.eval_on_selector_all(".card", "all => all.map(c => +c.dataset.place)")
    assert places == list(range(29, -1, -1))


def test_the_heat_map_is_blended(page):
    def opacity():  # of a pixel that is no outline, the mean
        return page.evaluate(
            """async () => {
                await paintCard(cards[0]);
                const canvas = cards[0].querySelector("canvas");
                const { data } = canvas.getContext("2d")
                    .getImageData(0, 0, canvas.width, canvas.height);
                return data.filter((_, i) => i % 4 === 3).reduce((a, b) => a + b)
                    / (data.length / 4);
            }"""
        )

    slider, found = page.locator("#filters .opacity"), []
    for key in ("Home", "ArrowRight", "End"):
        slider.press(key)
        found.append(opacity())
    assert found == sorted(found)
    assert found[0] < found[2] / 2
    assert page.evaluate("state.opacity") == 1
    assert page.input_value("#enlarged .opacity") == "100"


def test_enlarging_by_keyboard_gives_the_focus_back(page):
    first = page.locator(".card button").first
    first.focus()
    page.keyboard.press("ArrowRight")
    name = page.evaluate("document.activeElement.querySelector('.name').textContent")
    page.keyboard.press("Enter")
    assert page.text_content("#enlarged-name") == name
    page.wait_for_function("document.querySelector('#enlarged canvas').width > 40")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    third = page.locator(".card .name").nth(2).text_content()
    assert page.text_content("#enlarged-name") == third
    page.keyboard.press("Escape")
    assert not page.locator("#enlarged").is_visible()
    focused = page.evaluate("document.activeElement.querySelector('.name').textContent")
    assert focused == third
    page.click("#regions .link >> nth=0")
    page.click("#close")
    assert page.evaluate("document.activeElement.className") == "link name"


def test_the_enlarged_view_explains_the_worst_images(made, open_page):
    page = open_page(made / "report.html", "narrow")
    page.set_viewport_size({"width": 390, "height": 700})  # less than it needs
    page.locator(".card button").first.click()
    notes = page.evaluate("DATA.images[0].notes")
    assert page.text_content("#enlarged-notes") == notes
    assert "The closest good patch is in " in notes
    assert page.evaluate("find('#enlarged-good img').decode().then(() => true)")
    picture, facts = (
        page.locator(name).bounding_box()
        for name in ("#enlarged .stage img", "#enlarged-facts")
    )
    assert picture["y"] + picture["height"] <= facts["y"]
    page.evaluate("openImage(DATA.images.length - 1)")  # a good one
    assert not page.locator("#enlarged-good").is_visible()


def test_marks_come_back_through_calibrate(page, made, tmp_path, capsys):
    good = [os.fspath(made / "images" / "good" / name) for name in HOSTILE]
    paths = page.evaluate(
        "DATA.images.map((image) => [...image.path].map((c) => c.codePointAt()))"
    )
    order = {"".join(map(chr, codes)): place for place, codes in enumerate(paths)}
    for path in good:
        page.locator(".card button").nth(order[path]).press("g")
    page.locator(".card button").first.click()
    page.keyboard.press("b")
    assert page.get_attribute("[data-mark=bad]", "aria-pressed") == "true"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("g")
    page.keyboard.press("g")  # takes it back
    assert page.get_attribute("[data-mark=good]", "aria-pressed") == "false"
    page.keyboard.press("Escape")
    assert page.text_content("#export") == "Export marks (5)"
    with page.expect_download() as download:
        page.click("#export")
    table = tmp_path / "marks.csv"
    download.value.save_as(table)
    labels = {os.fspath(path): label for path, label in read_labels(table).items()}
    assert [labels.pop(path) for path in good] == [1, 1, 1, 1]
    assert list(labels.values()) == [-1]
    options = ["--labels", str(table), "--output", str(tmp_path / "new")]
    model = str(made / "part.safetensors")
    assert main(["calibrate", model, str(made / "images"), *options]) == 0
    assert "detected       1 of 1" in capsys.readouterr().out


def test_regions_are_sorted_by_their_headers(page):
    def column(i):
        values = page.eval_on_selector_all(
            f"#regions tbody td:nth-child({i + 1})",
            "all => all.map(c => c.dataset.value)",
        )
        return values if i == 0 else [float(value) for value in values]

    assert column(4) == sorted(column(4), reverse=True)
    page.click("#regions th >> nth=3")
    assert column(3) == sorted(column(3), reverse=True)
    page.click("#regions th >> nth=3")
    assert column(3) == sorted(column(3))
    assert page.get_attribute("#regions th >> nth=3", "aria-sort") == "ascending"


@pytest.mark.parametrize("size", ["wide", "narrow"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_page_is_accessible_and_fits(made, open_page, size, theme):
    page = open_page(made / "report.html", size, theme)
    assert violations(page) == {}
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.locator(".card button").first.click()
    assert violations(page) == {}
    if (size, theme) == ("wide", "light"):  # axe would have found something
        page.evaluate("document.querySelector('dialog').append(new Image(9, 9))")
        assert "image-alt" in violations(page)
