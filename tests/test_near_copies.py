"""Near copies, and groups: one part trains or sets the threshold, never both."""

import importlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter
from sklearn.base import clone

from skad import PatchAutoencoderDetector
from skad.detectors.groups import check_groups
from skad.detectors.split import NONE, digest, divide
from skad.images.inputs import as_images
from skad.threshold.conformal import conformal_threshold

BENCHMARKS = Path(__file__).parents[1] / "docs" / "benchmarks"
CHANGES = ["one bit", "noise", "JPEG 90", "JPEG 75", "+2 %", "both", "next frame"]


@pytest.fixture(scope="module")
def script():
    """The script that measures which images are taken for near copies."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield importlib.import_module("near_copies")


def parts(n, rng, side=40):
    """Different parts: soft patterns, (n, side, side) uint8."""
    fields = gaussian_filter(rng.normal(size=(n, side, side)), (0, 2.5, 2.5))
    return np.clip(128 + 200 * fields, 0, 255).astype(np.uint8)


def divided(X, groups=None, known=NONE, share=0.3, seed=0):
    if groups is not None:
        groups = check_groups(groups, len(X))
    rng = np.random.RandomState(seed)
    good = np.arange(len(X))
    return divide(as_images(X, None), good, known, share, rng, groups=groups)


@pytest.mark.filterwarnings("ignore:.*seem to show")
@pytest.mark.parametrize("change", CHANGES)
def test_near_copies_are_found_and_other_parts_are_not(script, change):
    rng = np.random.default_rng(0)
    X = parts(20, rng)
    copies = np.stack([script.CHANGES[change](image, rng) for image in X])
    groups = script.groups_of(np.concatenate([X, copies]))
    np.testing.assert_array_equal(groups, np.tile(np.arange(20), 2))
    in_float = script.groups_of(np.concatenate([X, copies]) / 255)
    np.testing.assert_array_equal(in_float, groups)


def test_parts_in_one_pose_are_no_group(script):
    rng = np.random.default_rng(0)
    pose = parts(1, rng)[0] / 2
    for own in (0.02, 0.1, 0.5):  # share of what is each part's own
        X = (pose + own * parts(40, rng)).astype(np.uint8)
        assert len(set(script.groups_of(X))) == 40


def test_one_large_group_is_left_apart_with_a_warning(script):
    rng = np.random.default_rng(0)
    X = parts(12, rng)
    burst = [script.next_frame(X[0], rng) for _ in range(8)]
    with pytest.warns(UserWarning, match="9 of 20 good images look nearly the same"):
        groups = script.groups_of(np.concatenate([X, burst]))
    assert len(set(groups)) == 20


@pytest.mark.parametrize("groups", [None, "abcdefghijklmnopqrst"])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.99, 1])
def test_single_images_are_divided_by_a_permutation_of_their_places(groups, share):
    X = parts(20, np.random.default_rng(0))
    division = divided(X, None if groups is None else list(groups), share=share)
    m = 20 if share == 1 else min(max(1, round(share * 20)), 19)
    order = np.random.RandomState(0).permutation(20)
    np.testing.assert_array_equal(division.calibration, np.sort(order[:m]))
    training = np.sort(order[m:]) if share < 1 else []
    np.testing.assert_array_equal(division.training, training)


def test_of_a_group_all_train_or_one_calibrates():
    X = parts(60, np.random.default_rng(0))
    groups = np.repeat(np.arange(20), 3)
    drawn = set()
    for seed in range(20):
        division = divided(X, groups, seed=seed)
        training, calibration = groups[division.training], groups[division.calibration]
        assert len(calibration) == len(set(calibration)) == 6
        assert np.bincount(training)[np.unique(training)].tolist() == [3] * 14
        assert not set(training) & set(calibration)
        drawn |= set(division.calibration % 3)
    assert drawn == {0, 1, 2}


def test_groups_of_images_that_were_trained_on_do_not_calibrate():
    X = parts(40, np.random.default_rng(0))
    groups = np.repeat(np.arange(10), 4)
    known = np.array([digest(X[4 * i][..., None]) for i in range(8)], np.uint64)
    division = divided(X, groups, known, share=0.9)
    assert groups[division.calibration].tolist() == [8, 9]
    with pytest.raises(ValueError, match="Images of a group that it was trained on"):
        divided(X[:32], groups[:32], known)


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ([1, 2], "one label an image.*, 40 in all; got 2"),
        ("part", "got str"),
        ([*range(39), float("nan")], "that of image 39 is nan"),
        ([None, *range(39)], "that of image 0 is None"),
        ([pd.NA, *range(39)], "that of image 0 is <NA>"),
        (np.zeros((40, 2)), "hashable; that of image 0 is a list"),
        (["a"] * 40, "at least 2 groups"),
    ],
)
def test_wrong_groups_are_an_error(groups, words):
    X = parts(40, np.random.default_rng(0))
    with pytest.raises(ValueError, match=words):
        PatchAutoencoderDetector(8, epochs=1).fit(X, groups=groups)


def test_of_each_group_one_image_calibrates():
    rng = np.random.default_rng(0)
    X, new = parts(40, rng, side=24), parts(40, rng, side=24)
    detector = PatchAutoencoderDetector(8, epochs=1, target_fpr=0.2, random_state=0)
    groups = [("line", i // 2) for i in range(40)]
    detector.fit(X, groups=groups)
    assert len(detector.calibration_scores_) == 6
    again = clone(detector).fit(X, groups=pd.Series(range(40)) // 2)
    np.testing.assert_array_equal(
        again.calibration_scores_, detector.calibration_scores_
    )
    scores = detector.score_samples(new).reshape(20, 2)
    calibrated = detector.calibrate(new, groups=groups).calibration_scores_
    assert len(calibrated) == 20
    assert np.isin(calibrated, scores).all()
    y = np.tile([1, -1], 20)
    assert len(detector.calibrate(new, y, groups=groups).calibration_scores_) == 20
    with pytest.warns(UserWarning, match="40 good images seem to show 20 parts"):
        detector.calibrate(np.concatenate([new[:20], new[:20] ^ 1]))
    assert len(detector.calibration_scores_) == 20


def false_alarms(X, new, groups, seed):
    """Share of new images flagged by a detector that knows what it was trained on."""
    division = divided(X, groups, seed=seed)
    known = X[division.training].reshape(len(division.training), -1).astype(float)

    def score(images):
        flat = images.reshape(len(images), 1, -1)
        return -np.abs(flat - known).mean(2).min(1)

    offset = conformal_threshold(score(X[division.calibration]), 0.1)
    return np.mean(score(new) < offset)


@pytest.mark.filterwarnings("ignore:.*seem to show")
@pytest.mark.parametrize("change", ["one bit", "JPEG 90", "next frame"])
def test_the_promise_holds_with_near_copies(script, change):
    rng = np.random.default_rng(0)
    rates, without = [], []
    for seed in range(40):
        X, new = parts(33, rng, side=24), parts(40, rng, side=24)
        copies = [script.CHANGES[change](image, rng) for image in X]
        X = np.concatenate([X, copies])
        rates.append(false_alarms(X, new, None, seed))
        without.append(false_alarms(X, new, range(len(X)), seed))
    error = np.std(rates) / np.sqrt(len(rates))
    assert np.mean(rates) < 0.1 + 2 * error
    assert np.mean(without) > 0.15
