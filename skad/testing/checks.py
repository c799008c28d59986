"""Checks that any image detector in scikit-learn's style should pass."""

from functools import partial
from typing import Any

from skad.testing.image_checks import CHECKS, MORE, Subject


def check_image_detector(estimator, *, lazy=True, labels=False, storage=None):
    """Check over images what scikit-learn's own checks check over rows.

    Parameters
    ----------
    estimator : outlier detector, an instance
        With `fit`, `predict`, `score_samples`, `decision_function` and `offset_`;
        `anomaly_map` and `predict_mask` are checked where they are. It is copied, never
        fitted. Where `random_state` is None, the copies have 0.
    lazy : bool, default=True
        Check that X may be a sequence with nothing but ``__len__`` and ``__getitem__``.
    labels : bool, default=False
        Check that `fit` leaves images labelled -1 out; scikit-learn's own ignore y.
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
    AssertionError: IsolationForest fails 47 of 48 checks:
    clone: Expect ...
    """
    checks = list(image_checks(estimator, lazy=lazy, labels=labels, storage=storage))
    failures = []
    for _, check in checks:
        try:
            check()
        except AssertionError as failure:
            failures.append(failure)
    if failures:
        title = (
            f"{type(estimator).__name__} fails {len(failures)} of {len(checks)} checks:"
        )
        raise AssertionError("\n".join([title, *map(str, failures)])) from failures[0]
    return [name for name, _ in checks]


def parametrize_with_image_checks(estimators, *, lazy=True, labels=False, storage=None):
    """Make every check of every detector a test: a decorator for pytest.

    Parameters are a list of detectors, and the options of `check_image_detector`. The
    test has one argument, ``check``, a function to be called.

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
    applies = {"lazy_sequence": lazy, "labels_kept_out": labels, "storage": storage}
    applies |= {name: hasattr(estimator, name) for name in MORE}
    applies["device"] = hasattr(estimator, "device")
    subject = Subject(estimator, storage)
    for name, check in CHECKS.items():
        if applies.get(name, True):
            yield name, partial(_run, name, check, subject)


def _run(name: str, check: Any, subject: Subject) -> None:
    try:
        check(subject)
    except Exception as error:
        why = f"{getattr(check, 'func', check).__doc__} {type(error).__name__}: {error}"
        raise AssertionError(f"{name}: {why}") from error
