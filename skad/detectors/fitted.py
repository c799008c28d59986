"""What a detector has learned: objects that are replaced as a whole, never changed."""

import math
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from skad import __version__
from skad.common.warnings import warn
from skad.detectors.drift import Statistics
from skad.detectors.parameters import device_at_hand
from skad.detectors.split import Digests
from skad.images.inputs import Format
from skad.scoring.anomaly_map import Mapper
from skad.threshold.conformal import LabelledThreshold


def _read_only(path: str) -> property:
    """Return a property without a docstring: classes list it among their Attributes."""
    return property(attrgetter(path), doc="")


@dataclass
class Learned:
    """What training gives."""

    mapper: Mapper
    calibration_scores: np.ndarray  # (m,), higher = more normal
    calibration_means: np.ndarray  # (m,), mean values of their maps
    history: list[dict[str, float]]
    is_cross: bool = False  # the scores are of images that also train


@dataclass(frozen=True, eq=False)
class Threshold:
    """A threshold, and the good images that it comes from."""

    offset: float  # lower scores are anomalous
    calibration_scores: NDArray[np.float64]  # (m,), sorted
    mean_map: float  # mean value of the maps of these images
    promised_fpr: float  # NaN where nothing is promised
    labelled: LabelledThreshold | None = None  # where labels set the threshold
    is_cross: bool = False  # by images that other folds were scored with: no promise
    statistics: Statistics | None = None  # what other images are compared with


@dataclass(frozen=True, eq=False)
class Fitted:
    """All that a detector has learned."""

    mapper: Mapper
    format: Format  # of the images
    history: list[dict[str, Any]]  # one an epoch
    trained_on: Digests  # of the images that the network has seen
    provenance: dict[str, Any]
    threshold: Threshold | None = None  # None: a network alone

    def weights_for(self, format: Format) -> dict[str, NDArray] | None:
        """Return the weights that a warm start continues from, if there are any."""
        if self.mapper.network is None:
            return None
        found, right = format.image_shape[2], self.format.image_shape[2]
        if found != right:
            raise ValueError(
                f"warm_start=True goes on with a network for {right} channels; X has "
                f"{found}. Set warm_start=False to start anew."
            )
        state = self.mapper.network.state_dict()
        return {name: tensor.numpy(force=True) for name, tensor in state.items()}


def no_threshold() -> NotFittedError:
    """Return the error of a detector that has a network alone."""
    return NotFittedError(  # which is an AttributeError
        "This detector has a network and no threshold yet: there are scores and maps, "
        "and no verdicts. Call calibrate(X) with good images that it was not trained "
        "on."
    )


class FittedAttributes(BaseEstimator):
    """The fitted attributes, all of them views of one object, which methods read once.

    Whatever another thread replaces meanwhile, what belongs together stays together.
    """

    device: str
    _fitted: Fitted  # not there before `fit`

    @property
    def fitted(self) -> Fitted:
        """All that was learned. Assign another object to replace it as a whole."""
        check_is_fitted(self)
        return self._fitted

    @fitted.setter
    def fitted(self, fitted: Fitted) -> None:
        self._fitted = fitted

    @property
    def _threshold(self) -> Threshold:
        threshold = self.fitted.threshold
        if threshold is None:
            raise no_threshold()
        return threshold

    @property
    def offset_(self):
        """Lower scores are anomalous. An offset that you set promises nothing."""
        return self._threshold.offset

    @offset_.setter
    def offset_(self, offset):
        if math.isnan(offset):
            raise ValueError("offset_ must be a number; got nan")
        threshold = replace(self._threshold, offset=float(offset), labelled=None)
        threshold = replace(threshold, promised_fpr=math.nan)
        self._fitted = replace(self._fitted, threshold=threshold)

    @property
    def pixel_threshold_(self):
        """``-offset_``: a pixel deviates where its anomaly map is larger."""
        return -self._threshold.offset

    @property
    def labelled_threshold_(self):
        """Rates and their confidence intervals, where labels set the threshold."""
        if self._threshold.labelled is None:
            raise AttributeError("labelled_threshold_ is set by calibrate with labels")
        return self._threshold.labelled

    @property
    def calibration_scores_(self):
        """A copy of the scores that set the threshold, sorted."""
        return self._threshold.calibration_scores.copy()

    mean_map_ = _read_only("_threshold.mean_map")
    promised_fpr_ = _read_only("_threshold.promised_fpr")
    is_cross_fitted_ = _read_only("_threshold.is_cross")
    network_ = _read_only("fitted.mapper.network")
    history_ = _read_only("fitted.history")
    provenance_ = _read_only("fitted.provenance")
    image_shape_in_ = _read_only("fitted.format.shape")

    @property
    def n_features_in_(self):
        """Numbers in an image."""
        return math.prod(self.fitted.format.image_shape)

    def __getstate__(self):
        """Return what is pickled, with the version that it is of."""
        return {**super().__getstate__(), "_skad_version": __version__}

    def __setstate__(self, state):
        """Unpickle; the network comes to the device that this machine has."""
        state = dict(state)
        version = state.pop("_skad_version", "an earlier version")
        if version != __version__:
            warn(
                f"This pickle was written by skad {version}; this is {__version__}, "
                "and results may differ. Files of skad.save last; or fit again."
            )
        super().__setstate__(state)
        if "_fitted" in state:
            self._fitted.mapper.to(device_at_hand(self.device))
