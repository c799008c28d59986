"""What computes verdicts: a detector on torch, or an exported one on onnxruntime."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Backend(Protocol):
    """What the service needs of a detector, under the detector's names."""

    image_shape_in_: tuple[int, ...]  # (H, W) or (H, W, C)
    calibration_scores_: NDArray[np.float64]
    is_cross_fitted_: bool

    @property
    def offset_(self) -> float:
        """Lower scores are anomalous."""

    @property
    def promised_fpr_(self) -> float:
        """Promised rate of false alarms; NaN where nothing is promised."""

    def retarget(self, target_fpr: float) -> Any:
        """Set the threshold that promises a rate."""

    def inspect(self, X: Any) -> Sequence[Any]:
        """Return the `InspectionResult` of each image of an array (n, H, W[, C])."""


class ExportedDetector:
    """An exported detector, under the names of a fitted one."""

    def __init__(self, path: Path) -> None:
        from skad.runtime.inspector import Inspector

        self._inspector = Inspector(path)
        known = self._inspector.metadata
        self.dtype = known.dtype
        self.image_shape_in_ = known.image_shape
        self.calibration_scores_ = np.array(known.calibration_scores)
        self.is_cross_fitted_ = known.is_cross
        self.retarget = self._inspector.retarget

    @property
    def offset_(self) -> float:
        """Lower scores are anomalous."""
        return -self._inspector.threshold

    @property
    def promised_fpr_(self) -> float:
        """Promised rate of false alarms, or NaN."""
        return self._inspector.promised_fpr

    def inspect(self, X: Any) -> Sequence[Any]:
        """Return the result of each image."""
        return [self._inspector.inspect(image) for image in X]


def load_backend(path: Path, device: str | None) -> tuple[Backend, str, str]:
    """Load a model; return it, the dtype of a test image, and what it runs on."""
    if path.suffix.lower() == ".onnx":
        exported = ExportedDetector(path)
        return exported, exported.dtype, "onnxruntime"
    from skad.model_io.model_file import load  # slow to import

    detector = load(path, device)
    if not hasattr(detector, "offset_"):
        raise ValueError(
            f"{path} has no threshold yet, and so no verdicts: set one from good "
            "images with skad calibrate MODEL FOLDER"
        )
    is_float = detector.fitted.format.kind == "float"
    return detector, "float32" if is_float else "uint8", "torch"
