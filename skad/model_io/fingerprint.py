"""Which model it was: a checksum of all that decides a detector's answers."""

import json
from hashlib import sha256

import numpy as np

from skad.detectors.base import ImageDetector


def fingerprint(detector: ImageDetector) -> str:
    """Return the SHA-256 of what a fitted detector has learned, 64 hex digits.

    It covers every array, how images are prepared, the threshold and the calibration
    scores; not the device, the version of skad or the name of a file. So it is the
    same after `save` and `load`, and another after `fit` or `calibrate`.

    Raises a `sklearn.exceptions.NotFittedError` if the detector is not fitted.
    """
    fitted = detector.fitted  # once: another thread may calibrate meanwhile
    settings = {**fitted.mapper.settings, "format": fitted.format._asdict()}
    arrays = dict(fitted.mapper.to_arrays())
    if fitted.threshold is not None:
        arrays["offset"] = np.array(fitted.threshold.offset)
        arrays["calibration_scores"] = fitted.threshold.calibration_scores
    found = sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        found.update(f"{name} {array.dtype.str} {array.shape}".encode())
        found.update(array.tobytes())
    return found.hexdigest()
