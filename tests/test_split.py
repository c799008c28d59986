"""Which images train and which calibrate, by groups, copies and what is known."""

import numpy as np
import pandas as pd
import pytest

from skad import PatchAutoencoderDetector
from skad.detectors.split import (
    NONE,
    calibration_places,
    check_groups,
    digest,
    train_calibration_split,
)
from skad.images.inputs import as_images


def draw(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 20, 20), dtype=np.uint8)


def split(X, groups=None, known=NONE, share=0.3, seed=0):
    good, rng = np.arange(len(X)), np.random.RandomState(seed)
    images, groups = as_images(X, None), check_groups(groups, len(X))
    return train_calibration_split(images, good, known, share, rng, groups=groups)


@pytest.mark.parametrize("groups", [None, list("abcdefghijklmnopqrst")])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.99, 1])
def test_single_images_are_split_by_a_permutation_of_their_places(groups, share):
    found = split(draw(20), groups, share=share)
    m = 20 if share == 1 else min(max(1, round(share * 20)), 19)
    order = np.random.RandomState(0).permutation(20)
    np.testing.assert_array_equal(found.calibration, np.sort(order[:m]))
    np.testing.assert_array_equal(found.training, np.sort(order[m:]))


def test_of_a_group_all_train_or_one_calibrates():
    X, groups, drawn = draw(60), np.repeat(np.arange(20), 3), set()
    for seed in range(10):
        found = split(X, pd.Series(groups, index=-groups), seed=seed)
        training, calibration = groups[found.training], groups[found.calibration]
        assert len(calibration) == len(set(calibration)) == 6
        assert np.bincount(training)[np.unique(training)].tolist() == [3] * 14
        assert not set(training) & set(calibration)
        drawn |= set(found.calibration % 3)
    assert drawn == {0, 1, 2}


def test_groups_of_images_that_were_trained_on_do_not_calibrate():
    X, groups = draw(40), np.repeat(np.arange(10), 4)
    known = np.array([digest(X[4 * i][..., None]) for i in range(8)], np.uint64)
    found = split(X, groups, known, share=0.9)
    assert groups[found.calibration].tolist() == [8, 9]
    with pytest.raises(ValueError, match="good image of a new group"):
        split(X[:32], groups[:32], known)
    images, rng = as_images(X, None), np.random.RandomState(0)
    with pytest.warns(UserWarning, match="trained on 8 of these 40 images.* than targ"):
        assert len(calibration_places(images, known, rng)) == 40


def test_copies_are_left_out_with_a_warning():
    X = draw(9)
    with pytest.warns(UserWarning, match=r"2 of 11 .* \(image 9 is one of image 3\)"):
        found = split(X[[*range(9), 3, 0]])
    assert sorted([*found.training, *found.calibration]) == list(range(9))
    with pytest.warns(UserWarning, match="All 3 good images are equal"):
        split(X[[1, 1, 1]])
    assert digest(X[0][..., None]) == digest(X[0][..., None] / np.float32(255))


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ([1, 2], "one label an image, 40 in all; got 2"),
        ("part", "40 in all; got 4"),
        ([*range(39), float("nan")], "that of image 39 is nan"),
        ([None, *range(39)], "that of image 0 is None"),
        ([pd.NA, *range(39)], "that of image 0 is <NA>"),
        (np.zeros((40, 2)), r"that of image 0 is \[0.0, 0.0\]"),
        (["a"] * 40, "at least 2 groups"),
    ],
)
def test_wrong_groups_are_an_error(groups, words):
    with pytest.raises(ValueError, match=words):
        PatchAutoencoderDetector(8, epochs=1).fit(draw(40), groups=groups)


def test_of_each_group_one_image_calibrates_a_detector():
    X, new = draw(40), draw(40, seed=1)
    detector = PatchAutoencoderDetector(8, epochs=1, target_fpr=0.2, random_state=0)
    detector.fit(X, groups=[("line", i // 2) for i in range(40)])
    assert len(detector.calibration_scores_) == 6
    groups, scores = np.arange(40) // 2, detector.score_samples(new)
    calibrated = detector.calibrate(new, groups=groups).calibration_scores_
    assert len(calibrated) == 20
    assert np.isin(calibrated, scores).all()
    y = np.tile([1, -1], 20)
    assert len(detector.calibrate(new, y, groups=groups).calibration_scores_) == 20
    with pytest.warns(UserWarning, match="40 good images seem to show 20 parts"):
        detector.calibrate(np.concatenate([new[:20], new[:20] ^ 1]))
    assert len(detector.calibration_scores_) == 20
    with pytest.warns(UserWarning, match="trained on 28 of these 40 images"):
        detector.calibrate(X)
