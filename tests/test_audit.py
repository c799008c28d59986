"""The audit finds what was planted: bad images, copies, leaks and unusual files."""

import csv
import math

import numpy as np
import pytest
from browser import violations
from image_files import save
from numpy.testing import assert_allclose
from optional import optional
from own_encoders import own_encoder
from scipy.stats import median_abs_deviation

import skad
from skad.audit import page as _page
from skad.audit import suspicion as _suspicion
from skad.audit.statistics import robust_z
from skad.audit.suspicion import score_by_others
from skad.cli.main import main
from skad.images.exclusion import leave_out
from skad.images.inputs import as_images

BAD = 7  # place of the image with a hole …
HOLE = (6, 14, 12, 22)  # … and its box
HOSTILE = """<img src=x onerror='alert(1)'>&",.png"""


def draw(n=14, seed=0):
    """Good images of a bright disc that moves a little, and one with a hole: uint8."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices((32, 36))
    images = []
    for _ in range(n):
        row, column = rng.normal((16, 18), 1)
        disc = np.hypot(rows - row, columns - column) < 12
        images.append(60 + 120 * disc + rng.normal(0, 6, disc.shape))
    images = np.stack(images)
    images[BAD, HOLE[0] : HOLE[2], HOLE[1] : HOLE[3]] = 20
    return images.clip(0, 255).astype(np.uint8)


def by_name(audited):
    return {one.path.rpartition("/")[2]: one for one in audited}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The images as files, with some that are unlike the others."""
    images, root = draw(), tmp_path_factory.mktemp("parts")
    for i, image in enumerate(images):
        save(root / f"good/{i:02}.png", image)
    save(root / "good" / HOSTILE.replace("/", ""), images[3])
    noisy = images[4] + np.random.default_rng(1).integers(-1, 2, images[4].shape)
    save(root / "good/near.png", noisy.astype(np.uint8))
    save(root / "good/small.png", skad.resize_image(images[5], (24, 27)))
    save(root / "good/colour.png", np.stack([images[6]] * 3, 2))
    (root / "good/broken.png").write_bytes(b"no image")
    save(root / "test/bad/leak.png", images[9])
    save(root / "test/bad/new.png", draw(seed=5)[0])
    return root / "good"


@pytest.fixture(scope="module")
def found(folder):
    return skad.audit_images(folder, test=folder.parent / "test")


# --- Scores ---------------------------------------------------------------------------


def test_the_bad_image_comes_first_and_the_box_is_where_it_is_bad():
    first, *others = skad.audit_images(draw())
    assert first.path == str(BAD)
    assert first.is_suspicious
    row = slice(first.box[0], first.box[2]), slice(HOLE[0], HOLE[2])
    column = slice(first.box[1], first.box[3]), slice(HOLE[1], HOLE[3])
    for found, planted in (row, column):
        assert found.start < planted.stop and planted.start < found.stop
    assert [one.z for one in others] == sorted((one.z for one in others), reverse=True)
    assert not any(one.is_suspicious for one in others[3:])
    assert first.size == (32, 36)


def test_copies_do_not_hide_a_bad_image(lite0):
    images = np.concatenate([draw(), draw()[[BAD] * 3]])
    images[-1] ^= 1  # nearly the same
    found = skad.audit_images(images)
    assert {one.path for one in found[:4]} == {str(BAD), "14", "15", "16"}
    assert all(one.is_suspicious for one in found[:4])
    rng = np.random.RandomState(0)
    alone = np.arange(len(images))
    scores, _ = score_by_others(as_images(images, None), alone, lite0, rng)
    assert scores[BAD] > found[0].score / 2  # they would vouch for each other


def test_images_of_a_group_do_not_vouch_for_each_other():
    images = np.concatenate([draw(), draw(8, seed=9)[[BAD]]])
    groups = np.arange(len(images))
    groups[-1] = BAD
    together = by_name(skad.audit_images(images, groups=groups.tolist()))
    assert together[str(BAD)].score < by_name(skad.audit_images(images))[str(BAD)].score
    with pytest.raises(ValueError, match=r"groups must be a list .* 15 in all"):
        skad.audit_images(images, groups=[1, 2])


def test_of_many_images_some_teach_and_all_are_scored(monkeypatch):
    monkeypatch.setattr(_suspicion, "_MOST_TEACHERS", 8)
    for seed in (0, 1):  # the bad one teaches, or not
        found = skad.audit_images(draw(), random_state=seed)
        assert found[0].path == str(BAD)
        assert len({one.path for one in found}) == 14
        assert np.isfinite([one.score for one in found]).all()


def test_z_is_that_of_its_definition():
    x = np.random.default_rng(0).normal(3, 2, 101)
    spread = median_abs_deviation(x, scale="normal")
    assert_allclose(robust_z(x, 0.01), (x - np.median(x)) / spread, rtol=1e-3)
    assert_allclose(robust_z(np.array([1.0, 1, 1, 2]), 0.5), [0, 0, 0, 2])


# --- Files ----------------------------------------------------------------------------


def test_every_file_is_listed_and_says_in_what_it_is_unlike(folder, found):
    assert len(found) == 19
    assert by_name(found)[f"{BAD:02}.png"].is_suspicious
    assert [one.path.rpartition("/")[2] for one in found[-2:]] == [
        "broken.png",
        "colour.png",
    ]
    remarks = {name: "; ".join(one.remarks) for name, one in by_name(found).items()}
    assert remarks["03.png"] == f"same pixels as {folder}/{HOSTILE.replace('/', '')}"
    assert remarks["near.png"] == f"nearly the same as {folder}/04.png"
    assert remarks["09.png"].startswith("same pixels as the test image ")
    assert remarks["09.png"].endswith("/test/bad/leak.png")
    assert "24 x 27 pixels; most have 32 x 36" in remarks["small.png"]
    assert remarks["colour.png"] == "colour of 8 bits, but most are gray of 8 bits"
    assert remarks["broken.png"].startswith("its contents are not an image")
    assert math.isnan(by_name(found)["broken.png"].score)
    assert remarks["01.png"] == remarks["10.png"] == ""


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda x: x * 0.5, "darker"),
        (lambda x: x * 1.3, "brighter"),
        (lambda x: (x + np.roll(x, 1, 0) + np.roll(x, 1, 1)) / 3, "less sharp"),
        (lambda x: x + np.indices(x.shape).sum(0) % 2 * 60, "sharper or noisier"),
    ],
)
def test_unusual_light_and_sharpness_are_told(change, word):
    images = draw()
    images[BAD] = draw(seed=1)[0]
    images[2] = change(images[2].astype(float)).clip(0, 255)
    for one in skad.audit_images(images, encoder=own_encoder()):
        assert any(word in remark for remark in one.remarks) == (one.path == "2")


def test_16_bits_and_several_sizes_are_audited(tmp_path):
    for i, image in enumerate(draw()):
        size = (32 + i % 3, 36)
        save(
            tmp_path / f"{i:02}.png",
            skad.resize_image(image.astype(np.uint16) * 200, size),
        )
    found = skad.audit_images(tmp_path)
    assert found[0].path.endswith(f"{BAD:02}.png")
    assert found[0].size == (33, 36)
    assert not any("pixels" in remark for one in found for remark in one.remarks)
    assert (
        skad.audit_images(skad.ImageFolder(tmp_path, image_size=32))[0].path
        == found[0].path
    )


def test_arrays_are_searched_for_copies_in_test_arrays():
    images = draw()
    test = [images[1], draw(seed=3)[0]]
    found = by_name(skad.audit_images(images, test=test, encoder=own_encoder()))
    assert found["1"].remarks == ("same pixels as the test image 0",)


@pytest.mark.parametrize(
    ("images", "options", "words"),
    [
        (draw()[:1], {}, "at least 2 different images, or groups; got 1 image"),
        (np.stack([draw()[0]] * 3), {}, "got 3 image"),
        (draw(), {"groups": [1] * 14}, "got 14 image"),
        (draw(), {"gray": True}, "image_size, gray and recursive are for files"),
        (np.zeros((3, 32, 32, 5), np.uint8), {}, "1 or 3 channels; got 5"),
    ],
)
def test_what_cannot_be_audited_is_an_error(images, options, words):
    with pytest.raises(ValueError, match=words):
        skad.audit_images(images, **options)


def test_folders_without_images_are_errors(tmp_path):
    with pytest.raises(ValueError, match="no image in"):
        skad.audit_images(tmp_path)
    (tmp_path / "a.png").write_bytes(b"no")
    with pytest.raises(ValueError, match="no image can be read: its contents"):
        skad.audit_images(tmp_path)
    with pytest.raises(ValueError, match="encoder must not be None"):
        skad.audit_images(tmp_path, encoder=None)


# --- Page and command -----------------------------------------------------------------


def test_the_command_writes_a_page_and_a_table(folder, tmp_path, capsys):
    optional("jinja2")
    output = tmp_path / "new/a.html"
    options = ["--test", str(folder.parent / "test"), "--output", str(output)]
    assert main(["audit", str(folder), *options]) == 0
    assert f"{BAD:02}.png (z = " in capsys.readouterr().out
    with output.with_suffix(".csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 19
    assert str(folder / f"{BAD:02}.png") in [row["path"] for row in rows[:3]]
    assert rows[0]["suspicious"] == "yes"
    assert rows[-1]["score"] == "nan"
    assert main(["audit", str(folder), "--output", str(folder / "00.png")]) == 2


def test_a_page_of_many_images_is_bounded_and_says_so(folder, tmp_path):
    optional("jinja2")
    one = skad.AuditedImage(
        str(folder / "00.png"), -1.0, 0.0, (0, 0, 9, 9), (32, 36), 0, 0, ("x",)
    )
    output = tmp_path / "a.html"
    table = skad.write_audit([one] * 10_000, output)
    html = output.read_text()
    assert html.count('class="card"') == _page._MOST_PICTURES
    assert "pictures of 200 of 10000 images" in html
    assert "The first 1000 of 10000" in html
    assert len(table.read_text().splitlines()) == 10_001
    with pytest.raises(ValueError, match=r"path is for the page, as audit.html"):
        skad.write_audit([one], tmp_path / "a.csv")


@pytest.mark.parametrize("size", ["wide", "narrow"])
def test_a_person_ticks_images_and_exports_the_list(
    folder, found, tmp_path, open_page, size
):
    optional("jinja2")
    output = tmp_path / "a.html"
    skad.write_audit(found, output)
    page = open_page(output, size)
    assert violations(page) == {}
    page.locator("#gallery").get_by_label("Leave out <img").check()
    page.locator("#gallery button").first.click()
    page.get_by_role("dialog").get_by_label("Leave out").check()
    page.keyboard.press("ArrowRight")
    assert not page.get_by_role("dialog").get_by_label("Leave out").is_checked()
    page.get_by_role("button", name="Close").click()
    page.get_by_label("Leave out broken.png").check()
    assert page.locator("#count").inner_text() == "3 are ticked."
    with page.expect_download() as download:
        page.get_by_role("button", name="Export").click()
    listed = tmp_path / download.value.suggested_filename
    download.value.save_as(listed)
    files = sorted(folder.iterdir())
    left_out = {path.name for path in files} - {
        p.name for p in leave_out(files, listed)
    }
    (first,) = by_name(found[:1])
    assert left_out == {HOSTILE.replace("/", ""), first, "broken.png"}
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
