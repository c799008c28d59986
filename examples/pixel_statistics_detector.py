"""A second detector, complete in one file: mean and deviation of every pixel
==========================================================================

    python examples/pixel_statistics_detector.py

No learning beyond that, so it is good where all parts lie in one pose. The last lines
run skad's checks over it, as they run over any image detector.
"""

import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted

from skad.testing import check_image_detector


class PixelStatisticsDetector(OutlierMixin, BaseEstimator):
    """Flag images with a pixel that lies too many deviations from its mean.

    X is (n, H, W) or (n, H, W, C). The share `contamination` of the images given to
    `fit` is flagged.
    """

    def __init__(self, contamination=0.1):
        self.contamination = contamination

    def fit(self, X, y=None):
        X = self._as_images(X)
        self.image_shape_in_ = X.shape[1:]
        self.is_float_ = X.dtype.kind == "f"
        self.mean_ = X.mean(axis=0, dtype=np.float64)
        variance = X.var(axis=0, dtype=np.float64)
        # With few images some pixels hardly vary: half of the variance is everybody's.
        variance = (variance + variance.mean()) / 2
        self.deviation_ = np.sqrt(np.maximum(variance, np.finfo(np.float64).tiny))
        self.offset_ = np.quantile(self.score_samples(X), self.contamination)
        self.pixel_threshold_ = -self.offset_
        return self

    def anomaly_map(self, X):
        """Return (n, H, W) float64: distances in deviations, the worst channel's."""
        X = self._like_fitted(X)
        distances = np.abs(X - self.mean_) / self.deviation_
        return distances if distances.ndim == 3 else distances.max(axis=-1)

    def predict_mask(self, X):
        return self.anomaly_map(X) > self.pixel_threshold_

    def score_samples(self, X):
        return -self.anomaly_map(X).max(axis=(1, 2))

    def decision_function(self, X):
        return self.score_samples(X) - self.offset_

    def predict(self, X):
        return np.where(self.decision_function(X) >= 0, 1, -1)

    def _like_fitted(self, X):
        check_is_fitted(self)
        X = self._as_images(X, self.image_shape_in_)
        if X.shape[1:] != self.image_shape_in_:
            raise ValueError(
                f"Images must have the size and channels that fit saw, shape "
                f"{self.image_shape_in_}; got {X.shape[1:]}. Resize or convert them."
            )
        if (X.dtype.kind == "f") != self.is_float_:
            raise ValueError(
                f"Images must be of the number kind that fit saw (float: "
                f"{self.is_float_}); got {X.dtype}. Convert them."
            )
        return X

    def _as_images(self, X, image_shape=None):
        X = check_array(X, ensure_2d=False, allow_nd=True, input_name="X")
        if X.ndim not in (3, 4) or X.shape == image_shape:
            raise ValueError(
                f"X must have 3 or 4 dimensions, (n, H, W) or (n, H, W, C); got shape "
                f"{X.shape}. If this is one image, add the batch axis: X[None]."
            )
        return X


if __name__ == "__main__":
    for name in check_image_detector(PixelStatisticsDetector()):
        print(f"passed: {name}")
