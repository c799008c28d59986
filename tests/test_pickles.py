"""Pickles of other versions: brought up to date, or refused with both versions."""

import copy
import pickle
import re

import numpy as np
import pytest

from skad import PatchAutoencoderDetector, __version__
from skad.common.arrays import Origin
from skad.detectors.fitted import Fitted


@pytest.fixture(scope="module")
def good():
    return np.random.default_rng(0).integers(90, 110, (12, 16, 16), dtype=np.uint8)


@pytest.fixture(scope="module")
def fitted(good):
    detector = PatchAutoencoderDetector(6, epochs=1, target_fpr=0.3, random_state=0)
    return detector.fit(good)


def as_the_first_states(detector):
    """What pickles of detectors held while every fitted attribute was by itself."""
    state = {name: getattr(detector, name) for name in detector.get_params()}
    del state["memory"]  # as if it were a new parameter
    attributes = ("offset_", "calibration_scores_", "mean_map_", "history_")
    fitted = detector._fitted
    return (
        state
        | {name: getattr(detector, name) for name in attributes}
        | {"_mapper": fitted.mapper, "_format": fitted.format}
        | {"image_shape_in_": detector.image_shape_in_, "n_features_in_": 7}
    )


def unpickled(state):
    detector = PatchAutoencoderDetector.__new__(PatchAutoencoderDetector)
    detector.__setstate__(pickle.loads(pickle.dumps(state)))
    return detector


def test_pickles_of_older_versions_are_brought_up_to_date(fitted, good):
    back = unpickled(as_the_first_states(fitted))
    assert back.get_params() == fitted.get_params()
    assert back.n_features_in_ == fitted.n_features_in_
    np.testing.assert_array_equal(back.predict(good), fitted.predict(good))
    np.testing.assert_array_equal(back.p_value(good), fitted.p_value(good))


def test_fields_that_a_pickle_does_not_have_yet_get_their_defaults(fitted):
    state = copy.deepcopy(fitted).__getstate__()
    del vars(state["_fitted"])["provenance"]
    assert unpickled(state).provenance_ == {}


@pytest.mark.parametrize(
    ("version", "change", "match"),
    [
        ("an earlier version", lambda s: s.pop("_format"), "it has no '_format'"),
        ("an earlier version", lambda s: s.pop("mean_map_"), "it has no 'mean_map_'"),
        ("9.9", lambda s: s.update(_written_by=Origin(99, "9.9")), "it is newer"),
        (
            "0.2.1",
            lambda s: s.update(
                _fitted=Fitted.__new__(Fitted), _written_by=Origin(2, "0.2.1")
            ),
            "Fitted has no mapper",
        ),
    ],
)
def test_other_pickles_are_refused_with_both_versions(fitted, version, change, match):
    state = as_the_first_states(fitted)
    change(state)
    both = f"written by skad {version}, and skad {__version__} cannot read it: {match}"
    with pytest.raises(ValueError, match=re.escape(both)):
        unpickled(state)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda a: a.pop("mean"), "it has no 'mean'"),
        (lambda a: a.pop("view_lines"), "view_lines has shape None"),
        (lambda a: a.update(tails=a["tails"][:1]), "tails has shape (1, 10, 2)"),
        (lambda a: a.update(new=a["mean"]), "new has shape (1,)"),
    ],
)
def test_maps_of_other_versions_are_refused_with_both(fitted, change, match):
    rebuild, (arrays, origin) = fitted._mapper.__reduce__()
    change(arrays)
    for args in ((), (origin,)):
        version = __version__ if args else "an earlier version"
        both = f"skad {version}, and skad {__version__} cannot read it: {match}"
        with pytest.raises(ValueError, match=re.escape(both)):
            rebuild(arrays, *args)
