"""ImageDetector: what detectors over images share once they are fitted."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.utils.validation import check_is_fitted, validate_data

from skad import __version__
from skad.common.labels import are_labels, check_labels, not_labels, places_of_good
from skad.common.warnings import warn
from skad.detectors.drift import (
    Statistics,
    image_statistics,
    statistics_to_keep,
    warn_if_unlike,
)
from skad.detectors.fitted import (
    Fitted,
    FittedAttributes,
    Learned,
    Threshold,
    no_threshold,
)
from skad.detectors.parameters import generator
from skad.detectors.progress import CallbackSupportMixin, Progress, following
from skad.detectors.split import (
    NONE,
    Digests,
    Places,
    Split,
    calibration_places,
    check_groups,
    one_of_each_label,
    train_calibration_split,
)
from skad.images.inputs import Images, as_images, frame_sizes
from skad.images.several_sizes import (
    as_resized_images,
    joined,
    maps_in_given_sizes,
    rebuilt_in_given_sizes,
)
from skad.inspection.regions import above
from skad.inspection.verdict import in_frames, judge
from skad.threshold.conformal import (
    check_metric,
    conformal_p_value,
    labelled_threshold,
    target_threshold,
)


@dataclass(frozen=True)
class FitImages:
    """The images of a fit, and what each is for."""

    images: Images
    good: Places  # those not labelled -1
    split: Split  # of the good ones
    statistics: Statistics | None  # of the good ones
    seed: int  # of the training
    before: Fitted | None  # what a warm start goes on from
    known: Digests  # of the images that trained it


class ImageDetector(
    FittedAttributes, CallbackSupportMixin, OutlierMixin, BaseEstimator
):
    """Scores, maps and one threshold; `fit` of a subclass ends with `_finish_fit`."""

    def __sklearn_tags__(self):
        """Tell scikit-learn what X may be."""
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def score_samples(self, X):
        """Return minus the maxima of the anomaly maps, (n,) float64, <= 0.

        Higher = more normal. This and other methods take what `fit` takes. They warn if
        most images differ from the good ones in light, bit depth or channel order.
        """
        return _scores(*self._check_images(X))

    def fit_predict(self, X, y=None, **fit_params):
        """Return ``fit(X, y).predict(X)``, (n,) int; fit skips images labelled -1."""
        return self.fit(X, y, **fit_params).predict(X)

    def decision_function(self, X):
        """Return ``score_samples(X) - offset_``, (n,) float64: negative = anomalous."""
        fitted, images, threshold = self._check_judged(X)
        return _scores(fitted, images) - threshold.offset

    def predict(self, X):
        """Return +1 for good images and -1 for anomalous ones, (n,) int."""
        return np.where(self.decision_function(X) >= 0, 1, -1)

    def score(self, X, y):
        """Return the balanced accuracy of `predict`, in [0, 1].

        y is (n,), +1 good and -1 anomalous; other numbers give NaN with a warning. If
        all labels are the same, it is the accuracy.
        """
        known = are_labels(y)
        predicted = self.predict(X)
        if not known:
            warn(not_labels(y), UndefinedMetricWarning)
            return float("nan")
        labels = check_labels(y, len(predicted))
        recalls = [np.mean(predicted[labels == k] == k) for k in np.unique(labels)]
        return float(np.mean(recalls))

    def p_value(self, X):
        """Return conformal p-values of images, (n,) float64 in (0, 1].

        The p-value of a good image is at most a with a probability of at most a.
        """
        fitted, images, threshold = self._check_judged(X)
        return conformal_p_value(_scores(fitted, images), threshold.calibration_scores)

    def anomaly_map(self, X):
        """Return the anomaly score of every pixel, (n, H, W) float32, >= 0.

        Higher = more anomalous, on one scale for all images. For images of several
        sizes, this, `predict_mask` and `reconstruct` return lists of n arrays.
        """
        return joined(list(_maps(*self._check_images(X))))

    def predict_mask(self, X):
        """Return which pixels are anomalous: (n, H, W), ``map > pixel_threshold_``."""
        fitted, images, threshold = self._check_judged(X)
        maps = _maps(fitted, images)
        return joined([above(some, -threshold.offset) for some in maps])

    def anomaly_regions(self, X):
        """Return the connected anomalous regions of each image, highest peak first.

        n lists of `Region`, in pixels of the images as given; for an `ImageFolder`, of
        its files.
        """
        return [result.regions for result in self.inspect(X)]

    def inspect(self, X):
        """Return score, verdict, regions and map of each image: n `InspectionResult`.

        ``regions`` are those of `anomaly_regions`; ``anomaly_map`` has X's resolution.
        """
        fitted, images, threshold = self._check_judged(X)
        offset, scores = threshold.offset, threshold.calibration_scores
        maps = _maps(fitted, images)
        results = [judge(one, offset, scores) for some in maps for one in some]
        return in_frames(results, frame_sizes(X))

    def reconstruct(self, X):
        """Return the autoencoder's reconstructions, in the shape and type of X."""
        fitted, images = self._check_images(X)
        rebuilt = fitted.mapper.over(images, fitted.mapper.reconstruct)
        given = list(rebuilt_in_given_sizes(rebuilt, images))
        return joined(given, dtype=images.dtype)  # in its byte order, too

    def calibrate(
        self,
        X,
        y=None,
        *,
        groups=None,
        metric="balanced_accuracy",
        cost_miss=1,
        cost_false_alarm=1,
    ):
        """Set a new threshold, without training.

        Parameters
        ----------
        X : as in `fit`
            Images that the network was not trained on.
        y : array-like of shape (n,), default=None
            None: all images are good, and the threshold promises `target_fpr`. Labels
            +1 and -1: it optimises `metric`, and `labelled_threshold_` has the rates.
        groups : array-like of shape (n,), default=None
            One image of each group counts, drawn at random; with y, one of each label.
            None: without y, near copies form groups.
        metric : {"balanced_accuracy", "f1", "cost"}, default="balanced_accuracy"
        cost_miss, cost_false_alarm : float, default=1
            For ``metric="cost"``; >= 0, and not both 0.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If images are unlike those of `fit`; if labels are not +1 and -1, or all the
            same; if groups, metric or costs are invalid.
        """
        self._validate_params()
        fitted, images = self._check_images(X)
        check_metric(metric, cost_miss, cost_false_alarm)
        labels = None if y is None else check_labels(y, len(images))
        groups = check_groups(groups, len(images))
        rng, roi = generator(self.random_state), fitted.mapper.roi
        images.measure = partial(image_statistics, roi=roi)
        if labels is None:
            places = calibration_places(images, fitted.trained_on, rng, groups, roi)
        else:
            places = one_of_each_label(labels, groups, rng)
        scores, means = fitted.mapper.score_images(images.subset(places))
        warn_if_unlike(images.measured.values(), fitted.threshold)
        if labels is None:
            threshold = self._promising(scores, means)
        else:
            best = labelled_threshold(
                scores, labels[places], metric, cost_miss, cost_false_alarm
            )
            good = labels[places] == 1
            threshold = _threshold(best.offset, np.nan, scores[good], means[good])
            threshold, places = replace(threshold, labelled=best), places[good]
        kept = statistics_to_keep(images.measured[place] for place in places)
        self._fitted = replace(fitted, threshold=replace(threshold, statistics=kept))
        return self

    def retarget(self, target_fpr):
        """Set `target_fpr` and its threshold, from the same calibration images."""
        fitted, old = self.fitted, self._threshold
        self.set_params(contamination="auto", target_fpr=target_fpr)
        self._validate_params()
        new = self._promising(old.calibration_scores, old.mean_map, old.is_cross)
        new = replace(new, statistics=old.statistics)
        self._fitted = replace(fitted, threshold=new)
        return self

    # --- For the `fit` of a subclass ----------------------------------------------

    def _images_to_fit(self, X: Any) -> Images:
        validate_data(self, X, skip_check_array=True, ensure_2d=False)  # column names
        return as_images(X, self.image_shape)

    def _split(
        self, images: Images, y: Any, groups: Any, share: float, roi: Any = None
    ) -> FitImages:
        """Split the good images: this share of their groups calibrates."""
        n = len(images)
        good = np.arange(n) if y is None else places_of_good(y, n)
        groups = check_groups(groups, n)
        rng = generator(self.random_state)
        before = self._fitted if self.warm_start and hasattr(self, "_fitted") else None
        known = NONE if before is None else before.trained_on
        # A copy: a memory tells trainings apart by the images alone.
        measure = partial(image_statistics, roi=roi)
        read = replace(images, measure=measure, measured={})
        split = train_calibration_split(
            read, good, known, share, rng, groups=groups, roi=roi
        )
        statistics = statistics_to_keep(read.measured.values())
        seed = rng.randint(2**31 - 1)
        return FitImages(images, good, split, statistics, seed, before, known)

    def _following(
        self, X: Any, y: Any, n_epochs: int
    ) -> AbstractContextManager[Progress | None]:
        """Follow a training, if anybody listens; else there is no progress."""
        if self.verbose or hasattr(self, "_skl_callbacks"):
            return following(self, X, y, n_epochs)
        return nullcontext()

    def _finish_fit(self, X: Any, data: FitImages, learned: Learned) -> None:
        """Set the threshold, and keep all that was learned."""
        scores, means = learned.calibration_scores, learned.calibration_means
        if self.contamination == "auto":
            threshold = self._promising(scores, means, learned.is_cross)
        else:
            of_all, _ = learned.mapper.score_images(data.images.subset(data.good))
            offset = np.percentile(of_all, 100 * float(self.contamination))
            threshold = _threshold(offset, np.nan, scores, means)
        source = getattr(X, "folder", None)
        self._fitted = Fitted(
            learned.mapper,
            data.images.format,
            learned.history,
            trained_on=np.union1d(data.known, data.split.trained_on),
            provenance={
                "fitted_at": datetime.now(UTC).isoformat(timespec="seconds"),
                "n_images": len(data.images),
                "n_training": len(data.split.training),
                "n_calibration": len(data.split.calibration),
                "source": None if source is None else str(source),
                "skad_version": __version__,
                "torch_version": str(torch.__version__),
            },
            threshold=replace(threshold, statistics=data.statistics),
        )

    def _promising(self, scores: Any, means: Any, is_cross: bool = False) -> Threshold:
        """Return the threshold by `target_fpr`, with the rate that it does promise."""
        offset, promised = target_threshold(scores, self.target_fpr, is_cross)
        threshold = _threshold(offset, promised, scores, means)
        return replace(threshold, is_cross=is_cross)

    def __sklearn_is_fitted__(self):
        """Tell scikit-learn that there is something to score with."""
        return hasattr(self, "_fitted")

    def _check_judged(self, X: Any) -> tuple[Fitted, Images, Threshold]:
        """Return what is fitted now, X, checked, and the threshold, if there is one."""
        fitted, images = self._check_images(X)
        if fitted.threshold is None:
            raise no_threshold()
        return fitted, images, fitted.threshold

    def _check_images(self, X: Any) -> tuple[Fitted, Images]:
        """Return what is fitted now, and X, checked against its images."""
        check_is_fitted(self)
        fitted = self._fitted
        validate_data(self, X, reset=False, skip_check_array=True, ensure_2d=False)
        format = fitted.format
        if format.any_size:
            return fitted, as_resized_images(X, format.image_shape[:2], format)
        return fitted, as_images(X, None, format)


def _threshold(offset: Any, promised: float, scores: Any, means: Any) -> Threshold:
    return Threshold(float(offset), np.sort(scores), float(np.mean(means)), promised)


def _scores(fitted: Fitted, images: Images) -> np.ndarray:
    images.measure = partial(image_statistics, roi=fitted.mapper.roi)
    scores, _ = fitted.mapper.score_images(images)
    warn_if_unlike(images.measured.values(), fitted.threshold)
    return scores


def _maps(fitted: Fitted, images: Images) -> Iterator[np.ndarray]:
    """Yield the maps (k, H, W) of some images each."""
    images.measure = partial(image_statistics, roi=fitted.mapper.roi)
    maps = fitted.mapper.over(images, fitted.mapper)
    yield from maps_in_given_sizes(maps, images)
    warn_if_unlike(images.measured.values(), fitted.threshold)
