"""What a detector has learned: whole objects that are replaced, never changed.

A detector holds all of it in one attribute, set by one assignment. So what belongs
together is always read together, whatever another thread does meanwhile.
"""

import math
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from skad import __version__
from skad.detectors.drift import Statistics
from skad.detectors.split import NONE, Digests
from skad.images.inputs import Format
from skad.scoring.anomaly_map import Mapper
from skad.threshold.conformal import LabelledThreshold


@dataclass(frozen=True, eq=False)
class Threshold:
    """A threshold, and what it comes from.

    Attributes
    ----------
    offset : float
        Scores below it are flagged.
    calibration_scores : ndarray of shape (m,), float64
        Sorted scores of good images.
    mean_map : float
        Mean value of the maps of these images.
    promised_fpr : float
        NaN where nothing is promised.
    labelled : LabelledThreshold or None
        Where labels set the threshold.
    statistics : ndarray of shape (k, 3, C), float64, or None
        Of good images, those of the fit or of `calibrate`: what other images are
        compared with. None where they are not known.
    """

    offset: float
    calibration_scores: NDArray[np.float64]
    mean_map: float
    promised_fpr: float
    labelled: LabelledThreshold | None = None
    statistics: Statistics | None = None

    def __post_init__(self) -> None:
        self.calibration_scores.flags.writeable = False

    def moved_to(self, offset: float) -> Self:
        """Return a threshold that somebody chose: it promises nothing."""
        offset = float(offset)
        if math.isnan(offset):
            raise ValueError("offset_ must be a number; got nan")
        return replace(self, offset=offset, promised_fpr=math.nan, labelled=None)


@dataclass(frozen=True, eq=False)
class Fitted:
    """All that a detector has learned.

    Attributes
    ----------
    mapper : Mapper
    format : Format
        What the images look like.
    history : list of dict
    trained_on : ndarray of uint64
        Digests of the images that the network has seen.
    feature_names : ndarray of str or None
    provenance : dict
        Where it comes from; plain values.
    threshold : Threshold or None
        None where there is a network alone.
    """

    mapper: Mapper
    format: Format
    history: list[dict[str, Any]]
    trained_on: Digests = field(default_factory=NONE.copy)
    feature_names: NDArray[np.object_] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    threshold: Threshold | None = None

    def with_threshold(self, threshold: Threshold | None) -> Self:
        """Return the same with another threshold."""
        return replace(self, threshold=threshold)


def provenance_now(
    *, n_images: int, n_training: int, n_calibration: int, source: Any
) -> dict[str, Any]:
    """Tell when, by what and from how many images of which folder one learns."""
    return {
        "fitted_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "n_images": n_images,
        "n_training": n_training,
        "n_calibration": n_calibration,
        "source": None if source is None else str(source),
        "skad_version": __version__,
        "torch_version": str(torch.__version__),
    }
