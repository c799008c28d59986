"""Reports: what they hold is what the detector says; bounds, escapes and errors."""

import csv
import re
import sys
from copy import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from image_files import noise, save
from optional import optional
from small_reports import data_of, fitted, parts, write_images

import skad
from skad.cli.main import main
from skad.images.finding import find_images
from skad.images.label_file import read_labels
from skad.model_io.fingerprint import fingerprint

optional("jinja2")


@pytest.fixture(scope="module")
def detector():
    return fitted()


@pytest.fixture(scope="module")
def model(detector, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "my part.safetensors"
    skad.save(detector, path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def images(folder):
    return skad.ImageFolder(folder, recursive=True)


def test_a_report_says_what_the_detector_says(detector, images, tmp_path):
    y = [1 if path.parent.name == "good" else -1 for path in images.paths]
    counts = skad.write_report(detector, images.paths, tmp_path / "r.html", y)
    results = detector.inspect(images)
    data = data_of(tmp_path / "r.html")
    assert data["scored"] == [
        [-r.score, label] for r, label in zip(results, y, strict=True)
    ]
    assert data["threshold"] == detector.pixel_threshold_
    assert data["calibration"] == sorted(-detector.calibration_scores_)
    assert counts["anomalous"] == sum(result.is_anomaly for result in results)
    assert counts.total() == len(images)
    by_path = {str(path): r for path, r in zip(images.paths, results, strict=True)}
    shown = [by_path[image["path"]] for image in data["images"]]
    assert [image["score"] for image in data["images"]] == [-r.score for r in shown]
    assert [image["p_value"] for image in data["images"]] == [r.p_value for r in shown]
    assert shown == sorted(results, key=lambda result: result.score)
    page = (tmp_path / "r.html").read_text()
    region = shown[0].regions[0]
    assert f">{region.bbox[0]} to {region.bbox[2]}</td>" in page
    assert f'data-value="{region.peak}"' in page
    assert f"<dd>{fingerprint(detector)}</dd>" in page
    assert "<dd>70 in all, 49 trained on, 21 held out for the threshold</dd>" in page


def test_every_kind_of_images_gives_the_same_scores(detector, images, tmp_path):
    expected = [[-score, 0] for score in detector.score_samples(images)]
    array = images.in_memory()
    pixels, names = list(array), [str(path) for path in images.paths]
    for source in (images, array, pixels, images.paths, names):
        skad.write_report(detector, source, tmp_path / "r.html")
        data = data_of(tmp_path / "r.html")
        assert data["scored"] == expected
        are_files = not isinstance(source, np.ndarray) and source is not pixels
        assert bool(data["images"][0]["path"]) == are_files


def test_images_of_several_sizes_and_rows(tmp_path):
    options = {"epochs": 1, "random_state": 0, "device": "cpu", "target_fpr": 0.2}
    several = skad.PatchAutoencoderDetector(8, image_size=24, **options)
    several.fit([noise(30, 24), *parts(20, 0)])
    large = [noise(40, 30), noise(24, 60)]
    skad.write_report(several, large, tmp_path / "r.html")
    assert '<img src="data:image/webp;base64,' in (tmp_path / "r.html").read_text()
    rows = parts(20, 0).reshape(20, -1)
    of_rows = skad.PatchAutoencoderDetector(8, image_shape=(24, 24), **options).fit(
        rows
    )
    counts = skad.write_report(of_rows, rows[:3], tmp_path / "r.html")
    assert counts.total() == 3


def test_few_pictures_are_kept_and_all_images_count(detector, folder, tmp_path):
    def kept(seed, **options):
        skad.write_report(
            detector,
            find_images(folder, recursive=True),
            tmp_path / "r.html",
            n_to_mark=3,
            random_state=seed,
            **options,
        )
        data = data_of(tmp_path / "r.html")
        assert len(data["scored"]) == 30
        return data["images"], (tmp_path / "r.html").read_text()

    flagged = [i["path"] for i in kept(0)[0] if i["score"] > detector.pixel_threshold_]
    some, page = kept(0, max_pictures=len(flagged) + 5)
    assert len(some) == len(flagged) + 5
    assert set(flagged) <= {image["path"] for image in some}
    assert sum(image["to_mark"] for image in some) == 3
    assert "count all 30 images" in page
    few, page = kept(0, max_pictures=5)
    assert {i["path"] for i in few if not i["to_mark"]} <= set(flagged[:5])
    n_missing = len(set(flagged) - {image["path"] for image in few})
    assert f"{n_missing} anomalous images have no picture here" in page
    samples = [{i["path"] for i in kept(seed)[0] if i["to_mark"]} for seed in (0, 0, 1)]
    assert samples[0] == samples[1] != samples[2]


def test_pictures_are_small_and_unreadable_files_are_listed(detector, folder, tmp_path):
    save(tmp_path / "large.png", noise(900, 1200))
    (tmp_path / "no <b>image.png").write_bytes(b"no image")
    with pytest.warns(UserWarning, match="unlike those that set"):
        counts = skad.write_report(detector, tmp_path, tmp_path / "r.html")
    assert counts["unreadable"] == 1
    page = (tmp_path / "r.html").read_text()
    assert 'width="384" height="288"' in page
    assert "no &lt;b&gt;image.png" in page
    assert "<b>" not in page
    assert len(page) < 250_000


def without_threshold():
    bare = copy(fitted())
    bare.fitted = replace(bare.fitted, threshold=None)
    return bare


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": "empty"}, "no image in"),
        ({"images": np.empty((0, 24, 24))}, "at least one|minimum|empty"),
        ({"images": ["bad.png"]}, "no image can be read; the first: cannot read"),
        ({"y": [1]}, "one for each of the 30 images"),
        ({"y": ["good"] * 30}, r"\+1 \(good\)"),
        ({"path": "bad.png", "images": ["bad.png"]}, "must not be one of the images"),
        ({"max_pictures": 9}, "max_pictures must be at least n_to_mark, 50; got 9"),
        ({"detector": without_threshold}, "no threshold yet"),
    ],
)
def test_errors(detector, images, tmp_path, monkeypatch, change, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.png").write_bytes(b"no image")
    options = {"detector": detector, "images": images, "path": "r.html"} | change
    if callable(options["detector"]):
        options["detector"] = options["detector"]()
    with pytest.raises(ValueError, match=words):
        skad.write_report(**options)
    assert not (tmp_path / "r.html").exists()


def test_a_missing_jinja2_is_named_before_anything_is_scored(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ImportError, match=r'pip install "skad\[report\]"'):
        skad.write_report(None, None, tmp_path / "r.html")


def test_a_fingerprint_is_of_what_was_learned(detector, model, tmp_path):
    loaded = skad.load(model)
    assert fingerprint(loaded) == fingerprint(detector)
    assert len(fingerprint(loaded)) == 64
    loaded.calibrate(parts(20, 5))
    assert fingerprint(loaded) != fingerprint(detector)


def test_what_the_page_shows_is_run(model, folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "new").symlink_to(folder / "scratch")
    (tmp_path / "part.safetensors").symlink_to(model)
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[1] / "docs/report.md").read_text(encoding="utf-8")
    skad.write_report(fitted(), ["parts/new/0.png"], "r.html")
    (image,) = data_of(tmp_path / "r.html")["images"]
    assert image["path"] == str(tmp_path / "parts" / "new" / "0.png")  # for the marks
    assert image["name"] == "0.png"
    for snippet in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(snippet, {})
    assert capsys.readouterr().out == "4 0 0\n"
    for picture in re.findall(r"(\w+\.png)", text):
        assert (Path(__file__).parents[1] / "docs" / picture).stat().st_size < 250_000


# --- Labels and the command line --------------------------------------------------


def write_labels(path, rows):
    with path.open("w", newline="", errors="surrogateescape") as file:
        csv.writer(file).writerows([("path", "label"), *rows])
    return path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path;label\na;good\n", "must have the columns path and label"),
        ("path,label\na.png,ok\n", r"line 2: a label must be good or bad; got 'ok'"),
        (
            "path,label\na,good\na,bad\n",
            "line 3: .* good in one row and bad in another",
        ),
        ("path,label\n", "has no rows"),
        ("label,path,note\ngood\n", "a row must name its image"),
        (f"path,label\n{'a' * 200_000},good\n", "is no CSV file: field larger"),
    ],
)
def test_errors_of_label_files(tmp_path, text, words):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=words):
        read_labels(tmp_path / "t.csv")


def test_label_files_may_come_from_other_programs(tmp_path):
    text = "\ufeffnote,path,label\r\n,a.png,Good\r\n,/b.png,bad\r\n"
    (tmp_path / "t.csv").write_text(text, encoding="utf-8", newline="")
    read = {str(path): label for path, label in read_labels(tmp_path / "t.csv").items()}
    assert read == {str(tmp_path / "a.png"): 1, "/b.png": -1}


@pytest.mark.filterwarnings("default")
def test_the_command_takes_labels(model, folder, tmp_path, capsys):
    output = tmp_path / "r.html"
    call = ["report", str(model), str(folder), "--recursive", "--output", str(output)]
    assert main([*call, "--folder-labels", "--n-to-mark", "4"]) == 0
    said = capsys.readouterr().out
    assert f"report         {output}" in said
    labels = [label for _, label in data_of(output)["scored"]]
    assert (labels.count(1), labels.count(-1)) == (26, 4)
    assert data_of(output)["command"] == f"skad score '{model}' IMAGES"
    rows = [(folder / "scratch" / "0.png", "bad"), ("elsewhere.png", "good")]
    table = write_labels(tmp_path / "t.csv", rows)
    assert main([*call, "--labels", str(table)]) == 0
    assert "1 labels in" in capsys.readouterr().err
    assert sorted(label for _, label in data_of(output)["scored"]) == [-1] + 29 * [0]
    write_labels(table, rows[1:])
    assert main([*call, "--labels", str(table)]) == 2
    assert "none is for an image of this report" in capsys.readouterr().err
    assert main([*call[:-1], str(model)]) == 2
    assert "would be replaced" in capsys.readouterr().err


def test_calibrate_takes_labels(model, folder, tmp_path, capsys):
    rows = [(path, "good") for path in find_images(folder / "good")]
    rows += [(path, "bad") for path in find_images(folder / "scratch")]
    table, new = write_labels(tmp_path / "t.csv", rows), tmp_path / "new"
    options = ["--labels", str(table), "--output", str(new)]
    call = ["calibrate", str(model), str(folder), *options]
    assert main([*call, "--metric", "f1"]) == 0
    assert "detected       4 of 4" in capsys.readouterr().out
    assert main([*call, "--target-fpr", "0.2"]) == 0
    assert "at most 20 % of good images" in capsys.readouterr().out
    scores = skad.load(model).score_samples(skad.ImageFolder(folder / "good"))
    assert skad.load(new).offset_ == np.sort(scores)[4]  # floor(0.2 * 27) = 5
    assert main([*call, "--anomalous", str(folder)]) == 2
    assert "not by both" in capsys.readouterr().err
    assert main(["calibrate", str(model), str(folder / "good"), *options]) == 2
    assert "which is not in" in capsys.readouterr().err
    write_labels(table, [("gone.png", "good")])
    assert main(call) == 2
    assert "no such image file or folder" in capsys.readouterr().err
    write_labels(table, rows[-2:])
    assert main(call) == 2
    assert "must label good images, too" in capsys.readouterr().err


def test_the_worst_images_are_explained(detector, images, folder, tmp_path):
    good = folder / "scratch"  # has the patches that are anomalous elsewhere
    for source, others in ((images.paths, good), (list(images), list(images))):
        path = tmp_path / "r.html"
        skad.write_report(detector, source, path, n_to_explain=2, good=others)
        shown = data_of(path)["images"]
        assert [bool(one["notes"]) for one in shown[:3]] == [True, True, False]
        for one in shown[:2]:
            i = int(one["name"].split()[-1]) if one["path"] == "" else None
            image = one["path"] if i is None else source[i]
            expected = skad.explain(detector, image, others, n_nearest=1)
            assert one["notes"] == str(expected)
            assert one["nearest"].startswith("data:image/")
    skad.write_report(detector, images, path, n_to_explain=0)
    assert {one["notes"] + one["nearest"] for one in data_of(path)["images"]} == {""}
