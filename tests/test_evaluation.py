import math

import numpy as np
import pytest
from sklearn.exceptions import UndefinedMetricWarning

from skad.benchmark.evaluation import (
    figures_by_kind,
    figures_of_images,
    figures_of_pixels,
)
from skad.metrics import au_pro_score, image_auroc_score, pixel_auroc_score


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


def test_each_kind_of_defect_is_compared_with_all_good_images():
    y, kinds = [-1, 1, -1, 1], ["dent", "good", "cut", "good"]
    scores = [-2.0, -1.0, -1.5, -3.0]
    masks = [np.eye(2, dtype=bool) * (label == -1) for label in y]
    maps = [np.full((2, 2), -score) for score in scores]
    found = figures_by_kind(kinds, y, scores, -1.8, masks, maps)
    assert list(found) == ["cut", "dent"]
    masks, maps = ([images[i] for i in (0, 1, 3)] for images in (masks, maps))
    assert found["dent"] == {
        "image_auroc": image_auroc_score([-1, 1, 1], [-2, -1, -3]),
        "n_defective": 1,
        "detections": 1,
        "detection_rate": 1,
        "pixel_auroc": pixel_auroc_score(masks, maps),
        "au_pro": au_pro_score(masks, maps),
    }
