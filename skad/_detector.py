"""PatchAutoencoderDetector: a scikit-learn outlier detector over images."""

from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from joblib import Memory
from skimage.measure import label, regionprops
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.metrics import balanced_accuracy_score
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import (
    _check_feature_names,
    _check_n_features,
    check_array,
    check_is_fitted,
    check_memory,
)
from tqdm.auto import tqdm

from skad._inputs import (
    Format,
    Images,
    as_array,
    check_finite,
    check_format,
    format_of,
    is_lazy,
)
from skad._learning import Settings, learn, score_images
from skad._threshold import (
    conformal_p_value,
    conformal_threshold,
    labelled_threshold,
)


class Region(NamedTuple):
    """A connected part of an image that deviates."""

    bbox: tuple[int, int, int, int]  # row_min, col_min, row_max, col_max, half-open
    area: int  # pixels
    peak: float  # the largest value of the map
    centroid: tuple[float, float]  # row, column


class PatchAutoencoderDetector(OutlierMixin, BaseEstimator):
    """Learn from good images what good looks like; find what deviates, and where.

    A small convolutional network is trained from scratch on the good images: an
    autoencoder, and a decoder that learns to mark defects which are simulated in them.
    Three kinds of evidence, what that decoder says, how far the reconstruction is off
    and how unusual the encoder's features are, make one anomaly map.

    Parameters
    ----------
    patch_size : int or tuple of int, default=40
        Size of the largest defect that one expects, in pixels at the working
        resolution. A tuple means defects of several scales.
    image_size : int or (height, width), default=None
        Working resolution; None = as given. Maps come back at the input's resolution.
    image_shape : (H, W) or (H, W, C), default=None
        Only for 2-D input: what a row of X is flattened from. None means that a row of
        p features is an image of 1 x p pixels with one channel.
    epochs : int, default=75
        Passes over the training images. An epoch shows at least 64 images (fewer, if
        images have less than 16,384 pixels), so that few images are shown more often.
    batch_size : int, default=16
    learning_rate : float, default=0.003
        Peak of the one-cycle schedule.
    validation_fraction : float in (0, 1), default=0.3
        Share of the good images that is held out from training and used for nothing
        but the threshold.
    contamination : "auto" or float in (0, 0.5], default="auto"
        "auto": the threshold follows from `target_fpr`. A float: this share of the
        images given to `fit` is flagged.
    target_fpr : float in (0, 1), default=0.05
        Promised rate of false alarms: a new good image is flagged with at most this
        probability, if it is exchangeable with the held-out ones.
    roi : ndarray of bool of shape (H, W), default=None
        Where to look, at the resolution of the input. Pixels outside count nowhere:
        not in training, score, threshold or map.
    device : str, default="auto"
        "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1", …
    memory : None, str or joblib.Memory, default=None
        Where trainings are kept: equal data and equal training parameters are trained
        once, so that a search over thresholds trains nothing again. Needs an int
        `random_state`.
    warm_start : bool, default=False
        A further `fit` goes on from the fitted network.
    random_state : int, RandomState instance or None, default=None
        The only source of randomness.
    verbose : int, default=0
        1 = a progress bar with the loss.

    Attributes
    ----------
    network_ : torch.nn.Module
    offset_ : float
        ``decision_function = score_samples - offset_``.
    pixel_threshold_ : float
        ``-offset_``: a pixel deviates where the anomaly map is larger.
    calibration_scores_ : ndarray of shape (m,)
        Sorted scores of the good images that set the threshold.
    mean_map_ : float
        Mean value of the maps of these images.
    history_ : list of dict
        One an epoch: "epoch", "loss", "reconstruction_loss", "anomaly_loss".
    labelled_threshold_ : LabelledThreshold
        Only after `calibrate` with labels: the rates at the threshold, and their
        confidence intervals.
    image_shape_in_ : tuple
        (H, W) or (H, W, C) of the training images.
    n_features_in_ : int
        Numbers in an image.

    Examples
    --------
    >>> import numpy as np
    >>> from skad import PatchAutoencoderDetector
    >>> rng = np.random.default_rng(0)
    >>> good = rng.integers(90, 110, (40, 32, 32), dtype=np.uint8)
    >>> detector = PatchAutoencoderDetector(patch_size=8, random_state=0).fit(good)
    >>> bad = good[:1].copy()
    >>> bad[0, 10:16, 20:26] = 250
    >>> detector.predict(bad)
    array([-1])
    >>> detector.anomaly_map(bad).shape
    (1, 32, 32)
    """

    _parameter_constraints: ClassVar[dict] = {
        "patch_size": [Interval(Integral, 2, None, closed="left"), tuple, list],
        "image_size": [Interval(Integral, 1, None, closed="left"), tuple, list, None],
        "image_shape": [tuple, list, None],
        "epochs": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "contamination": [StrOptions({"auto"}), Interval(Real, 0, 0.5, closed="right")],
        "target_fpr": [Interval(Real, 0, 1, closed="neither")],
        "roi": ["array-like", None],
        "device": [str],
        "memory": [str, Memory, None],
        "warm_start": ["boolean"],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        patch_size=40,
        *,
        image_size=None,
        image_shape=None,
        epochs=75,
        batch_size=16,
        learning_rate=0.003,
        validation_fraction=0.3,
        contamination="auto",
        target_fpr=0.05,
        roi=None,
        device="auto",
        memory=None,
        warm_start=False,
        random_state=None,
        verbose=0,
    ):
        self.patch_size = patch_size
        self.image_size = image_size
        self.image_shape = image_shape
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.validation_fraction = validation_fraction
        self.contamination = contamination
        self.target_fpr = target_fpr
        self.roi = roi
        self.device = device
        self.memory = memory
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self):
        """Tell scikit-learn what X may be."""
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def fit(self, X, y=None):
        """Train on good images and set the threshold.

        Parameters
        ----------
        X : array-like of shape (n, H, W), (n, H, W, C) or (n, p), or lazy sequence
            Good images. uint8 and uint16 are scaled by their type; other numbers are
            taken as they are and standardised.
        y : None or array-like of shape (n,)
            Where all labels are +1 or -1, the images labelled -1 are left out. Any
            other y is ignored.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For a parameter out of its range; for fewer than 2 good images; for images
            with NaN or infinity, of differing shapes, or without batch axis.
        """
        self._validate_params()
        images = self._check_images(X, reset=True)
        good = _good(y, len(images))
        size = images.format.image_shape[:2]
        settings, roi = self._settings(size), _check_roi(self.roi, size)
        start = self._start(images.format)
        random_state = check_random_state(self.random_state)
        training, calibration = self._split(random_state.permutation(good))
        seed = random_state.randint(2**31 - 1)
        learned = self._learn(images, training, calibration, settings, seed, roi, start)
        self._set_fitted(learned.mapper, images.format, learned.history)
        self._calibrate_on(learned.calibration_scores, learned.calibration_means)
        if self.contamination != "auto":
            scores, _ = score_images(self._mapper, images.subset(good))
            self._set_offset(np.percentile(scores, 100 * self.contamination))
        return self

    def score_samples(self, X):
        """Return how normal images look: minus the maximum of the anomaly map.

        Parameters
        ----------
        X : array-like or lazy sequence of n images, as in `fit`

        Returns
        -------
        scores : ndarray of shape (n,), float64
            <= 0; higher = more normal.
        """
        images = self._check_images(X)
        return score_images(self._mapper, images)[0]

    def decision_function(self, X):
        """Return ``score_samples(X) - offset_``, (n,) float64: negative = anomalous."""
        return self.score_samples(X) - self.offset_

    def predict(self, X):
        """Return +1 for good images and -1 for anomalous ones, (n,) int."""
        return np.where(self.decision_function(X) >= 0, 1, -1)

    def score(self, X, y):
        """Return the balanced accuracy of `predict`, in [0, 1].

        Parameters
        ----------
        X : array-like or lazy sequence of n images, as in `fit`
        y : array-like of shape (n,)
            +1 good, -1 anomalous.
        """
        return float(balanced_accuracy_score(_check_labels(y), self.predict(X)))

    def p_value(self, X):
        """Return conformal p-values of images, (n,) float64 in (0, 1].

        The share of held-out good images, with the image itself counted among them,
        that look no better than it. Among good images it is at most a with a
        probability of at most a.
        """
        return conformal_p_value(self.score_samples(X), self.calibration_scores_)

    def anomaly_map(self, X):
        """Return how much every pixel deviates, on one absolute scale.

        Parameters
        ----------
        X : array-like or lazy sequence of n images, as in `fit`

        Returns
        -------
        maps : ndarray of shape (n, H, W), float32
            >= 0; higher = worse; about 1 where good images usually peak.
        """
        images = self._check_images(X)
        return np.concatenate(list(self._mapper.over(images, self._mapper)))

    def predict_mask(self, X):
        """Return where images deviate: (n, H, W) bool, ``map > pixel_threshold_``."""
        return self.anomaly_map(X) > np.float64(self.pixel_threshold_)

    def anomaly_regions(self, X):
        """Return the connected regions that deviate, the worst first.

        Parameters
        ----------
        X : array-like or lazy sequence of n images, as in `fit`

        Returns
        -------
        regions : list of n lists of Region
            Each with ``bbox`` (row_min, col_min, row_max, col_max; half-open),
            ``area`` in pixels, ``peak`` and ``centroid`` (row, column).
        """
        threshold = np.float64(self.pixel_threshold_)
        return [_regions(amap, amap > threshold) for amap in self.anomaly_map(X)]

    def reconstruct(self, X):
        """Return what the autoencoder makes of images, in the shape and type of X."""
        images = self._check_images(X)
        dtype = images.dtype
        rebuilt = np.concatenate(
            list(self._mapper.over(images, self._mapper.reconstruct))
        )
        if dtype in (np.uint8, np.uint16):
            rebuilt = rebuilt * np.iinfo(dtype).max
        if dtype.kind in "iu":
            limits = np.iinfo(dtype)
            rebuilt = np.clip(np.round(rebuilt), limits.min, limits.max)
        return rebuilt.astype(dtype).reshape(len(images), *images.format.shape)

    def calibrate(
        self, X, y=None, *, metric="balanced_accuracy", cost_miss=1, cost_false_alarm=1
    ):
        """Set the threshold anew; nothing is trained.

        Parameters
        ----------
        X : array-like or lazy sequence of n images, as in `fit`
            Images that training has not seen.
        y : None or array-like of shape (n,)
            None: all images are good, and the threshold keeps the promise of
            `target_fpr`. Labels +1 (good) and -1 (anomalous): the threshold that is
            best by `metric`.
        metric : {"balanced_accuracy", "f1", "cost"}, default="balanced_accuracy"
        cost_miss, cost_false_alarm : float, default=1
            What an overlooked anomaly and a false alarm cost, for ``metric="cost"``.

        Returns
        -------
        self
            With labels, `labelled_threshold_` has the rates and their confidence
            intervals.
        """
        scores, means = score_images(self._mapper, self._check_images(X))
        if y is None:
            self._calibrate_on(scores, means)
            return self
        found = labelled_threshold(scores, y, metric, cost_miss, cost_false_alarm)
        good = np.asarray(y) == 1
        self._calibrate_on(scores[good], means[good])
        self.labelled_threshold_ = found
        self._set_offset(found.offset)
        return self

    @property
    def network_(self):
        """The trained network, a torch.nn.Module in evaluation mode."""
        return self._mapper.network

    def _set_fitted(self, mapper, format: Format, history: list[dict]) -> None:
        self._mapper = mapper
        self._format = format
        self.history_ = history
        self.image_shape_in_ = format.shape
        self.n_features_in_ = int(np.prod(format.image_shape))

    def _calibrate_on(self, scores, means):
        self.calibration_scores_ = np.sort(scores)
        self.mean_map_ = float(np.mean(means))
        if hasattr(self, "labelled_threshold_"):
            del self.labelled_threshold_
        self._set_offset(conformal_threshold(scores, self.target_fpr))

    def _set_offset(self, offset):
        self.offset_ = float(offset)
        self.pixel_threshold_ = -self.offset_

    def _check_images(self, X: Any, *, reset: bool = False) -> Images:
        """Check X against the rules, and against the fitted images unless reset."""
        if not reset:
            check_is_fitted(self)
        if is_lazy(X):
            if len(X) == 0:
                raise ValueError("X is an empty sequence: pass at least one image.")
            source: Any = X
            got = format_of(np.asarray(X[0])[None], self.image_shape)
        else:
            source = check_array(
                as_array(X), dtype="numeric", allow_nd=True, ensure_all_finite=False
            )
            if source.ndim == 2:
                _check_feature_names(self, X, reset=reset)
                _check_n_features(self, source, reset=reset)
            got = format_of(source, self.image_shape)
            check_finite(source)
        if not reset:
            check_format(got, self._format)
        return Images(source, got)

    def _settings(self, size: tuple[int, int]) -> Settings:
        working = _sizes("image_size", self.image_size, 2, least=1) or size
        return Settings(
            patch_sizes=_sizes("patch_size", self.patch_size, None, least=2),
            working_size=working,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            device=_resolve_device(self.device),
        )

    def _start(self, format: Format) -> dict | None:
        """Return the state of the network that training goes on from, if it does."""
        if not (self.warm_start and hasattr(self, "_mapper")):
            return None
        channels = format.image_shape[2], self._format.image_shape[2]
        if channels[0] != channels[1]:
            raise ValueError(
                f"warm_start=True goes on with a network for {channels[1]} channels; "
                f"X has {channels[0]}. Set warm_start=False to start anew."
            )
        return self.network_.state_dict()

    def _split(self, good: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Divide the shuffled places of good images into training and calibration."""
        n = len(good)
        if n < 2:
            raise ValueError(
                "fit needs at least 2 good images, one to train and one to calibrate "
                f"the threshold; got n_samples = {n}. Add images."
            )
        held_out = min(max(1, round(self.validation_fraction * n)), n - 1)
        return np.sort(good[held_out:]), np.sort(good[:held_out])

    def _learn(self, images, training, calibration, settings, seed, roi, start):
        """Train, or take from `memory` what was trained before."""
        memory = check_memory(self.memory)
        cached = learn if start else memory.cache(learn, ignore=["progress"])
        with tqdm(disable=not self.verbose, unit="step", desc="training") as bar:

            def progress(i: int, n: int, losses: dict[str, float]) -> None:
                bar.total = n
                bar.set_postfix(loss=f"{losses['loss']:.3f}", refresh=False)
                bar.update()

            return cached(
                images, training, calibration, settings, seed, roi, start, progress
            )

    def __setstate__(self, state):
        """Unpickle; the network comes to the device that this machine has."""
        super().__setstate__(state)
        if "_mapper" in state:
            self._mapper.to(device_at_hand(self.device))


def _good(y: Any, n: int) -> np.ndarray:
    """Places of the images that are not labelled -1; a y without labels is ignored."""
    everywhere = np.arange(n)
    if y is None:
        return everywhere
    labels = np.asarray(y)
    if labels.shape != (n,) or not np.isin(labels, (-1, 1)).all():
        return everywhere
    return everywhere[labels == 1]


def _check_labels(y: Any) -> np.ndarray:
    labels = np.asarray(y)
    if not np.isin(labels, (-1, 1)).all():
        raise ValueError(
            "Labels must be +1 (good) or -1 (anomalous); got "
            f"{np.unique(labels)[:5]}. If 1 means anomalous, pass "
            "np.where(y == 1, -1, 1)."
        )
    return labels


def _sizes(name: str, value: Any, length: int | None, *, least: int) -> Any:
    """Turn an int or a sequence of ints into a tuple of ints; None stays None."""
    if value is None:
        return None
    sizes = (value,) * (length or 1) if isinstance(value, Integral) else tuple(value)
    valid = all(isinstance(s, Integral) and int(s) >= least for s in sizes)
    if not valid or len(sizes) != (length or max(len(sizes), 1)):
        form = "two ints (height, width)" if length else "one or more ints"
        raise ValueError(
            f"{name} must be an int or a tuple of {form}, each >= {least}; got "
            f"{value!r}."
        )
    return tuple(int(s) for s in sizes)


def _check_roi(roi: Any, size: tuple[int, int]) -> np.ndarray | None:
    if roi is None:
        return None
    roi = np.asarray(roi)
    if roi.dtype != bool or roi.shape != size or not roi.any():
        raise ValueError(
            f"roi must be a bool array of the images' shape {size} with some True; got "
            f"type {roi.dtype}, shape {roi.shape}, {int(np.count_nonzero(roi))} true."
        )
    return roi


def _resolve_device(device: str) -> str:
    """Turn "auto" into a device; refuse what this machine does not have."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device)
    except RuntimeError as error:
        raise ValueError(
            f'device must be "auto", "cpu", "cuda" or "cuda:N"; got {device!r}.'
        ) from error
    if kind.type == "cuda" and (kind.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device={device!r}, but this machine has {torch.cuda.device_count()} CUDA "
            'devices. Use device="auto" or "cpu".'
        )
    return device


def device_at_hand(device: str) -> str:
    """Return this device, or the CPU where there is no such device."""
    try:
        return _resolve_device(device)
    except ValueError:  # stored on a machine with a GPU, loaded on one without
        return "cpu"


def _regions(amap: np.ndarray, mask: np.ndarray) -> list[Region]:
    found = [
        Region(
            bbox=(p.bbox[0], p.bbox[1], p.bbox[2], p.bbox[3]),
            area=int(p.area),
            peak=float(p.intensity_max),
            centroid=(float(p.centroid[0]), float(p.centroid[1])),
        )
        for p in regionprops(label(mask, connectivity=2), intensity_image=amap)
    ]
    return sorted(found, key=lambda region: -region.peak)
