"""The checks of an image detector; the docstring of each says what it expects."""

import random
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
import numpy.testing as npt
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

_METHODS = ["score_samples", "decision_function", "predict"]
_MORE = ["anomaly_map", "predict_mask", "p_value", "anomaly_regions", "reconstruct"]
OPTIONAL = [*_MORE, "device"]  # attributes that are checked if present

# Some bits of a float32, in which most networks compute; a GPU may add in any order.
_assert_close = partial(npt.assert_allclose, rtol=1e-6, atol=1e-6)


class Images(NamedTuple):
    """Images of one number type and shape, (H, W) or (H, W, C)."""

    dtype: str = "uint8"
    shape: tuple[int, ...] = (12, 12)

    def good(self) -> np.ndarray:
        """Draw ten: noise on gray."""
        return self._draw(10, seed=0, n_bad=0)

    def mixed(self, seed: int = 0) -> np.ndarray:
        """Draw six, the last three with a bright square; by default the same noise."""
        return self._draw(6, seed, n_bad=3)

    def _draw(self, n: int, seed: int, n_bad: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        levels = rng.integers(90, 111, (n, *self.shape))
        levels[n - n_bad :, 4:8, 2:6] = 250
        integers = {"uint8": levels, "uint16": levels * 257}
        return integers.get(self.dtype, levels / 255).astype(self.dtype)


GRAY, COLOUR = Images(), Images(shape=(12, 12, 3))
FLOAT, DOUBLE = Images("float32"), Images("float64")


class Wrong(NamedTuple):
    """Images that are to be refused."""

    words: str  # of the error
    images: Images  # fitted on
    spoil: Callable[[np.ndarray], Any]
    at_fit: bool = True  # whether fit refuses them, too


class Subject:
    """A detector under test and its copies, which work even if it has no clones."""

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator
        self.methods = _METHODS + [name for name in _MORE if hasattr(estimator, name)]
        self._fitted: dict[Images, Any] = {}

    def copy(self) -> Any:
        """Return an unfitted copy with a fixed random_state."""
        copy = deepcopy(self.estimator)
        if copy.get_params().get("random_state", 0) is None:
            copy.set_params(random_state=0)
        return copy

    def fitted(self, images: Images = GRAY) -> Any:
        """Return a copy fitted on good images, the same one in each call."""
        if images not in self._fitted:
            self._fitted[images] = self.copy().fit(images.good())
        return self._fitted[images]

    def decisions(
        self, model: Any, layout: Any = np.array, images: Images = GRAY
    ) -> tuple:
        """Return what a model decides, and what the fitted copy does."""
        expected = self.fitted(images).decision_function(images.mixed())
        return model.decision_function(layout(images.mixed())), expected


def _hashes(values: dict[str, Any]) -> dict[str, str]:
    return {name: joblib.hash(value) for name, value in values.items()}


def _watched(model: Any, X: np.ndarray) -> dict[str, str]:
    """Hash all that a call must not change."""
    things = {"X": X, "random": random.getstate(), **vars(model)}
    things["numpy.random"] = np.random.get_state()  # noqa: NPY002 (left as it is)
    if "torch" in sys.modules:
        things["torch.random"] = sys.modules["torch"].get_rng_state().numpy()
    return _hashes(things)


def check_constructor(subject: Subject) -> None:
    """Expect a constructor that assigns its parameters and does nothing else."""
    kind, params = type(subject.estimator), subject.estimator.get_params(deep=False)
    state = vars(kind(**params))
    other = [name for name, value in params.items() if state[name] is not value]
    npt.assert_(not other, f"not what was passed: {other}")
    inherited = {p for c in kind.__mro__ for p in signature(c).parameters}
    npt.assert_(inherited.issuperset(state), f"it sets {set(state) - inherited}")


def check_clone(subject: Subject) -> None:
    """Expect an unfitted clone with parameters that can be set again."""
    cloned, expected = clone(subject.fitted()), _hashes(vars(subject.copy()))
    for model in (cloned, cloned.set_params(**cloned.get_params())):
        npt.assert_(_hashes(vars(model)) == expected, f"it has {vars(model)}")


def check_unfitted(subject: Subject) -> None:
    """Expect NotFittedError from all methods of an unfitted detector."""
    for name in subject.methods:
        npt.assert_raises(NotFittedError, getattr(subject.copy(), name), GRAY.good())


def check_results(subject: Subject, images: Images) -> None:
    """Expect results for images of this number type, channel count and size."""
    model, X = subject.fitted(images), images.mixed()
    scores, labels = model.score_samples(X), model.predict(X)
    npt.assert_(scores.shape == labels.shape == (6,), "one value an image is needed")
    npt.assert_(scores.dtype.kind == "f" and np.isfinite(scores).all(), str(scores))
    npt.assert_(np.isin(labels, (-1, 1)).all(), f"predict gave {labels}")
    if "anomaly_map" in subject.methods:
        shape = model.anomaly_map(X).shape
        npt.assert_(shape == X.shape[:3], f"the maps have shape {shape}")


def check_layout(subject: Subject, layout: Callable[[np.ndarray], Any]) -> None:
    """Expect equal scores from equal images in this container."""
    model = subject.copy().fit(layout(COLOUR.good()))
    _assert_close(*subject.decisions(model, layout, COLOUR))


def check_subsets(subject: Subject, subsets: list[list[int]]) -> None:
    """Expect scores that depend on no other image and on no order."""
    score, X = subject.fitted().score_samples, GRAY.mixed
    expected = score(X())
    for places in subsets:
        _assert_close(score(X()[places]), expected[places])


def check_refit(subject: Subject) -> None:
    """Expect a second fit to return self and to forget the first."""
    model = subject.copy()
    model.fit(Images(shape=(9, 14)).good())
    npt.assert_(model.fit(GRAY.good()) is model, "fit returned something else")
    _assert_close(*subject.decisions(model))


def check_fit_predict(subject: Subject) -> None:
    """Expect the labels that fit and then predict give from fit_predict."""
    labels = subject.copy().fit_predict(GRAY.good())
    npt.assert_array_equal(labels, subject.fitted().predict(GRAY.good()))


def check_labels(subject: Subject, n_bad: int) -> None:
    """Expect fit to learn from images labelled 1 what they teach without labels."""
    X = np.concatenate([GRAY.good(), GRAY.mixed()[6 - n_bad :]])
    model = subject.copy().fit(X, np.repeat([1, -1], [10, n_bad]))
    _assert_close(*subject.decisions(model))


def check_decision(subject: Subject) -> None:
    """Expect score_samples - offset_ as decision_function, its sign from predict."""
    model, X = subject.fitted(), GRAY.mixed
    decision = model.decision_function(X())
    _assert_close(decision, model.score_samples(X()) - model.offset_)
    npt.assert_array_equal(model.predict(X()), np.where(decision >= 0, 1, -1))


def check_map(subject: Subject) -> None:
    """Expect minus the maximum of its anomaly map as an image's score."""
    model, X = subject.fitted(), GRAY.mixed
    _assert_close(model.score_samples(X()), -model.anomaly_map(X()).max(axis=(1, 2)))


def check_mask(subject: Subject) -> None:
    """Expect anomaly_map > -offset_ as mask, empty where decision_function >= 0."""
    model = subject.fitted()
    threshold = getattr(model, "pixel_threshold_", -model.offset_)
    npt.assert_(threshold == -model.offset_, f"{threshold} is not {-model.offset_}")
    for X in (GRAY.mixed, GRAY.good):  # a good image may be at the threshold
        mask = model.predict_mask(X())
        npt.assert_array_equal(mask, model.anomaly_map(X()) > np.array([threshold]))
        npt.assert_array_equal(mask.any(axis=(1, 2)), model.decision_function(X()) < 0)


def check_error(subject: Subject, wrong: Wrong) -> None:
    """Expect a ValueError that says what is wrong with X."""
    model, words = subject.fitted(wrong.images), f"(?i){wrong.words}"
    methods = [getattr(model, name) for name in subject.methods]
    for method in [subject.copy().fit, *methods] if wrong.at_fit else methods:
        X = wrong.spoil(wrong.images.good())
        npt.assert_raises_regex(ValueError, words, method, X)


def check_side_effects(subject: Subject) -> None:
    """Expect fit and the methods to leave X, generators and the detector alone."""
    found = []
    # Only images that need no conversion can be changed by what is done in place.
    for images in (GRAY, FLOAT, DOUBLE):
        model = subject.copy()
        for method in ("fit", *subject.methods):
            X = images.mixed()
            before = _watched(model, X)
            getattr(model, method)(X)
            changed = {name for name, _ in before.items() ^ _watched(model, X).items()}
            if method == "fit":  # may set attributes that are no parameters
                changed -= vars(model).keys() - model.get_params(deep=False).keys()
            found += [f"{name} by {method} ({X.dtype})" for name in sorted(changed)]
    npt.assert_(not found, f"changed: {found}")


def check_storage(subject: Subject, storage: Any) -> None:
    """Expect what was saved and loaded to decide equally, to the last bit."""
    save, load = storage
    with tempfile.TemporaryDirectory() as folder:
        save(subject.fitted(), Path(folder) / "detector")
        model = load(Path(folder) / "detector")
    npt.assert_array_equal(*subject.decisions(model))


def check_threads(subject: Subject) -> None:
    """Expect four threads at once to get what one gets alone."""
    model = subject.fitted()

    def work(seed: int) -> list:
        X = partial(GRAY.mixed, seed)
        return [model.score_samples(X()), model.predict(X())]

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(work, range(4)))
    _assert_close(found, [work(seed) for seed in range(4)])


def check_device(subject: Subject) -> None:
    """Expect device="cpu" to work, and a ValueError for a device that is none."""
    model = subject.copy().set_params(device="cpu").fit(GRAY.good())
    decisions = model.decision_function(GRAY.mixed())
    npt.assert_(np.isfinite(decisions).all(), f"on the CPU it decides {decisions}")
    wrong = subject.copy().set_params(device="abacus")
    npt.assert_raises_regex(ValueError, "device.*abacus", wrong.fit, GRAY.good())
