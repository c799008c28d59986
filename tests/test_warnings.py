"""Warnings of all kinds point at the line that called skad."""

import warnings

import numpy as np
import pytest
from PIL import Image
from sklearn.model_selection import GridSearchCV

import skad
from skad import PatchAutoencoderDetector, metrics

GOOD = np.random.default_rng(0).integers(90, 110, (6, 16, 16), dtype=np.uint8)
QUICK = {"epochs": 1, "target_fpr": 0.4}


def fit(X, **parameters):
    PatchAutoencoderDetector(8, **QUICK | parameters).fit(X)


def search():
    detector = PatchAutoencoderDetector(8, epochs=1)
    grid = {"target_fpr": [0.01, 0.02]}
    GridSearchCV(detector, grid, scoring=lambda *args: 0, cv=2).fit(GOOD)


def score_without_labels():
    PatchAutoencoderDetector(8, **QUICK).fit(GOOD).score(GOOD, range(6))


def read_a_folder_with_a_broken_file(folder):
    skad.ImageFolder(folder)


def leave_out_a_broken_file(folder):
    ad = skad.AD("AD1", img_size=(16, 16), save_path=str(folder / "m"))
    ad.load_data(str(folder))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda folder: fit(GOOD, target_fpr=0.01), "cannot be promised"),
        (lambda folder: search(), "cannot be promised"),
        (lambda folder: fit(GOOD[[0, 1, 2, 3, 3]]), "copies of others"),
        (lambda folder: fit(GOOD[[0, 0, 0]]), "are equal"),
        (lambda folder: fit(GOOD[..., None] * [1.0, 1e-4]), "Channel"),
        (lambda folder: score_without_labels(), "labels"),
        (lambda folder: metrics.image_auroc_score([1], [0.0]), "undefined"),
        (lambda folder: metrics.wilson_interval(0, 0), "undefined"),
        (lambda folder: skad.AD("AD9"), "Unknown model name"),
        (read_a_folder_with_a_broken_file, "broken"),
        (leave_out_a_broken_file, "broken"),
    ],
)
def test_a_warning_points_at_the_line_that_called_skad(tmp_path, call, words):
    for i, image in enumerate(GOOD):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call(tmp_path)
    places = [w.filename for w in caught if words in str(w.message)]
    assert places
    assert set(places) == {__file__}
