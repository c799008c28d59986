"""Checks that any image detector in scikit-learn's style should pass."""

import pickle
import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any

import joblib
import numpy as np

from skad.testing import expectations as expect
from skad.testing.expectations import COLOUR, FLOAT, GRAY, Images, Subject, Wrong


def check_image_detector(estimator, *, lazy=True, labels=False, storage=None):
    """Check over images what scikit-learn's own checks check over rows.

    Parameters
    ----------
    estimator : outlier detector, an instance
        With `fit`, `predict`, `score_samples`, `decision_function` and `offset_`;
        `anomaly_map` and `predict_mask` are checked if present. It is copied, never
        fitted. If `random_state` is None, the copies have 0.
    lazy : bool, default=True
        Check that X may be a sequence with only ``__len__`` and ``__getitem__``.
    labels : bool, default=False
        Check that `fit` leaves out images labelled -1.
    storage : (save, load), default=None
        Check a file format: ``save(detector, path)`` and ``load(path)``.

    Returns
    -------
    names : list of str
        The checks, all passed.

    Raises
    ------
    AssertionError
        Names each check that failed, and tells why.

    Examples
    --------
    >>> from sklearn.ensemble import IsolationForest
    >>> check_image_detector(IsolationForest())  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    AssertionError: IsolationForest fails 41 of 42 checks:
    clone: Expect ...
    """
    checks = dict(image_checks(estimator, lazy=lazy, labels=labels, storage=storage))
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


def parametrize_with_image_checks(estimators, *, lazy=True, labels=False, storage=None):
    """Make a test of every check of every detector: a decorator for pytest.

    Takes a list of detectors, and the options of `check_image_detector`. The test has
    one argument, ``check``, a function to be called.

    Examples
    --------
    >>> from sklearn.ensemble import IsolationForest
    >>> @parametrize_with_image_checks([IsolationForest()])
    ... def test_images(check):
    ...     check()
    """
    import pytest

    options = {"lazy": lazy, "labels": labels, "storage": storage}
    tests = [
        pytest.param(check, id=f"{type(estimator).__name__}-{name}")
        for estimator in estimators
        for name, check in image_checks(estimator, **options)
    ]
    return pytest.mark.parametrize("check", tests)


def image_checks(estimator, *, lazy=True, labels=False, storage=None):
    """Yield the name of each check that applies, and the check, a function.

    Options as in `check_image_detector`. Checks take no arguments and share their fits.
    """
    if isinstance(estimator, type):
        raise TypeError(f"estimator must be an instance; got the class {estimator!r}.")
    applies = {"lazy_sequence": lazy, "labels_kept_out": labels}
    applies |= {name: hasattr(estimator, name) for name in expect.OPTIONAL}
    checks = {name: f for name, f in _CHECKS.items() if applies.get(name, True)}
    if storage is not None:
        checks["storage"] = partial(expect.check_storage, storage=storage)
    subject = Subject(estimator)
    for name, check in checks.items():
        yield name, partial(_run, name, check, subject)


def _run(name: str, check: Any, subject: Subject) -> None:
    try:
        check(subject)
    except Exception as error:
        expectation = getattr(check, "func", check).__doc__
        why = f"{expectation} {type(error).__name__}: {error}"
        raise AssertionError(f"{name}: {why}") from error


class _LazySequence:
    def __init__(self, images: np.ndarray) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, i: int) -> np.ndarray:
        return self._images[i]


def _memmap(X: np.ndarray) -> np.ndarray:
    with tempfile.TemporaryFile(buffering=0) as file:
        file.write(X.tobytes())
        return np.memmap(file, X.dtype, "r", shape=X.shape)


_RESULTS = {
    **{f"dtype_{t}": Images(t) for t in ("uint8", "uint16")},
    **{f"dtype_float{bits}": Images(f"float{bits}") for bits in (16, 32, 64)},
    **{f"channels_{n}": Images(shape=(12, 12, n)) for n in (1, 3, 4, 7)},
    "not_square": Images(shape=(9, 14)),
}
_LAYOUTS: dict[str, Callable[[np.ndarray], Any]] = {
    "list": list,
    "memmap": _memmap,
    "fortran_order": np.asfortranarray,
    "flipped": lambda X: np.flip(np.flip(X).copy()),
    "lazy_sequence": _LazySequence,
}
_WRONG = {
    "nan": Wrong("nan", FLOAT, lambda X: np.where(X == X.max(), np.nan, X)),
    "infinity": Wrong("inf", FLOAT, lambda X: np.where(X == X.max(), np.inf, X)),
    "minus_infinity": Wrong("inf", FLOAT, lambda X: np.where(X > 0.4, -np.inf, X)),
    "ragged": Wrong("shape", GRAY, lambda X: [*X, X[0, 1:]]),
    "empty": Wrong("empty|0 sample", GRAY, lambda X: X[:0]),
    "five_axes": Wrong("dim|shape", GRAY, lambda X: X[..., None, None]),
    "strings": Wrong("string|numeric|path", GRAY, lambda X: ["a.png", "b.png"]),
    "one_gray": Wrong("batch|one image", GRAY, lambda X: X[0], False),
    "one_colour": Wrong("batch|one image", COLOUR, lambda X: X[0], False),
    "other_size": Wrong("shape|size", GRAY, lambda X: X[:, 1:], False),
    "fewer_channels": Wrong("channel", COLOUR, lambda X: X[..., :2], False),
    "more_channels": Wrong("channel", GRAY, lambda X: np.stack([X] * 3, -1), False),
    "float_for_integer": Wrong("kind|type", GRAY, lambda X: X / 255, False),
    "integer_for_float": Wrong("kind|type", FLOAT, lambda X: X.astype("u1"), False),
}
_PICKLE = (
    lambda model, path: path.write_bytes(pickle.dumps(model)),
    lambda path: pickle.loads(path.read_bytes()),
)
_BATCHES = [[0], [4], [0, 1, 2, 3], [4, 5], 100 * [0, 4, 5]]
_CHECKS: dict[str, Callable[[Subject], None]] = {
    "constructor": expect.check_constructor,
    "clone": expect.check_clone,
    "unfitted": expect.check_unfitted,
    **{name: partial(expect.check_results, images=i) for name, i in _RESULTS.items()},
    **{name: partial(expect.check_layout, layout=f) for name, f in _LAYOUTS.items()},
    "batches": partial(expect.check_subsets, subsets=_BATCHES),
    "order": partial(expect.check_subsets, subsets=[[3, 0, 5, 1, 4, 2]]),
    "refit": expect.check_refit,
    "fit_predict": expect.check_fit_predict,
    "labels_of_good_images": partial(expect.check_labels, n_bad=0),
    "labels_kept_out": partial(expect.check_labels, n_bad=3),
    "decision": expect.check_decision,
    "anomaly_map": expect.check_map,
    "predict_mask": expect.check_mask,
    **{
        f"wrong_{name}": partial(expect.check_error, wrong=wrong)
        for name, wrong in _WRONG.items()
    },
    "side_effects": expect.check_side_effects,
    "pickle": partial(expect.check_storage, storage=_PICKLE),
    "joblib": partial(expect.check_storage, storage=(joblib.dump, joblib.load)),
    "threads": expect.check_threads,
    "device": expect.check_device,
}
