"""Models of the old script in production: in AD, on the command line, in the docs."""

import os
import re
import shutil
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from image_files import save
from old_models import write_model

import skad
from skad import AD
from skad.cli.main import main

mpl.use("Agg")

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/coming_from_the_old_script.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
SIZE = (32, 40)


def image(i, shape=SIZE):
    return np.random.default_rng(i).integers(90, 111, shape, dtype=np.uint8)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Models of both kinds, 40 good images, and a folder to test."""
    root = tmp_path_factory.mktemp("made")
    write_model(root / "Models" / "model", (*SIZE, 1))
    write_model(root / "Colour" / "model", (*SIZE, 3), whole=True)
    for i in range(40):
        save(root / "Dataset" / "Good" / f"{i:02}.png", image(i))
    for i in range(2):
        save(root / "Dataset" / "Test" / f"good{i}.png", image(100 + i))
    bad = image(200)
    bad[8:20, 10:24] = 255
    save(root / "Dataset" / "Test" / "bad.png", bad)
    return root


@pytest.fixture
def root(made, tmp_path, monkeypatch):
    """A copy of it, to work in."""
    shutil.copytree(made, tmp_path / "root")
    monkeypatch.chdir(tmp_path / "root")
    return tmp_path / "root"


# --- AD ---------------------------------------------------------------------------


def test_a_pair_is_a_stored_model(root):
    name = "Models/model"
    ad = AD(name)
    assert (ad.img_size, ad.gray_scale) == (SIZE, True)
    assert isinstance(ad.detector, skad.DenseAutoencoderDetector)
    with pytest.warns(UserWarning, match=r"img_size=\(64, 64\) is ignored.*\(32, 40\)"):
        AD(name, img_size=(64, 64))
    ad = AD("Colour/model")
    assert (ad.img_size, ad.gray_scale) == (SIZE, False)


def test_skads_own_model_comes_first(root):
    ad = AD("Models/model")
    ad.load_data("Dataset/Good")
    skad.save(ad.detector, "Models/model.safetensors")
    assert hasattr(AD("Models/model").detector, "offset_")
    assert not hasattr(AD("Models/model.h5").detector, "offset_")


def test_without_good_images_nothing_is_flagged_and_that_is_said(root):
    ad = AD("Models/model")
    with pytest.warns(UserWarning, match=r"no threshold yet.*Call load_data") as caught:
        results = ad.predict("Dataset/Test", thresh=0.5)
    assert caught[0].filename == __file__
    assert [(r.is_anomaly, r.regions) for r in results] == [(False, [])] * 3
    scores = ad.detector.score_samples(skad.read_images("Dataset/Test"))
    assert [r.score for r in results] == scores.tolist()
    assert scores.argmin() == 0  # bad.png


def test_the_first_good_images_set_the_threshold(root, capsys):
    ad = AD("Models/model")
    ad.load_data("Dataset/Good")
    threshold = ad.detector.pixel_threshold_
    said = capsys.readouterr().out
    assert f"Set the threshold, {threshold:.4g}, from them" in said
    scores = ad.detector.score_samples(ad.images)
    assert -threshold == np.sort(scores)[1]  # floor(0.05 * 41) = 2
    results = ad.predict("Dataset/Test")
    assert results[0].is_anomaly  # bad.png
    row, column = results[0].regions[0].centroid
    assert 8 <= row <= 20
    assert 10 <= column <= 24
    assert not any(r.is_anomaly for r in ad.predict("Dataset/Test", thresh=100))
    ad.load_data("Dataset/Test")  # later ones do not
    assert ad.detector.pixel_threshold_ == threshold


def test_training_goes_on_from_the_old_weights_and_saves_as_skad_does(root):
    ad = AD("Models/model", save_path="New")
    ad.load_data("Dataset/Good")
    with pytest.warns(UserWarning, match=r"cannot be promised: 12 good images"):
        ad.train(2)
    first, second = (epoch["loss"] for epoch in ad.detector.history_)
    assert second < first
    assert os.listdir("New") == ["model.safetensors"]
    assert AD("New/model").predict("Dataset/Test") == ad.predict("Dataset/Test")


# --- The command line -------------------------------------------------------------


def test_good_images_set_the_threshold_of_a_stored_network(root, capsys):
    old = skad.DenseAutoencoderDetector("Models/model").read_model()
    skad.save(old, "m.safetensors")
    assert main(["info", "m.safetensors"]) == 0
    assert "threshold      none yet" in capsys.readouterr().out
    assert main(["score", "m.safetensors", "Dataset/Test"]) == 2
    assert "no threshold yet, and so no verdicts" in capsys.readouterr().err
    assert not Path("skad-scores").exists()
    call = ["calibrate", "m.safetensors", "Dataset/Good", "--target-fpr", "0.1"]
    assert main(call) == 0
    said = capsys.readouterr().out
    assert "promise        at most 10 % of good images are flagged" in said
    assert main(["score", "m.safetensors", "Dataset/Test"]) == 0
    assert "2 good, 1 anomalous" in capsys.readouterr().out


# --- The page in the docs ---------------------------------------------------------


@pytest.mark.filterwarnings("ignore:target_fpr=0.05 cannot be promised")
def test_the_snippets_of_the_page_run(root):
    save(root / "Dataset/Test/0.jpg", image(0))
    names: dict = {}
    for snippet in SNIPPETS:  # with one epoch and small images
        snippet = snippet.replace("train(75)", "train(1)")
        small = 'AD("AD1", img_size=(32, 32), patch_size=8)'
        exec(snippet.replace('AD("AD1")', small), names)
    assert Path("Models/model.safetensors").exists()
    assert Path("Output/0.jpg").exists()
