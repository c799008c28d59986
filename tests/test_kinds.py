"""Files of the old network's detector: the same checks, and what is special about it.

What all kinds of detectors share is tested in test_persistence.py.
"""

import copy
import json
import re
import struct
import tracemalloc
from dataclasses import asdict

import numpy as np
import pytest
from old_models import SHAPE, write_model
from safetensors.numpy import load as arrays_of
from safetensors.numpy import save as to_bytes
from sklearn.exceptions import NotFittedError

from skad import DenseAutoencoderDetector, ScoreDisplay, load, save
from skad.model_io.kinds import KINDS
from skad.model_io.model_file import checksum
from skad.threshold.conformal import labelled_threshold


def draw(n=12, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(90, 111, (n, *SHAPE[:2]), dtype=np.uint8)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("old") / "model")


@pytest.fixture(scope="module")
def fitted(model):
    return DenseAutoencoderDetector(model, target_fpr=0.3, random_state=3).fit(draw())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.fixture(scope="module")
def stored(fitted, tmp_path_factory):
    path = tmp_path_factory.mktemp("stored") / "model.safetensors"
    save(fitted, path)
    return path.read_bytes()


def opened(stored):
    """Arrays and description of a file."""
    header = json.loads(stored[8 : 8 + struct.unpack("<Q", stored[:8])[0]])
    return arrays_of(stored), json.loads(header["__metadata__"]["skad"])


def write(path, arrays, description):
    description = description | {"checksum": checksum(arrays, description)}
    path.write_bytes(to_bytes(arrays, {"skad": json.dumps(description)}))


def refused(path, match=None):
    with pytest.raises(ValueError, match=match) as raised:
        load(path)
    assert "is not a model file that skad" in str(raised.value)


def test_every_kind_is_known_by_its_class():
    assert set(KINDS) == {"PatchAutoencoderDetector", "DenseAutoencoderDetector"}
    for name, kind in KINDS.items():
        assert kind.detector.__name__ == name
        assert kind.not_in_header < set(kind.detector().get_params())


def test_a_loaded_detector_is_the_one_that_was_saved(fitted, path):
    save(fitted, path)
    loaded = load(path)
    assert type(loaded) is DenseAutoencoderDetector
    assert loaded.get_params() == fitted.get_params() | {"model": None}
    X = draw(seed=1)
    for method in ("anomaly_map", "reconstruct", "score_samples", "p_value", "predict"):
        found, expected = (getattr(d, method)(X) for d in (loaded, fitted))
        np.testing.assert_array_equal(found, expected)
    assert loaded.mean_map_ == fitted.mean_map_
    first = path.read_bytes()
    save(loaded, path)
    assert path.read_bytes() == first


def test_the_path_of_the_old_files_is_not_stored(model, path, fitted):
    save(fitted, path)
    assert str(model.parent).encode() not in path.read_bytes()


def test_a_network_without_a_threshold_comes_back_so(model, path):
    detector = DenseAutoencoderDetector(model).read_model()
    save(detector, path)
    loaded = load(path)
    np.testing.assert_array_equal(
        loaded.score_samples(draw()), detector.score_samples(draw())
    )
    with pytest.raises(NotFittedError, match="no threshold yet"):
        loaded.predict(draw())
    loaded.set_params(target_fpr=0.3).calibrate(draw())
    save(loaded, path)
    assert load(path).offset_ == loaded.offset_


def test_a_trained_and_labelled_one_comes_back_and_goes_on(model, path):
    detector = DenseAutoencoderDetector(model, epochs=1, target_fpr=0.3, random_state=0)
    detector.fit(draw())
    y = np.repeat([1, -1], 6)
    detector.calibrate(np.concatenate([draw(6), 255 - draw(6)]), y)
    save(detector, path)
    loaded = load(path)
    assert loaded.labelled_threshold_ == detector.labelled_threshold_
    assert loaded.history_ == detector.history_
    with pytest.raises(ValueError, match="warm_start=True"):
        loaded.fit(draw())
    loaded.set_params(warm_start=True).fit(draw())
    assert loaded.history_[0]["loss"] < detector.history_[0]["loss"]


def test_only_detectors_with_a_network_are_stored(path):
    with pytest.raises(NotFittedError):
        save(DenseAutoencoderDetector(), path)


def test_other_classes_are_refused(path):
    with pytest.raises(TypeError, match=r"PatchAuto\w+ or a DenseAuto.*got ScoreDisp"):
        save(ScoreDisplay([1, -1], [0.0, -1.0], -0.5), path)


# Files that look like a model

WRONG = {
    "kind": [None, 1, [], {}, "", "os", "PatchAutoencoderDetector", "x" * 10**4],
    "network_shape": [
        None,
        16,
        [16, 24],
        [16, 24, 2],
        [16, 24, 3],
        [16, 20, 1],
        [24, 24, 1],
        [0, 24, 1],
        [-16, 24, 1],
        [16.0, 24, 1],
        [True, 24, 1],
        [2**31 - 8, 2**31 - 8, 1],
        [4096, 4096, 1],
        [10**400, 24, 1],
    ],
    "offset": [None, "1", [1], float("nan"), float("inf"), 10**400],
    "mean_map": [None, "1", float("nan")],
    "format.image_shape": [[16, 24, 3], [8, 24, 1], [16, 24]],
    "format.shape": [[16], [24, 16], [16, 24, 3]],
    "parameters.epochs": [None, -1, 1.5, "x"],
    "parameters.model": ["/etc/passwd", None],
    "parameters.roi": [None],
    "parameters.target_fpr": [0, None],
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_values(stored, path, name):
    arrays, description = opened(stored)
    tracemalloc.start()
    try:
        for value in WRONG[name]:
            changed = copy.deepcopy(description)
            *parents, last = name.split(".")
            place = changed[parents[0]] if parents else changed
            place[last] = value
            write(path, arrays, changed)
            tracemalloc.reset_peak()
            refused(path)
            assert tracemalloc.get_traced_memory()[1] < 5e7  # bytes
    finally:
        tracemalloc.stop()


NO_THRESHOLD = {"offset": None, "mean_map": None, "promised_fpr": None}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"offset": None}, "offset and mean_map in its header contradict"),
        (NO_THRESHOLD, "has calibration_scores and no offset"),
        (NO_THRESHOLD | {"promised_fpr": 0.05}, "promised_fpr .* is of no threshold"),
    ],
)
def test_half_a_threshold(stored, path, changes, match):
    arrays, description = opened(stored)
    write(path, arrays, description | changes)
    refused(path, match)


def test_a_threshold_without_scores(stored, path):
    arrays, description = opened(stored)
    write(path, arrays | {"calibration_scores": np.empty(0)}, description)
    refused(path, "not a sorted list")
    found = asdict(labelled_threshold([-2.0, -1.0], [-1, 1]))
    threshold = NO_THRESHOLD | {"labelled_threshold": found}
    write(path, arrays | {"calibration_scores": np.empty(0)}, description | threshold)
    refused(path, "labelled_threshold in its header is of no threshold")


def test_arrays_that_are_missing_or_too_many_or_wrong(stored, path):
    arrays, description = opened(stored)
    for name, array in arrays.items():
        if name in ("calibration_scores", "statistics"):  # may be empty, or missing
            continue
        rest = {k: v for k, v in arrays.items() if k != name}
        write(path, rest, description)
        refused(path, re.escape(f"{name} is missing"))
        write(path, rest | {name: array[None]}, description)
        refused(path, re.escape(f"{name} is "))
    write(path, arrays | {"roi": np.ones(SHAPE[:2], np.float32)}, description)
    refused(path, "roi is .* where nothing belongs")
    name = "network.dense.2.bias"
    write(path, arrays | {name: arrays[name] * np.nan}, description)
    refused(path, f"{name} has values that are not finite")
