import math

import numpy as np
import pytest
from sklearn.exceptions import UndefinedMetricWarning

from skad.benchmark.evaluation import figures_of_images, figures_of_pixels
from skad.metrics import image_auroc_score


def test_images_are_counted_at_the_threshold():
    y = np.array([1, 1, 1, 1, -1, -1, -1])
    scores = np.array([-0.1, -0.2, -0.5, -0.6, -0.4, -0.51, -0.9])
    assert figures_of_images(y, scores, offset=-0.5) == {
        "image_auroc": image_auroc_score(y, scores),
        "n_good": 4,
        "n_defective": 3,
        "false_alarms": 1,  # -0.5 lies on the threshold, and is good
        "detections": 2,
        "false_alarm_rate": 1 / 4,
        "detection_rate": 2 / 3,
    }


def test_what_is_undefined_is_nan():
    with pytest.warns(UndefinedMetricWarning, match="anomalous image"):
        figures = figures_of_images([1, 1], [-0.1, -0.2], offset=-0.5)
    assert math.isnan(figures["detection_rate"])
    assert math.isnan(figures["image_auroc"])
    assert figures["false_alarm_rate"] == 0
    assert all(map(math.isnan, figures_of_pixels(None, []).values()))
