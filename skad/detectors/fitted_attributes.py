"""The fitted attributes of a detector, all of them views of one object."""

import math
from typing import Any

from sklearn.exceptions import NotFittedError

from skad.detectors.fitted import Fitted, Threshold

_OF_THE_THRESHOLD = {
    "offset_",
    "pixel_threshold_",
    "calibration_scores_",
    "mean_map_",
    "promised_fpr_",
}


class FittedAttributes:
    """Reads what is learned from `_fitted`, which one assignment replaces whole.

    A method that needs several of these attributes takes `_fitted` once instead.
    """

    _fitted: Fitted  # not there before `fit`

    @property
    def offset_(self):
        """What scores are compared with: below it, an image is anomalous.

        If you set it, it promises nothing any more.
        """
        return self._threshold.offset

    @offset_.setter
    def offset_(self, offset):
        fitted = self._fitted
        moved = self._threshold_of(fitted).moved_to(offset)
        self._fitted = fitted.with_threshold(moved)

    @property
    def pixel_threshold_(self):
        """What a pixel's map exceeds where it deviates: ``-offset_``."""
        return -self._threshold.offset

    @property
    def calibration_scores_(self):
        """Sorted scores of the good images that `p_value` compares with, (m,)."""
        return self._threshold.calibration_scores

    @property
    def mean_map_(self):
        """Mean value of the maps of these images."""
        return self._threshold.mean_map

    @property
    def promised_fpr_(self):
        """Rate of false alarms that the threshold promises, or NaN."""
        return self._threshold.promised_fpr

    @property
    def labelled_threshold_(self):
        """How the threshold does on the labelled images that set it."""
        if self._threshold.labelled is None:
            raise AttributeError  # `__getattr__` has the words
        return self._threshold.labelled

    @property
    def network_(self):
        """The trained network, a torch.nn.Module in evaluation mode."""
        return self._fitted.mapper.network

    @property
    def history_(self):
        """The losses: a list of dicts, one an epoch."""
        return self._fitted.history

    @property
    def provenance_(self):
        """When, by what and from how many images it was fitted; a dict."""
        return self._fitted.provenance

    @property
    def image_shape_in_(self):
        """(H, W) or (H, W, C) of the images; (p,) of rows."""
        return self._fitted.format.shape

    @property
    def n_features_in_(self):
        """Numbers in an image."""
        return math.prod(self._fitted.format.image_shape)

    @property
    def feature_names_in_(self):
        """Names of the columns, where X was a table that has them."""
        if self._fitted.feature_names is None:
            raise AttributeError
        return self._fitted.feature_names

    @property
    def _threshold(self) -> Threshold:
        return self._threshold_of(self._fitted)

    @property
    def _mapper(self):
        return self._fitted.mapper

    @property
    def _format(self):
        return self._fitted.format

    def _threshold_of(self, fitted: Fitted) -> Threshold:
        """Return the threshold; where there is none, say so, and what to do."""
        if fitted.threshold is None:
            raise NotFittedError(  # which is an AttributeError
                f"This {type(self).__name__} has a network and no threshold yet: there "
                "are scores and maps, and no verdicts. Call calibrate(X) with good "
                "images that it was not trained on."
            )
        return fitted.threshold

    def __getattr__(self, name: str) -> Any:
        """Say of an attribute that is not there why it is not."""
        if name in _OF_THE_THRESHOLD and "_fitted" in vars(self):
            return self._threshold_of(self._fitted)  # raises
        raise AttributeError(
            f"{type(self).__name__!r} object has no attribute {name!r}"
        )
