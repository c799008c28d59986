"""Checks that any image detector in scikit-learn's style should pass."""

import pickle
import random
import sys
import tempfile
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import joblib
import numpy as np
import numpy.testing as npt
from sklearn.base import clone

Format = tuple[str, tuple[int, ...]]  # number type and shape of an image

_METHODS = ["score_samples", "decision_function", "predict"]
# Checked if present.
_MORE = ["anomaly_map", "predict_mask", "p_value", "anomaly_regions", "reconstruct"]
_GRAY, _COLOUR = ("uint8", (12, 12)), ("uint8", (12, 12, 3))
_FLOAT, _DOUBLE = ("float32", (12, 12)), ("float64", (12, 12))

# Some bits of a float32, in which most networks compute; a GPU may add in any order.
_assert_close = partial(npt.assert_allclose, rtol=1e-6, atol=1e-6)


def check_image_detector(estimator):
    """Check over images what scikit-learn's own checks check over rows.

    `estimator` is an outlier detector, an instance, with `fit`, `predict`,
    `score_samples`, `decision_function` and `offset_`; `anomaly_map`, `predict_mask`
    and `device` are checked if present. It is copied, never fitted; if `random_state`
    is None, the copies have 0.

    Returns the names of the checks. Raises an AssertionError that names each check that
    failed, and tells why.

    Examples
    --------
    >>> from sklearn.ensemble import IsolationForest
    >>> check_image_detector(IsolationForest())  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    AssertionError: IsolationForest fails 22 of 22 checks:
    clone: Expect ...
    """
    checks = dict(image_checks(estimator))
    failures = []
    for check in checks.values():
        try:
            check()
        except AssertionError as failure:
            failures.append(str(failure))
    if failures:
        name = type(estimator).__name__
        title = f"{name} fails {len(failures)} of {len(checks)} checks:"
        raise AssertionError("\n".join([title, *failures]))
    return list(checks)


def image_checks(estimator):
    """List the name of each check that applies, and the check, a function.

    Checks take no arguments and share their fits. For pytest:
    ``@pytest.mark.parametrize(("name", "check"), image_checks(estimator))``.
    """
    if isinstance(estimator, type):
        raise TypeError(f"estimator must be an instance; got the class {estimator!r}.")
    subject = _Subject(estimator)
    return [
        (name, partial(_run, name, check, subject))
        for name, check in _CHECKS.items()
        if name not in (*_MORE, "device") or hasattr(estimator, name)
    ]


def _draw(format: Format = _GRAY, n_bad: int = 3) -> np.ndarray:
    """Draw ten images of noise on gray, the last ones with a bright square."""
    dtype, shape = format
    levels = np.random.default_rng(0).integers(90, 111, (10, *shape))
    levels[10 - n_bad :, 4:8, 2:6] = 250
    integers = {"uint8": levels, "uint16": levels * 257}
    return integers.get(dtype, levels / 255).astype(dtype)


class _Subject:
    """A detector under test and its copies, which work even if it has no clones."""

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator
        self.methods = _METHODS + [name for name in _MORE if hasattr(estimator, name)]
        self._fitted: dict[Format, Any] = {}

    def copy(self) -> Any:
        """Return an unfitted copy with a fixed random_state."""
        copy = deepcopy(self.estimator)
        if copy.get_params().get("random_state", 0) is None:
            copy.set_params(random_state=0)
        return copy

    def fitted(self, format: Format = _GRAY) -> Any:
        """Return a copy fitted on good images, the same one in each call."""
        if format not in self._fitted:
            self._fitted[format] = self.copy().fit(_draw(format, 0))
        return self._fitted[format]


def _run(name: str, check: Any, subject: _Subject) -> None:
    try:
        check(subject)
    except Exception as error:
        expectation = getattr(check, "func", check).__doc__
        why = f"{expectation} {type(error).__name__}: {error}"
        raise AssertionError(f"{name}: {why}") from error


def _hashes(model: Any, X: np.ndarray) -> dict[str, str]:
    """Hash all that a call must not change."""
    things = {"X": X, "random": random.getstate(), **vars(model)}
    things["numpy.random"] = np.random.get_state()  # noqa: NPY002 (left as it is)
    if "torch" in sys.modules:
        things["torch.random"] = sys.modules["torch"].get_rng_state().numpy()
    return {name: joblib.hash(value) for name, value in things.items()}


def _check_clone(subject: _Subject) -> None:
    """Expect an unfitted clone with equal parameters."""
    cloned, expected = vars(clone(subject.fitted())), vars(subject.copy())
    npt.assert_(joblib.hash(cloned) == joblib.hash(expected), f"it has {cloned}")


def _check_results(subject: _Subject, format: Format) -> None:
    """Expect results for images of this number type, channel count and size."""
    model, X = subject.fitted(format), _draw(format)
    scores, labels = model.score_samples(X), model.predict(X)
    npt.assert_(scores.shape == labels.shape == (10,), "one value an image is needed")
    npt.assert_(scores.dtype.kind == "f" and np.isfinite(scores).all(), str(scores))
    npt.assert_(np.isin(labels, (-1, 1)).all(), f"predict gave {labels}")
    if "anomaly_map" in subject.methods:
        shape = model.anomaly_map(X).shape
        npt.assert_(shape == X.shape[:3], f"the maps have shape {shape}")


def _check_memmap(subject: _Subject) -> None:
    """Expect equal scores from equal images on disk, read-only."""
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/X.npy", np.stack([_draw(_COLOUR, 0), _draw(_COLOUR)]))
        X = np.load(f"{folder}/X.npy", mmap_mode="r")
        found = subject.copy().fit(X[0]).score_samples(X[1])
        del X  # Windows removes no open file
    _assert_close(found, subject.fitted(_COLOUR).score_samples(_draw(_COLOUR)))


def _check_subsets(subject: _Subject, subsets: list[list[int]]) -> None:
    """Expect scores that depend on no other image and on no order."""
    score = subject.fitted().score_samples
    expected = score(_draw())
    for places in subsets:
        _assert_close(score(_draw()[places]), expected[places])


def _check_refit(subject: _Subject) -> None:
    """Expect a second fit to return self and to forget the first."""
    model = subject.copy()
    model.fit(_draw(("uint8", (9, 14)), 0))
    npt.assert_(model.fit(_draw(n_bad=0)) is model, "fit returned something else")
    expected = subject.fitted().decision_function(_draw())
    _assert_close(model.decision_function(_draw()), expected)


def _check_decision(subject: _Subject) -> None:
    """Expect score_samples - offset_ as decision_function, its sign from predict."""
    model = subject.fitted()
    decision = model.decision_function(_draw())
    _assert_close(decision, model.score_samples(_draw()) - model.offset_)
    npt.assert_array_equal(model.predict(_draw()), np.where(decision >= 0, 1, -1))


def _check_map(subject: _Subject) -> None:
    """Expect minus the maximum of its anomaly map as an image's score."""
    model = subject.fitted()
    peaks = model.anomaly_map(_draw()).max(axis=(1, 2))
    _assert_close(model.score_samples(_draw()), -peaks)


def _check_mask(subject: _Subject) -> None:
    """Expect anomaly_map > -offset_ as mask, empty where decision_function >= 0."""
    model = subject.fitted()
    for X in (_draw(), _draw(n_bad=0)):  # a good image may be at the threshold
        mask, maps = model.predict_mask(X), model.anomaly_map(X)
        npt.assert_array_equal(mask, maps > np.array([-model.offset_]))
        npt.assert_array_equal(mask.any(axis=(1, 2)), model.decision_function(X) < 0)


def _check_error(subject: _Subject, wrong: tuple) -> None:
    """Expect a ValueError that says what is wrong with X."""
    words, format, at_fit, spoil = wrong
    model = subject.fitted(format)
    methods = [getattr(model, name) for name in subject.methods]
    for method in [subject.copy().fit, *methods] if at_fit else methods:
        X = spoil(_draw(format, 0))
        npt.assert_raises_regex(ValueError, f"(?i){words}", method, X)


def _check_side_effects(subject: _Subject) -> None:
    """Expect fit and the methods to leave X, generators and the detector alone."""
    found = []
    # Only images that need no conversion can be changed by what is done in place.
    for format in (_GRAY, _FLOAT, _DOUBLE):
        model = subject.copy()
        for method in ("fit", *subject.methods):
            X = _draw(format)
            before = _hashes(model, X)
            getattr(model, method)(X)
            changed = {name for name, _ in before.items() ^ _hashes(model, X).items()}
            if method == "fit":  # may set attributes that are no parameters
                changed -= vars(model).keys() - model.get_params(deep=False).keys()
            found += [f"{name} by {method} ({X.dtype})" for name in sorted(changed)]
    npt.assert_(not found, f"changed: {found}")


def _check_pickle(subject: _Subject) -> None:
    """Expect a pickled copy to decide equally, to the last bit."""
    model = subject.fitted()
    copy = pickle.loads(pickle.dumps(model))
    expected = model.decision_function(_draw())
    npt.assert_array_equal(copy.decision_function(_draw()), expected)


def _check_device(subject: _Subject) -> None:
    """Expect device="cpu" to work, and a ValueError for a device that is none."""
    model = subject.copy().set_params(device="cpu").fit(_draw(n_bad=0))
    decisions = model.decision_function(_draw())
    npt.assert_(np.isfinite(decisions).all(), f"on the CPU it decides {decisions}")
    wrong = subject.copy().set_params(device="abacus")
    npt.assert_raises_regex(ValueError, "device.*abacus", wrong.fit, _draw(n_bad=0))


_FORMATS = {
    **{f"dtype_{t}": (t, (12, 12)) for t in ("uint8", "uint16", "float32", "float64")},
    **{f"channels_{n}": ("uint8", (12, 12, n)) for n in (1, 3)},
    "not_square": ("uint8", (9, 14)),
}
_BATCHES = [[0], [8], [0, 1, 2, 3], [8, 9], 100 * [0, 8, 9]]
# Words of the error, images fitted on, whether fit refuses X, too, and what is wrong.
_WRONG: dict[str, tuple] = {
    "nan": ("nan", _FLOAT, True, lambda X: np.where(X == X.max(), np.nan, X)),
    "infinity": ("inf", _FLOAT, True, lambda X: np.where(X > 0.4, -np.inf, X)),
    "empty": ("empty|0 sample", _GRAY, True, lambda X: X[:0]),
    "one_image": ("batch|one image", _GRAY, False, lambda X: X[0]),
    "size": ("shape|size", _GRAY, False, lambda X: X[:, 1:]),
    "channels": ("channel", _COLOUR, False, lambda X: X[..., :2]),
    "kind": ("kind|type", _GRAY, False, lambda X: X / 255),
}
_CHECKS: dict[str, Callable[[_Subject], None]] = {
    "clone": _check_clone,
    **{name: partial(_check_results, format=f) for name, f in _FORMATS.items()},
    "memmap": _check_memmap,
    "batches": partial(_check_subsets, subsets=_BATCHES),
    "order": partial(_check_subsets, subsets=[[3, 0, 9, 1, 8, 2]]),
    "refit": _check_refit,
    "decision": _check_decision,
    "anomaly_map": _check_map,
    "predict_mask": _check_mask,
    **{f"wrong_{k}": partial(_check_error, wrong=w) for k, w in _WRONG.items()},
    "side_effects": _check_side_effects,
    "pickle": _check_pickle,
    "device": _check_device,
}
