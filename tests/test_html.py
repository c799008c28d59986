"""What a notebook shows of a detector."""

import re

import numpy as np
import pytest
import sklearn
from sklearn.pipeline import make_pipeline

from skad import PatchAutoencoderDetector

GOOD = np.random.default_rng(0).integers(90, 110, (30, 16, 16), dtype=np.uint8)
ROW = re.compile(r"<tr><th[^>]*>(.*?)</th><td[^>]*>(.*?)</td></tr>")


def make():
    return PatchAutoencoderDetector(4, epochs=1, target_fpr=0.2, random_state=0)


@pytest.fixture(scope="module")
def fitted():
    return make().fit(GOOD)


def shown(detector):
    """The rows of the table of the fitted state."""
    return dict(ROW.findall(detector._repr_html_().split("skad-fitted")[1]))


def test_unfitted_shows_no_state():
    assert "skad-fitted" not in make()._repr_html_()


def test_fitted_state(fitted):
    assert shown(fitted) == {
        "threshold": f"{fitted.pixel_threshold_:.6g}",
        "promise": "at most 20 % of good images are flagged",
        "calibration images": "9",
        "images": "16 x 16",
        "device": str(next(fitted.network_.parameters()).device),
    }
    assert "skad-fitted" in fitted._repr_mimebundle_()["text/html"]
    assert fitted._repr_mimebundle_()["text/plain"] == repr(fitted)


def test_no_html_where_scikit_learn_is_told_so(fitted):
    with sklearn.config_context(display="text"):
        assert set(fitted._repr_mimebundle_()) == {"text/plain"}
        assert not hasattr(fitted, "_repr_html_")


def test_a_promise_that_was_not_possible_is_not_shown():
    with pytest.warns(UserWarning, match="cannot be promised"):
        detector = make().set_params(target_fpr=0.01).fit(GOOD)
    words = "at most 10 % of good images are flagged; 9 good images can promise no less"
    assert shown(detector)["promise"] == words


def test_no_promise_where_there_is_none():
    detector = make().set_params(contamination=0.25).fit(GOOD)
    assert shown(detector)["promise"].startswith("none: contamination")
    bad = np.full_like(GOOD[:3], 250)
    y = np.r_[np.ones(5), -np.ones(3)]
    detector.calibrate(np.concatenate([GOOD[:5], bad]), y)
    assert shown(detector)["promise"].startswith("none: labels set the threshold; ")


def test_the_promise_is_that_of_the_threshold_and_not_of_later_parameters():
    detector = make().fit(GOOD).set_params(target_fpr=0.5)
    assert shown(detector)["promise"] == "at most 20 % of good images are flagged"
    detector.calibrate(GOOD)
    assert shown(detector)["promise"] == "at most 50 % of good images are flagged"
    detector = make().set_params(contamination=0.25).fit(GOOD)
    detector.set_params(contamination="auto", target_fpr=None)
    assert shown(detector)["promise"].startswith("none: ")
    detector.set_params(target_fpr=0.2).calibrate(GOOD)
    assert shown(detector)["promise"] == "at most 20 % of good images are flagged"


def test_pipelines_show_their_diagram(fitted):
    assert "PatchAutoencoderDetector" in make_pipeline(fitted)._repr_html_()
