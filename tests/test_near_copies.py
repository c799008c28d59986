"""Near copies are found, other parts are not, and the promise holds with them."""

import importlib
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from skad.detectors.split import NONE, train_calibration_split
from skad.images.inputs import as_images
from skad.threshold.conformal import conformal_threshold

BENCHMARKS = Path(__file__).parents[1] / "docs" / "benchmarks"
CHANGES = ["one bit", "JPEG 75", "both", "next frame"]


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


def false_alarms(X, new, groups, seed):
    """Share of new images flagged by a detector that knows what it was trained on."""
    rng, places = np.random.RandomState(seed), np.arange(len(X))
    images = as_images(X, None)
    split = train_calibration_split(images, places, NONE, 0.3, rng, groups=groups)
    known = X[split.training].reshape(len(split.training), -1).astype(float)

    def score(images):
        flat = images.reshape(len(images), 1, -1)
        return -np.abs(flat - known).mean(2).min(1)

    offset = conformal_threshold(score(X[split.calibration]), 0.1)
    return np.mean(score(new) < offset)


@pytest.mark.filterwarnings("ignore:.*seem to show")
def test_the_promise_holds_with_near_copies(script):
    rng = np.random.default_rng(0)
    rates, without = [], []
    for seed in range(30):
        X, new = parts(33, rng, side=24), parts(40, rng, side=24)
        copies = [script.next_frame(image, rng) for image in X]
        X = np.concatenate([X, copies])
        places = np.arange(len(X))
        rates.append(false_alarms(X, new, None, seed))
        without.append(false_alarms(X, new, places, seed))
    error = np.std(rates) / np.sqrt(len(rates))
    assert np.mean(rates) < 0.1 + 2 * error
    assert np.mean(without) > 0.15
