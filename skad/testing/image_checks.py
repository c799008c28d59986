"""What skad.testing checks of an image detector, one function a check."""

import pickle
import random
import re
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from functools import cached_property, partial
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
import numpy.testing as npt
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

MORE = ["anomaly_map", "predict_mask", "p_value", "anomaly_regions", "reconstruct"]
_METHODS = ["score_samples", "decision_function", "predict"]
_TYPES, _DEEP = ("uint8", "uint16", "float16", "float32", "float64"), (1, 3, 4, 7)
# Some bits of a float32, in which most networks compute; a GPU may add in any order.
_assert_close = partial(npt.assert_allclose, rtol=1e-6, atol=1e-6)


class _Look(NamedTuple):
    """Number type, channels (the last axis, if any) and size of images."""

    dtype: str = "uint8"
    channels: tuple[int, ...] = ()
    size: tuple[int, int] = (12, 12)

    def good(self) -> np.ndarray:
        """Draw ten good images: noise on gray."""
        return self._draw(10, seed=0, n_bad=0)

    def mixed(self, seed: int = 0) -> np.ndarray:
        """Draw six, the last three with a bright square; by default the same noise."""
        return self._draw(6, seed, n_bad=3)

    def _draw(self, n: int, seed: int, n_bad: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        levels = rng.integers(90, 111, (n, *self.size, *self.channels))
        levels[n - n_bad :, 4:8, 2:6] = 250
        integers = {"uint8": levels, "uint16": levels * 257}
        return integers.get(self.dtype, levels / 255).astype(self.dtype)


_GRAY, _COLOUR = _Look(), _Look(channels=(3,))
_FLOAT, _DOUBLE = _Look("float32"), _Look("float64")


class Subject:
    """A detector under test and its copies, which work even if it has no clones."""

    def __init__(self, estimator: Any, storage: Any) -> None:
        self.estimator = estimator
        self.storage = storage
        self.methods = _METHODS + [name for name in MORE if hasattr(estimator, name)]
        self._fitted: dict[_Look, Any] = {}

    def copy(self) -> Any:
        """Return an unfitted copy with a fixed random_state."""
        copy = deepcopy(self.estimator)
        if copy.get_params().get("random_state", 0) is None:
            copy.set_params(random_state=0)
        return copy

    def fitted(self, look: _Look = _GRAY) -> Any:
        """Return a copy fitted on good images, the same one in each call."""
        if look not in self._fitted:
            self._fitted[look] = self.copy().fit(look.good())
        return self._fitted[look]

    def decisions(
        self, model: Any, layout: Any = np.array, look: _Look = _GRAY
    ) -> tuple:
        """Return what a model decides, and what the fitted copy does."""
        expected = self.fitted(look).decision_function(look.mixed())
        return model.decision_function(layout(look.mixed())), expected

    @cached_property
    def side_effects(self) -> list[str]:
        """What fit and the methods change, except what fit learns."""
        # Only images that need no conversion can be changed by what is done in place.
        return [e for look in (_GRAY, _FLOAT, _DOUBLE) for e in self._effects(look)]

    def _effects(self, look: _Look) -> list[str]:
        model, found = self.copy(), []
        params = model.get_params(deep=False).keys()
        for method in ("fit", *self.methods):
            X = look.mixed()
            before = _watched(model, X)
            getattr(model, method)(X)
            after = _watched(model, X)
            learned = vars(model).keys() - params if method == "fit" else set()
            changed = sorted({name for name, _ in before.items() ^ after.items()})
            found += [
                f"{name} by {method} ({look.dtype})"
                for name in changed
                if name not in learned
            ]
        return found


def _watched(model: Any, X: np.ndarray) -> dict[str, str]:
    """Hash all that a call must not change."""
    things = {"X": X, "random": random.getstate(), **vars(model)}
    things["numpy.random"] = np.random.get_state()  # noqa: NPY002 (left as it is)
    if "torch" in sys.modules:
        things["torch.random"] = sys.modules["torch"].get_rng_state().numpy()
    return _hashes(things)


def _hashes(values: dict[str, Any]) -> dict[str, str]:
    return {name: joblib.hash(value) for name, value in values.items()}


def _check_constructor(subject: Subject) -> None:
    """Expect a constructor that assigns its parameters and does nothing else."""
    kind, params = type(subject.estimator), subject.estimator.get_params(deep=False)
    state = vars(kind(**params))
    other = [name for name, value in params.items() if state[name] is not value]
    npt.assert_(not other, f"not what was passed: {other}")
    inherited = {p for c in kind.__mro__ for p in signature(c).parameters}
    npt.assert_(inherited.issuperset(state), f"it sets {set(state) - inherited}")


def _check_clone(subject: Subject) -> None:
    """Expect an unfitted clone with parameters that can be set again."""
    cloned, expected = clone(subject.fitted()), _hashes(vars(subject.copy()))
    for model in (cloned, cloned.set_params(**cloned.get_params())):
        npt.assert_(_hashes(vars(model)) == expected, f"it has {vars(model)}")


def _check_unfitted(subject: Subject) -> None:
    """Expect NotFittedError from all methods of an unfitted detector."""
    for name in subject.methods:
        npt.assert_raises(NotFittedError, getattr(subject.copy(), name), _GRAY.good())


def _check_look(subject: Subject, look: _Look) -> None:
    """Expect results for images of this number type, channel count and size."""
    model, X = subject.fitted(look), look.mixed()
    scores, labels = model.score_samples(X), model.predict(X)
    npt.assert_(scores.shape == labels.shape == (6,), "one value an image is needed")
    npt.assert_(scores.dtype.kind == "f" and np.isfinite(scores).all(), str(scores))
    npt.assert_(np.isin(labels, (-1, 1)).all(), f"predict gave {labels}")
    if "anomaly_map" in subject.methods:
        maps = model.anomaly_map(X)
        npt.assert_(maps.shape == (6, *look.size), f"the maps have shape {maps.shape}")


def _check_layout(
    subject: Subject, layout: Callable[[np.ndarray], Any], look: _Look = _GRAY
) -> None:
    """Expect equal scores from equal images in this container."""
    model = subject.copy().fit(layout(look.good()))
    _assert_close(*subject.decisions(model, layout, look))


def _check_groups(subject: Subject, groups: list) -> None:
    """Expect scores that depend on no other image and on no order."""
    score, X = subject.fitted().score_samples, _GRAY.mixed
    expected = score(X())
    for group in groups:
        _assert_close(score(X()[group]), expected[group])


def _check_refit(subject: Subject) -> None:
    """Expect a second fit to return self and to forget the first."""
    model = subject.copy()
    model.fit(_Look(size=(9, 14)).good())
    npt.assert_(model.fit(_GRAY.good()) is model, "fit returned something else")
    _assert_close(*subject.decisions(model))


def _check_fit_predict(subject: Subject) -> None:
    """Expect the labels that fit and then predict give from fit_predict."""
    labels = subject.copy().fit_predict(_GRAY.good())
    npt.assert_array_equal(labels, subject.fitted().predict(_GRAY.good()))


def _check_labels(subject: Subject, n_bad: int) -> None:
    """Expect fit to learn from images labelled 1 what they teach without labels."""
    X = np.concatenate([_GRAY.good(), _GRAY.mixed()[6 - n_bad :]])
    model = subject.copy().fit(X, np.repeat([1, -1], [10, n_bad]))
    _assert_close(*subject.decisions(model))


def _check_decision(subject: Subject) -> None:
    """Expect score_samples - offset_ as decision_function, its sign from predict."""
    model, X = subject.fitted(), _GRAY.mixed
    decision = model.decision_function(X())
    _assert_close(decision, model.score_samples(X()) - model.offset_)
    npt.assert_array_equal(model.predict(X()), np.where(decision >= 0, 1, -1))


def _check_map(subject: Subject) -> None:
    """Expect minus the maximum of its anomaly map as an image's score."""
    model, X = subject.fitted(), _GRAY.mixed
    _assert_close(model.score_samples(X()), -model.anomaly_map(X()).max(axis=(1, 2)))


def _check_mask(subject: Subject) -> None:
    """Expect anomaly_map > -offset_ as mask, empty where decision_function >= 0."""
    model = subject.fitted()
    threshold = getattr(model, "pixel_threshold_", -model.offset_)
    npt.assert_(threshold == -model.offset_, f"{threshold} is not {-model.offset_}")
    for X in (_GRAY.mixed, _GRAY.good):  # a good image may be at the threshold
        mask = model.predict_mask(X())
        npt.assert_array_equal(mask, model.anomaly_map(X()) > np.array([threshold]))
        npt.assert_array_equal(mask.any(axis=(1, 2)), model.decision_function(X()) < 0)


def _check_error(subject: Subject, wrong: tuple) -> None:
    """Expect a ValueError that says what is wrong with X."""
    words, look, spoil, at_fit = (*wrong, True)[:4]
    methods = [getattr(subject.fitted(look), name) for name in subject.methods]
    for method in [subject.copy().fit, *methods] if at_fit else methods:
        npt.assert_raises_regex(ValueError, f"(?i){words}", method, spoil(look.good()))


def _check_unchanged(subject: Subject, things: str) -> None:
    """Expect fit and the methods to leave X, generators and the detector alone."""
    found = [effect for effect in subject.side_effects if re.match(things, effect)]
    npt.assert_(not found, f"changed: {found}")


def _check_storage(subject: Subject, storage: Any = None) -> None:
    """Expect what was saved and loaded to decide equally, to the last bit."""
    save, load = storage or subject.storage
    with tempfile.TemporaryDirectory() as folder:
        save(subject.fitted(), Path(folder) / "detector")
        model = load(Path(folder) / "detector")
    npt.assert_array_equal(*subject.decisions(model))


def _check_threads(subject: Subject) -> None:
    """Expect four threads at once to get what one gets alone."""
    model = subject.fitted()

    def work(seed: int) -> list:
        X = partial(_GRAY.mixed, seed)
        return [model.score_samples(X()), model.predict(X())]

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(work, range(4)))
    _assert_close(found, [work(seed) for seed in range(4)])


def _check_device(subject: Subject) -> None:
    """Expect device="cpu" to work, and a ValueError for a device that is none."""
    model = subject.copy().set_params(device="cpu").fit(_GRAY.good())
    decisions = model.decision_function(_GRAY.mixed())
    npt.assert_(np.isfinite(decisions).all(), f"on the CPU it decides {decisions}")
    wrong = subject.copy().set_params(device="abacus")
    npt.assert_raises_regex(ValueError, "device.*abacus", wrong.fit, _GRAY.good())


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


_PICKLE = (
    lambda model, path: path.write_bytes(pickle.dumps(model)),
    lambda path: pickle.loads(path.read_bytes()),
)
_WRONG: dict[str, tuple] = {  # words of the error, fitted on, instead, at fit?
    "nan": ("nan", _FLOAT, lambda X: np.where(X == X.max(), np.nan, X)),
    "infinity": ("infinit|inf\\b", _FLOAT, lambda X: np.where(X == X.max(), np.inf, X)),
    "minus_infinity": (
        "infinit|inf\\b",
        _FLOAT,
        lambda X: np.where(X > 0.4, -np.inf, X),
    ),
    "ragged": ("shape", _GRAY, lambda X: [*X, X[0, 1:]]),
    "empty": ("empty|0 sample", _GRAY, lambda X: X[:0]),
    "five_axes": ("dim|shape", _GRAY, lambda X: X[..., None, None]),
    "strings": ("string|numeric|path", _GRAY, lambda X: ["a.png", "b.png"]),
    "one_gray": ("batch", _GRAY, lambda X: X[0], False),
    "one_colour": ("batch", _COLOUR, lambda X: X[0], False),
    "other_size": ("shape|size", _GRAY, lambda X: X[:, 1:], False),
    "fewer_channels": ("channel", _COLOUR, lambda X: X[..., :2], False),
    "more_channels": ("channel", _GRAY, lambda X: np.stack([X] * 3, -1), False),
    "float_for_integer": ("kind|type", _GRAY, lambda X: X / 255, False),
    "integer_for_float": ("kind|type", _FLOAT, lambda X: X.astype(np.uint8), False),
}
_LAYOUTS: dict[str, Callable[[np.ndarray], Any]] = {
    "list": list,
    "memmap": _memmap,
    "fortran_order": np.asfortranarray,
    "flipped": lambda X: np.flip(np.flip(X).copy()),
}
_GROUPS = [[0], [4], [0, 1, 2, 3], [4, 5], 100 * [0, 4, 5]]
CHECKS: dict[str, Callable[[Subject], None]] = {
    "constructor": _check_constructor,
    "clone": _check_clone,
    "unfitted": _check_unfitted,
    **{f"dtype_{t}": partial(_check_look, look=_Look(t)) for t in _TYPES},
    **{f"channels_{n}": partial(_check_look, look=_Look("uint8", (n,))) for n in _DEEP},
    "not_square": partial(_check_look, look=_Look(size=(9, 14))),
    **{name: partial(_check_layout, layout=f) for name, f in _LAYOUTS.items()},
    **{
        f"colour_{name}": partial(_check_layout, layout=f, look=_COLOUR)
        for name, f in _LAYOUTS.items()
    },
    "lazy_sequence": partial(_check_layout, layout=_LazySequence),
    "batches": partial(_check_groups, groups=_GROUPS),
    "order": partial(_check_groups, groups=[[3, 0, 5, 1, 4, 2]]),
    "refit": _check_refit,
    "fit_predict": _check_fit_predict,
    "labels_of_good_images": partial(_check_labels, n_bad=0),
    "labels_kept_out": partial(_check_labels, n_bad=3),
    "decision": _check_decision,
    "anomaly_map": _check_map,
    "predict_mask": _check_mask,
    **{f"wrong_{name}": partial(_check_error, wrong=w) for name, w in _WRONG.items()},
    "input_kept": partial(_check_unchanged, things="X by"),
    "generators_kept": partial(_check_unchanged, things=r"\S*random by"),
    "state_kept": partial(_check_unchanged, things=r"(?!X by|\S*random by)"),
    "pickle": partial(_check_storage, storage=_PICKLE),
    "joblib": partial(_check_storage, storage=(joblib.dump, joblib.load)),
    "storage": _check_storage,
    "threads": _check_threads,
    "device": _check_device,
}
