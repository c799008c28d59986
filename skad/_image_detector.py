"""ImageDetector: all that detectors over images share once they are fitted."""

from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.exceptions import NotFittedError, UndefinedMetricWarning
from sklearn.utils import estimator_html_repr
from sklearn.utils.validation import (
    _check_feature_names,
    _get_feature_names,
    check_is_fitted,
)

from skad._division import NONE, Digests, distinct
from skad._html import fitted_html
from skad._inputs import Format, Images, as_given, as_images
from skad._inspection import judge, regions_in_frames
from skad._labels import are_labels, check_labels, not_labels
from skad._learning import Learned, score_images
from skad._parameters import device_at_hand
from skad._progress import CallbackSupportMixin
from skad._regions import above
from skad._several_sizes import (
    as_resized_images,
    joined,
    maps_in_given_sizes,
    rebuilt_in_given_sizes,
)
from skad._threshold import (
    check_metric,
    conformal_p_value,
    conformal_threshold,
    labelled_threshold,
    promised_fpr,
)
from skad._warnings import warn

_OF_THE_THRESHOLD = {
    "offset_",
    "pixel_threshold_",
    "calibration_scores_",
    "mean_map_",
    "promised_fpr_",
}


class ImageDetector(CallbackSupportMixin, OutlierMixin, BaseEstimator):
    """Scores, maps and one threshold, from something that turns images into maps.

    A subclass has the parameters `contamination`, `target_fpr` and `device`, and a
    `fit` that ends with `_take_over`.
    """

    def __sklearn_tags__(self):
        """Tell scikit-learn what X may be."""
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def score_samples(self, X):
        """Return minus the maxima of the anomaly maps, (n,) float64, <= 0.

        Higher = more normal. X is what `fit` takes, here as in the other methods:
        n images as an array, as rows or as a lazy sequence.
        """
        images = self._check_images(X)
        return score_images(self._mapper, images)[0]

    def fit_predict(self, X, y=None, **fit_params):
        """Fit, and return +1 for good images and -1 for anomalous ones, (n,) int.

        As ``fit(X, y).predict(X)``: images that y labels -1 teach nothing.
        """
        return self.fit(X, y, **fit_params).predict(X)

    def decision_function(self, X):
        """Return ``score_samples(X) - offset_``, (n,) float64: negative = anomalous."""
        return self.score_samples(X) - self.offset_

    def predict(self, X):
        """Return +1 for good images and -1 for anomalous ones, (n,) int."""
        return np.where(self.decision_function(X) >= 0, 1, -1)

    def score(self, X, y):
        """Return the balanced accuracy of `predict`, in [0, 1].

        y is (n,), +1 good and -1 anomalous; NaN with a warning for other labels, and a
        ValueError where they are names or one is missing. Where all are of one kind, as
        in a fold of a search: the share that is told right.
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

        The share of held-out good images, with the image itself counted among them,
        that look no better than it. Among good images it is at most a with a
        probability of at most a.
        """
        return conformal_p_value(self.score_samples(X), self.calibration_scores_)

    def anomaly_map(self, X):
        """Return how much every pixel deviates, (n, H, W) float32, >= 0.

        Higher = worse, on one absolute scale, in the unit that the class names. Images
        of several sizes have a list of n arrays (H, W), here as from `predict_mask` and
        `reconstruct`.
        """
        return joined(list(self._maps(X)))

    def predict_mask(self, X):
        """Return where images deviate: (n, H, W) bool, ``map > pixel_threshold_``."""
        maps = self._maps(X)
        threshold = self.pixel_threshold_
        return joined([above(some, threshold) for some in maps])

    def anomaly_regions(self, X):
        """Return the connected regions that deviate, the worst first.

        Returns
        -------
        regions : list of n lists of Region
            Each with ``bbox`` (row_min, col_min, row_max, col_max; half-open),
            ``area`` in pixels, ``peak`` and ``centroid`` (row, column): as in
            `inspect`, in pixels of the images as given or, of an `ImageFolder`, of the
            files. `Region.scaled` brings them to another size.
        """
        found = [(r.regions, r.anomaly_map.shape) for r in self._judged(X)]
        regions, sizes = zip(*found, strict=True)
        return regions_in_frames(X, regions, sizes)

    def inspect(self, X):
        """Return all that there is to say about each image.

        Returns
        -------
        results : list of n InspectionResult
            Each with ``score``, ``decision``, ``p_value``, ``verdict`` ("good" or
            "anomalous"), ``regions`` and ``anomaly_map`` (H, W), the map at the
            resolution of X.

            Regions are in pixels of the images as given: resized ones are not known
            to be so. An `ImageFolder` that resizes knows the sizes of its files, and
            regions are in pixels of these. For images that you resized, as with
            `resize_image`, ``region.scaled(from_size, to_size)`` is the way back.

        Raises
        ------
        NotFittedError
            If the detector has no threshold yet.
        """
        results = list(self._judged(X))
        sizes = [result.anomaly_map.shape for result in results]
        regions = regions_in_frames(X, [r.regions for r in results], sizes)
        return [
            replace(result, regions=some)
            for result, some in zip(results, regions, strict=True)
        ]

    def _judged(self, X):
        """Return an iterator over what is said of each image, in pixels of the map."""
        maps = self._maps(X)
        offset, scores = self.offset_, self.calibration_scores_
        return (judge(one, offset, scores) for some in maps for one in some)

    def reconstruct(self, X):
        """Return what the autoencoder makes of images, in the shape and type of X."""
        images = self._check_images(X)
        rebuilt = self._mapper.over(images, self._mapper.reconstruct)
        if images.given_shapes is None:
            given = [as_given(batch, images) for batch in rebuilt]
        else:
            given = list(rebuilt_in_given_sizes(rebuilt, images))
        return joined(given, dtype=images.dtype)  # in its byte order, too

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
            What an overlooked anomaly and a false alarm cost, for ``metric="cost"``:
            >= 0, and not both 0.

        Returns
        -------
        self
            With labels, `labelled_threshold_` has the rates and their confidence
            intervals.

        Raises
        ------
        ValueError
            For images unlike those of `fit`; for labels that are not +1 and -1, of
            another number of images, or of one kind alone; for a `metric` or a cost
            that is none.

        Warns
        -----
        UserWarning
            Where, without labels, the images are too few to promise `target_fpr`, or
            copies of others.
        """
        images = self._check_images(X)
        check_metric(metric, cost_miss, cost_false_alarm)
        labels = None if y is None else check_labels(y, len(images))
        if labels is None:
            kept = images.subset(distinct(images))
            scores, means = score_images(self._mapper, kept)
            offset, promised = self._promising(scores)
            self._set_calibrated(offset, promised, scores, means)
            return self
        scores, means = score_images(self._mapper, images)
        found = labelled_threshold(scores, labels, metric, cost_miss, cost_false_alarm)
        good = labels == 1
        self._set_calibrated(found.offset, np.nan, scores[good], means[good])
        self.labelled_threshold_ = found
        return self

    @property
    def pixel_threshold_(self):
        """What a pixel's map exceeds where it deviates: ``-offset_``."""
        return -self.offset_

    @property
    def network_(self):
        """The trained network, a torch.nn.Module in evaluation mode."""
        return self._mapper.network

    @property
    def _goes_on(self) -> bool:
        """Tell whether a fit goes on from the network of an earlier one."""
        return self.warm_start and hasattr(self, "_mapper")

    def _trained_before(self) -> Digests:
        """Return the digests of the images that the network of a fit knows already."""
        return self._trained_on if self._goes_on else NONE

    def _take_over(
        self, X: Any, images: Images, good, learned: Learned, trained_on: Digests
    ) -> None:
        """Keep what was learned, and set the threshold: the end of a fit.

        `good` are the places of the images that are not labelled -1, `trained_on` the
        digests of those that it was learned from.
        """
        scores = learned.calibration_scores
        if self.contamination == "auto":
            offset, promised = self._promising(scores)
        else:
            all_scores, _ = score_images(learned.mapper, images.subset(good))
            offset = np.percentile(all_scores, 100 * self.contamination)
            promised = np.nan
        trained_on = np.union1d(self._trained_before(), trained_on)
        self._set_fitted(learned.mapper, images.format, learned.history, trained_on)
        _check_feature_names(self, X, reset=True)
        self._set_calibrated(offset, promised, scores, learned.calibration_means)

    def _promising(self, scores):
        """Return the offset by `target_fpr`, and the rate that it does promise."""
        offset = conformal_threshold(scores, self.target_fpr)
        return offset, promised_fpr(len(scores), self.target_fpr)

    def _set_fitted(
        self, mapper, format: Format, history: list[dict], trained_on: Digests = NONE
    ) -> None:
        self.__dict__.pop("feature_names_in_", None)
        self._mapper = mapper
        self._trained_on = trained_on
        self._format = format
        self.history_ = history
        self.image_shape_in_ = format.shape
        self.n_features_in_ = int(np.prod(format.image_shape))

    def _set_calibrated(self, offset, promised, scores, means):
        self._forget_threshold()
        self.promised_fpr_ = promised
        self.calibration_scores_ = np.sort(scores)
        self.mean_map_ = float(np.mean(means))
        self.offset_ = float(offset)

    def _forget_threshold(self):
        for name in {*_OF_THE_THRESHOLD, "labelled_threshold_"} & vars(self).keys():
            delattr(self, name)

    def _maps(self, X):
        """Return an iterator over the maps (k, H, W) of some images each."""
        images = self._check_images(X)
        maps = self._mapper.over(images, self._mapper)
        one_size = images.given_shapes is None
        return maps if one_size else maps_in_given_sizes(maps, images)

    def _images_to_fit(self, X: Any) -> Images:
        _get_feature_names(X)  # raises where `_take_over` would, after all the training
        return as_images(X, self.image_shape)

    def _check_images(self, X: Any) -> Images:
        """Check X against the fitted images."""
        check_is_fitted(self)
        _check_feature_names(self, X, reset=False)
        if self._format.any_size:
            return as_resized_images(X, self._format.image_shape[:2], self._format)
        return as_images(X, None, self._format)

    def __getattr__(self, name: str) -> Any:
        """Say of a network without a threshold what it lacks, and what to do."""
        if name in _OF_THE_THRESHOLD and "_mapper" in vars(self):
            raise NotFittedError(  # which is an AttributeError
                f"This {type(self).__name__} has a network and no threshold yet: there "
                "are scores and maps, and no verdicts. Call calibrate(X) with good "
                "images that it was not trained on."
            )
        raise AttributeError(
            f"{type(self).__name__!r} object has no attribute {name!r}"
        )

    def __sklearn_is_fitted__(self):
        """Tell scikit-learn that there is something to score with."""
        return hasattr(self, "_mapper")

    def _repr_html_inner(self):
        fitted = fitted_html(self) if hasattr(self, "offset_") else ""
        return estimator_html_repr(self) + fitted

    def _repr_mimebundle_(self, **kwargs):
        bundle = super()._repr_mimebundle_(**kwargs)
        if "text/html" in bundle:  # scikit-learn asks _repr_html_inner for one of two
            bundle["text/html"] = self._repr_html_inner()
        return bundle

    def __setstate__(self, state):
        """Unpickle; the network comes to the device that this machine has."""
        super().__setstate__(state)
        if "_mapper" in state:
            self._mapper.to(device_at_hand(self.device))
