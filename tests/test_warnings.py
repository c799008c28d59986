"""Warnings of all sorts point at the line that called skad."""

import warnings

import numpy as np
import pytest
from PIL import Image
from sklearn.model_selection import GridSearchCV

import skad
from skad import PatchAutoencoderDetector, metrics

GOOD = np.random.default_rng(0).integers(90, 110, (6, 16, 16), dtype=np.uint8)


def search():
    detector = PatchAutoencoderDetector(8, epochs=1, target_fpr=0.01)
    GridSearchCV(detector, {"epochs": [1]}, scoring=lambda *args: 0, cv=2).fit(GOOD)


def fit_and_score_without_labels():
    detector = PatchAutoencoderDetector(8, epochs=1, target_fpr=0.4)
    detector.fit(GOOD).score(GOOD, range(6))


def leave_out_a_broken_file(folder):
    ad = skad.AD("AD1", img_size=(16, 16), save_path=str(folder / "m"))
    ad.load_data(str(folder))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda folder: search(), ["cannot be promised"]),
        (lambda folder: fit_and_score_without_labels(), ["labels"]),
        (lambda folder: metrics.image_auroc_score([1], [0.0]), ["undefined"]),
        (lambda folder: skad.AD("AD9"), ["Unknown model name"]),
        (lambda folder: skad.ImageFolder(folder), ["broken"]),
        (leave_out_a_broken_file, ["broken"]),
    ],
)
def test_a_warning_points_at_the_line_that_called_skad(tmp_path, call, words):
    Image.fromarray(GOOD[0]).save(tmp_path / "0.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call(tmp_path)
    for word in words:
        assert {w.filename for w in caught if word in str(w.message)} == {__file__}
