"""The warning about images unlike the good ones, and when there is none."""

import copy
import re
import warnings
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import skad
from skad import PatchAutoencoderDetector
from skad.cli.main import main
from skad.detectors.drift import DriftWarning, image_statistics, why_unlike
from skad.legacy import AD

SIZE = (32, 40)
CHANGES = {  # of 16-bit images
    "darker, as with another light": lambda X: X // 64,
    "darker,": lambda X: X // 2,
    "brighter,": lambda X: X + 20000,
}


def draw(n, seed=0, part=120, colour=False):
    """Draw parts on a background, 8 bits, in light that varies by some percent."""
    rng = np.random.default_rng(seed)
    images = rng.normal(60, 8, (n, *SIZE))
    images[:, 8:26, 10:32] += part - 60
    images *= rng.normal(1, 0.03, (n, 1, 1))
    if colour:
        images = images[..., None] * [1.2, 1.0, 0.8]
    return np.clip(images, 0, 255).astype(np.uint8)


def deep(images):
    return images.astype(np.uint16) * 257


def with_stain(images):
    images = images.copy()
    images[:, 4:18, 4:18] = 255
    return images


def why(X, good):
    """Compare images with good ones."""
    shape = (*SIZE, -1)
    both = ([image_statistics(i.reshape(shape), None) for i in x] for x in (X, good))
    return why_unlike(*map(np.stack, both)) or ""


@pytest.mark.parametrize("n", [1, 30])
@pytest.mark.parametrize("words", CHANGES)
def test_another_exposure_or_bit_depth_is_told(words, n):
    assert re.search(words, why(CHANGES[words](deep(draw(n, seed=1))), deep(draw(20))))


@pytest.mark.parametrize("n", [1, 30])
def test_another_channel_order_and_scale_of_floats_are_told(n):
    new, good = draw(n, seed=1, colour=True), draw(20, colour=True)
    assert "channels come in another order" in why(new[..., ::-1], good)
    assert "brighter" in why(new * 1.0, good / 255)
    assert why(new / 255 - 0.3, good / 255 - 0.3) == ""  # with negative values, too
    assert "brighter" in why(new / 255 + 0.3, good / 255 - 0.3)


@pytest.mark.parametrize("n", [1, 30])
@pytest.mark.parametrize("colour", [False, True])
def test_good_images_and_defects_are_not_told(n, colour):
    good, new = draw(20, colour=colour), draw(n, seed=1, colour=colour)
    for X in (new, with_stain(new)):
        assert why(X, good) == ""
    missing = draw(n, seed=1, part=60, colour=colour)  # among good ones
    assert why(np.concatenate([missing, new]), good) == ""


@pytest.fixture(scope="module")
def detector():
    options = {"epochs": 1, "target_fpr": 0.3, "random_state": 0}
    return PatchAutoencoderDetector(8, **options).fit(deep(draw(20)))


def told(call, *arguments, action="always"):
    """Return what a call gives, and how often it warns of drift."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter(action)
        result = call(*arguments)
    return result, sum(issubclass(w.category, DriftWarning) for w in caught)


@pytest.mark.parametrize("method", ["predict", "inspect"])
def test_methods_warn_once(detector, method):
    new = deep(draw(20, seed=1))
    assert told(getattr(detector, method), new)[1] == 0
    assert told(getattr(detector, method), new // 16)[1] == 1


def test_a_model_file_without_statistics_warns_of_nothing(detector, tmp_path):
    threshold = replace(detector.fitted.threshold, statistics=None)
    quiet = copy.copy(detector)
    quiet.fitted = replace(detector.fitted, threshold=threshold)
    skad.save(quiet, tmp_path / "model")
    new = deep(draw(5, seed=1)) // 16
    scores, n_warnings = told(skad.load(tmp_path / "model").score_samples, new)
    assert n_warnings == 0
    np.testing.assert_array_equal(scores, told(detector.score_samples, new)[0])


def test_calibration_sets_what_others_are_compared_with(detector, tmp_path):
    skad.save(detector, tmp_path / "model")
    loaded, dark = skad.load(tmp_path / "model"), deep(draw(20, seed=1)) // 2
    y = np.repeat([1, -1], 10)
    assert told(loaded.calibrate, dark, y)[1] == 1
    assert told(loaded.predict, dark)[1] == 0
    assert told(loaded.predict, deep(draw(4)))[1] == 1


def test_what_lies_outside_the_roi_does_not_count():
    roi = np.zeros(SIZE, bool)
    roi[:, :20] = True
    X = draw(20)
    options = {"epochs": 1, "target_fpr": 0.3, "random_state": 0, "roi": roi}
    detector = PatchAutoencoderDetector(8, **options).fit(X)
    assert told(detector.predict, np.where(roi, X, 255).astype(np.uint8))[1] == 0


def test_files_are_told_of_once(tmp_path, capsys):
    for name, images in {"good": draw(20), "new": draw(40, seed=1) // 3}.items():
        (tmp_path / name).mkdir()
        for i, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / name / f"{i}.png")
    ad = AD(train_path=tmp_path / "good", save_path=tmp_path, img_size=SIZE)
    ad.detector.set_params(target_fpr=0.3)
    ad.train(1)
    new, output = tmp_path / "new", tmp_path / "output"
    assert told(ad.predict, new, output, action="default")[1] == 1
    command = ["score", str(tmp_path / "model.safetensors"), str(new), "--threshold=20"]
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        main([*command, "--output", str(tmp_path / "scores")])
    said = capsys.readouterr().err
    assert len(re.findall("warning: These images are unlike", said)) == 1
