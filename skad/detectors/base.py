"""ImageDetector: all that detectors over images share once they are fitted."""

from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.utils import estimator_html_repr
from sklearn.utils.validation import (
    _check_feature_names,
    _get_feature_names,
    check_is_fitted,
)

from skad import __version__
from skad.common.labels import are_labels, check_labels, not_labels
from skad.common.warnings import warn
from skad.detectors.drift import Statistics, Watch, warn_if_unlike
from skad.detectors.fitted import Fitted, Threshold, provenance_now
from skad.detectors.fitted_attributes import FittedAttributes
from skad.detectors.groups import check_groups, one_of_each_kind
from skad.detectors.html import fitted_html
from skad.detectors.inspection import judge, regions_in_frames
from skad.detectors.learning import Learned, score_images
from skad.detectors.parameters import device_at_hand, generator
from skad.detectors.progress import CallbackSupportMixin
from skad.detectors.regions import above
from skad.detectors.split import NONE, Digests, Division, distinct
from skad.images.inputs import Images, as_images
from skad.images.several_sizes import (
    as_resized_images,
    joined,
    maps_in_given_sizes,
    rebuilt_in_given_sizes,
)
from skad.threshold.conformal import (
    check_metric,
    conformal_p_value,
    conformal_threshold,
    labelled_threshold,
    promised_fpr,
)


class ImageDetector(
    FittedAttributes, CallbackSupportMixin, OutlierMixin, BaseEstimator
):
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

        Higher = more normal. X is what `fit` takes, here as in the other methods. Where
        most images are unlike the good ones that set the threshold, as in another bit
        depth, channel order or light, a UserWarning says so.
        """
        return _scores(*self._check_images(X))

    def fit_predict(self, X, y=None, **fit_params):
        """Fit, and return +1 for good images and -1 for anomalous ones, (n,) int.

        As ``fit(X, y).predict(X)``: images that y labels -1 teach nothing.
        """
        return self.fit(X, y, **fit_params).predict(X)

    def decision_function(self, X):
        """Return ``score_samples(X) - offset_``, (n,) float64: negative = anomalous."""
        fitted, images = self._check_images(X)
        offset = self._threshold_of(fitted).offset
        return _scores(fitted, images) - offset

    def predict(self, X):
        """Return +1 for good images and -1 for anomalous ones, (n,) int."""
        return np.where(self.decision_function(X) >= 0, 1, -1)

    def score(self, X, y):
        """Return the balanced accuracy of `predict`, in [0, 1].

        y is (n,), +1 good and -1 anomalous; other labels give NaN with a warning. Where
        all are the same, it is the share that is told right.
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

        Among good images, one of at most a has a probability of at most a.
        """
        fitted, images = self._check_images(X)
        calibration_scores = self._threshold_of(fitted).calibration_scores
        return conformal_p_value(_scores(fitted, images), calibration_scores)

    def anomaly_map(self, X):
        """Return how much every pixel deviates, (n, H, W) float32, >= 0.

        Higher = worse, on one absolute scale. Images of several sizes have a list of
        n arrays (H, W), here as from `predict_mask` and `reconstruct`.
        """
        return joined(list(_maps(*self._check_images(X))))

    def predict_mask(self, X):
        """Return where images deviate: (n, H, W) bool, ``map > pixel_threshold_``."""
        fitted, images = self._check_images(X)
        threshold = -self._threshold_of(fitted).offset
        return joined([above(some, threshold) for some in _maps(fitted, images)])

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

            Regions are in pixels of the images as given or, of an `ImageFolder`, of the
            files. `Region.scaled` brings them to another size.

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
        fitted, images = self._check_images(X)
        threshold = self._threshold_of(fitted)
        offset, scores = threshold.offset, threshold.calibration_scores
        maps = _maps(fitted, images)
        return (judge(one, offset, scores) for some in maps for one in some)

    def reconstruct(self, X):
        """Return what the autoencoder makes of images, in the shape and type of X."""
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
        """Set the threshold anew; nothing is trained.

        Parameters
        ----------
        X : array-like or lazy sequence of n images, as in `fit`
            Images that training has not seen.
        y : None or array-like of shape (n,)
            None: all images are good, and the threshold keeps the promise of
            `target_fpr`. Labels +1 (good) and -1 (anomalous): the threshold that is
            best by `metric`.
        groups : array-like of shape (n,), default=None
            Labels of any kind: of the images of one label, one counts, drawn at random;
            of each kind, with y. None: near copies are one group, unless there is y.
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
            another number of images, or of one kind alone; for groups that are no
            labels; for a `metric` or a cost that is none.

        Warns
        -----
        UserWarning
            Where, without labels, the images are too few to promise `target_fpr`, or
            copies of others, or seem to show fewer parts; where they are unlike those
            that set the threshold so far, as in another light. From now on, others are
            compared with these.
        """
        fitted, images = self._check_images(X)
        check_metric(metric, cost_miss, cost_false_alarm)
        labels = None if y is None else check_labels(y, len(images))
        images.watch = watch = Watch(fitted.mapper.roi)
        groups, rng = check_groups(groups, len(images)), generator(self.random_state)
        if labels is None:
            kept = images.subset(distinct(images, rng, groups, fitted.mapper.roi))
            threshold = self._promising(*score_images(fitted.mapper, kept))
            good_ones = None
        else:
            places = one_of_each_kind(labels, groups, rng)
            labels = labels[places]
            scores, means = score_images(fitted.mapper, images.subset(places))
            found = labelled_threshold(
                scores, labels, metric, cost_miss, cost_false_alarm
            )
            good, offset = labels == 1, found.offset
            threshold = _threshold(offset, np.nan, scores[good], means[good], found)
            good_ones = places[good]
        if fitted.threshold is not None:
            warn_if_unlike(watch.statistics(), fitted.threshold.statistics)
        threshold = replace(threshold, statistics=watch.kept(good_ones))
        self._fitted = fitted.with_threshold(threshold)
        return self

    def _before(self) -> Fitted | None:
        """Return what a fit goes on from, if it does."""
        return self._fitted if self.warm_start and hasattr(self, "_fitted") else None

    def _take_over(
        self,
        X: Any,
        images: Images,
        good,
        learned: Learned,
        before: Fitted | None,
        division: Division,
        statistics: Statistics | None,
        source: Any = None,
    ) -> None:
        """Keep what was learned, and set the threshold: the end of a fit.

        `good` are the places of the images that are not labelled -1, `before` is what
        it went on from, `statistics` those of the good images, `source` the folder of
        the images where X does not know it.
        """
        scores, means = learned.calibration_scores, learned.calibration_means
        if self.contamination == "auto":
            threshold = self._promising(scores, means)
        else:
            all_scores, _ = score_images(learned.mapper, images.subset(good))
            offset = np.percentile(all_scores, 100 * float(self.contamination))
            threshold = _threshold(offset, np.nan, scores, means)
        self._fitted = Fitted(
            learned.mapper,
            images.format,
            learned.history,
            trained_on=np.union1d(known_to(before), division.trained_on),
            feature_names=_get_feature_names(X),
            provenance=provenance_now(
                n_images=len(images),
                n_training=len(division.training),
                n_calibration=len(division.calibration),
                source=source or getattr(X, "folder", None),
            ),
            threshold=replace(threshold, statistics=statistics),
        )

    def _promising(self, scores, means) -> Threshold:
        """Return the threshold by `target_fpr`, with the rate that it does promise."""
        offset = conformal_threshold(scores, self.target_fpr)
        promised = promised_fpr(len(scores), self.target_fpr)
        return _threshold(offset, promised, scores, means)

    def _retarget(self) -> None:
        """Set the threshold by `target_fpr` anew, on the same calibration images."""
        fitted = self._fitted
        old = self._threshold_of(fitted)
        threshold = self._promising(old.calibration_scores, old.mean_map)
        threshold = replace(threshold, statistics=old.statistics)
        self._fitted = fitted.with_threshold(threshold)

    def _images_to_fit(self, X: Any) -> Images:
        _get_feature_names(X)  # raises where `_take_over` would, after all the training
        return as_images(X, self.image_shape)

    def _check_images(self, X: Any) -> tuple[Fitted, Images]:
        """Return what is fitted now, and X, checked against its images."""
        check_is_fitted(self)
        fitted = self._fitted
        _check_feature_names(self, X, reset=False)
        format = fitted.format
        if format.any_size:
            return fitted, as_resized_images(X, format.image_shape[:2], format)
        return fitted, as_images(X, None, format)

    def __sklearn_is_fitted__(self):
        """Tell scikit-learn that there is something to score with."""
        return hasattr(self, "_fitted")

    def _repr_html_inner(self):
        fitted = fitted_html(self) if hasattr(self, "offset_") else ""
        return estimator_html_repr(self) + fitted

    def _repr_mimebundle_(self, **kwargs):
        bundle = super()._repr_mimebundle_(**kwargs)
        if "text/html" in bundle:  # scikit-learn asks _repr_html_inner for one of two
            bundle["text/html"] = self._repr_html_inner()
        return bundle

    def __getstate__(self):
        """Return what is pickled, with the version that it is of."""
        return {**super().__getstate__(), "_skad_version": __version__}

    def __setstate__(self, state):
        """Unpickle; the network comes to the device that this machine has."""
        state = dict(state)
        version = state.pop("_skad_version", "an earlier version")
        if version != __version__:
            warn(
                f"This pickle was written by skad {version}; this is {__version__}. It "
                "may fail or give other results. Install that version, fit again, "
                "or store detectors by skad.save, whose files last."
            )
        super().__setstate__(state)
        if "_fitted" in state:
            self._mapper.to(device_at_hand(self.device))


def known_to(before: Fitted | None) -> Digests:
    """Return the digests of the images that the network of a fit knows already."""
    return NONE if before is None else before.trained_on


def _threshold(offset, promised, scores, means, labelled=None) -> Threshold:
    return Threshold(
        offset=float(offset),
        calibration_scores=np.sort(scores),
        mean_map=float(np.mean(means)),
        promised_fpr=promised,
        labelled=labelled,
    )


def _scores(fitted: Fitted, images: Images):
    with _watched(fitted, images):
        return score_images(fitted.mapper, images)[0]


def _maps(fitted: Fitted, images: Images):
    """Yield the maps (k, H, W) of some images each."""
    with _watched(fitted, images):
        maps = fitted.mapper.over(images, fitted.mapper)
        yield from maps_in_given_sizes(maps, images)


@contextmanager
def _watched(fitted: Fitted, images: Images):
    """Look at the images that are read meanwhile; warn if they are unlike good ones."""
    good = None if fitted.threshold is None else fitted.threshold.statistics
    if good is None:
        yield
        return
    images.watch = watch = Watch(fitted.mapper.roi)
    yield
    warn_if_unlike(watch.statistics(), good)
