"""What a notebook shows of a detector."""

import re

import numpy as np
import pytest
import sklearn

from skad import PatchAutoencoderDetector

GOOD = np.random.default_rng(0).integers(90, 110, (30, 16, 16), dtype=np.uint8)
ROW = re.compile(r"<tr><th[^>]*>(.*?)</th><td[^>]*>(.*?)</td></tr>")


@pytest.fixture
def fitted():
    detector = PatchAutoencoderDetector(4, epochs=1, target_fpr=0.2, random_state=0)
    assert "skad-fitted" not in detector._repr_html_()
    return detector.fit(GOOD)


def shown(detector):
    """The rows of the table of the fitted state."""
    return dict(ROW.findall(detector._repr_html_().split("skad-fitted")[1]))


def test_fitted_state(fitted):
    assert shown(fitted) == {
        "threshold": f"{fitted.pixel_threshold_:.6g}",
        "promise": "at most 20 % of good images are flagged",
        "calibration images": "9",
        "images": "16 x 16",
        "device": str(next(fitted.network_.parameters()).device),
    }
    assert "skad-fitted" in fitted._repr_mimebundle_()["text/html"]
    fitted.set_params(target_fpr=0.5)  # the threshold is still that for 20 %
    assert shown(fitted)["promise"] == "at most 20 % of good images are flagged"
    with sklearn.config_context(display="text"):
        assert set(fitted._repr_mimebundle_()) == {"text/plain"}
