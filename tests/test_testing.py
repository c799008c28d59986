"""Tests of the checks for image detectors: good ones pass, each fault is found."""

import importlib.util
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.ensemble import IsolationForest

import skad
from skad.testing import (
    check_image_detector,
    image_checks,
    parametrize_with_image_checks,
)

EXAMPLES = Path(__file__).parents[1] / "examples"


def load_example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pickle looks classes up there
    spec.loader.exec_module(module)
    return module


PixelStatisticsDetector = load_example(
    "pixel_statistics_detector"
).PixelStatisticsDetector


# --- Detectors that pass ----------------------------------------------------------


def test_the_example_passes():
    names = check_image_detector(PixelStatisticsDetector())
    assert len(names) == len(set(names))
    assert {"dtype_float16", "predict_mask", "wrong_nan", "threads"} <= set(names)


def test_the_detector_is_copied_and_never_fitted():
    estimator = PixelStatisticsDetector()
    check_image_detector(estimator)
    assert vars(estimator) == {"contamination": 0.1}


@pytest.mark.filterwarnings("ignore:target_fpr=0.05 cannot be promised")
@parametrize_with_image_checks(
    [skad.PatchAutoencoderDetector(patch_size=4, epochs=1, random_state=0)],
    labels=True,
    storage=(skad.save, skad.load),
)
def test_patch_autoencoder_detector(check):
    check()


# --- Detectors with one fault each ------------------------------------------------


class WorksInConstructor(PixelStatisticsDetector):
    def __init__(self, contamination=0.1):
        self.contamination = contamination
        self.cache = {}


class CannotBeCloned(PixelStatisticsDetector):
    def __init__(self, contamination=0.1):
        self.contamination = float(np.float64(contamination))


class WritesInPredict(PixelStatisticsDetector):
    def predict(self, X):
        self.last_labels_ = super().predict(X)
        return self.last_labels_


class ChangesItsParameter(PixelStatisticsDetector):
    def fit(self, X, y=None):
        super().fit(X)
        self.contamination = np.float64(self.contamination)
        return self


class ChangesItsInput(PixelStatisticsDetector):
    def predict(self, X):
        labels = super().predict(X)
        if isinstance(X, np.ndarray) and X.flags.writeable:
            X[0] = 0
        return labels


class DependsOnTheBatch(PixelStatisticsDetector):
    def anomaly_map(self, X):
        maps = super().anomaly_map(X)
        return maps / maps.mean()


class DependsOnManyImages(PixelStatisticsDetector):
    def anomaly_map(self, X):
        maps = super().anomaly_map(X)
        return maps * (1 + 1e-5) if len(maps) > 32 else maps


class DependsOnTheOrder(PixelStatisticsDetector):
    def anomaly_map(self, X):
        maps = super().anomaly_map(X)
        maps[3:4] *= 1 + 1e-5 * (len(maps) < 100)
        return maps


class ChangesFloatsInPlace(PixelStatisticsDetector):
    def anomaly_map(self, X):
        maps = super().anomaly_map(X)
        if getattr(X, "dtype", None) == np.float64:
            X -= X.mean()
        return maps


class UsesTheGlobalGenerator(PixelStatisticsDetector):
    def fit(self, X, y=None):
        np.random.rand()  # noqa: NPY002
        return super().fit(X)


class IgnoresNaN(PixelStatisticsDetector):
    def _as_images(self, X, image_shape=None):
        if isinstance(X, np.ndarray) and X.dtype.kind == "f":
            X = np.where(np.isnan(X), X.dtype.type(0), X)
        return super()._as_images(X, image_shape)


class TakesMinusInfinityForBlack(PixelStatisticsDetector):
    def _as_images(self, X, image_shape=None):
        if isinstance(X, np.ndarray) and X.dtype.kind == "f":
            X = np.where(np.isneginf(X), X.dtype.type(0), X)
        return super()._as_images(X, image_shape)


class HasTheWrongSign(PixelStatisticsDetector):
    def predict(self, X):
        return -super().predict(X)


class ForgetsItsOffset(PixelStatisticsDetector):
    def decision_function(self, X):
        return self.score_samples(X)


class ScoresWithTheMean(PixelStatisticsDetector):
    def score_samples(self, X):
        return -self.anomaly_map(X).mean(axis=(1, 2))


class MasksTooMuch(PixelStatisticsDetector):
    def predict_mask(self, X):
        return self.anomaly_map(X) > 0.9 * self.pixel_threshold_


class HasAnotherPixelThreshold(PixelStatisticsDetector):
    def fit(self, X, y=None):
        super().fit(X)
        self.pixel_threshold_ = np.nextafter(-self.offset_, np.inf)
        return self


class MasksTies(PixelStatisticsDetector):
    def fit(self, X, y=None):
        super().fit(X)
        self.offset_ = np.sort(self.score_samples(X))[1]
        self.pixel_threshold_ = -self.offset_
        return self

    def predict_mask(self, X):
        return self.anomaly_map(X) >= self.pixel_threshold_


class IsNotThreadSafe(PixelStatisticsDetector):
    maps = None

    def anomaly_map(self, X):
        IsNotThreadSafe.maps = super().anomaly_map(X)
        time.sleep(0.01)
        return IsNotThreadSafe.maps


class AcceptsOtherChannels(PixelStatisticsDetector):
    def _like_fitted(self, X):
        shape = np.shape(X) if isinstance(X, np.ndarray) else ()
        if len(shape) == 4 and self.image_shape_in_[2:] == (3,):
            X = np.resize(X, (*shape[:3], 3)) if shape[3] < 3 else X
        return super()._like_fitted(X)


class LosesStateInPickles(PixelStatisticsDetector):
    def __getstate__(self):
        state = super().__getstate__().copy()
        if "offset_" in state:
            state["offset_"] = round(state["offset_"], 3)
        return state


class RemembersTheFirstFit(PixelStatisticsDetector):
    def fit(self, X, y=None):
        first_offset = getattr(self, "offset_", None)
        super().fit(X)
        self.offset_ = first_offset or self.offset_
        return self


class ReturnsNoSelf(PixelStatisticsDetector):
    def fit(self, X, y=None):
        super().fit(X)
        return PixelStatisticsDetector(self.contamination).fit(X)


class FailsUnfitted(PixelStatisticsDetector):
    def anomaly_map(self, X):
        _ = self.mean_
        return super().anomaly_map(X)


class OverflowsInHalfPrecision(PixelStatisticsDetector):
    def anomaly_map(self, X):
        maps = super().anomaly_map(X)
        is_half = getattr(X, "dtype", None) == np.float16
        return maps * np.inf if is_half else maps


class KnowsAtMostFourChannels(PixelStatisticsDetector):
    def fit(self, X, y=None):
        if np.ndim(X) == 4 and np.shape(X)[3] > 4:
            raise ValueError("too many channels")
        return super().fit(X)


class WritesIntoX(PixelStatisticsDetector):
    def fit(self, X, y=None):
        if isinstance(X, np.ndarray):
            X += X.dtype.type(0)
        return super().fit(X)


class ReadsColoursInMemoryOrder(PixelStatisticsDetector):
    def _as_images(self, X, image_shape=None):
        X = super()._as_images(X, image_shape)
        return X.ravel("K").reshape(X.shape) if X.ndim == 4 else X


class CountsNegativeStrides(PixelStatisticsDetector):
    def fit(self, X, y=None):
        if min(getattr(X, "strides", (0,))) < 0:
            raise ValueError("some of the strides are negative")  # torch says so
        return super().fit(X)


class WantsShapes(PixelStatisticsDetector):
    def fit(self, X, y=None):
        if not isinstance(X, list):
            assert X.shape
        return super().fit(X)


class ReadsLabels(PixelStatisticsDetector):
    def fit(self, X, y=None):
        return super().fit(X if y is None else np.asarray(X)[1:])


class PredictsBeforeItFits(PixelStatisticsDetector):
    def fit_predict(self, X, y=None):
        return -self.fit(X).predict(X)


@pytest.mark.parametrize(
    ("faulty", "found"),
    [
        (WorksInConstructor, {"constructor"}),
        (CannotBeCloned, {"constructor", "clone"}),
        (WritesInPredict, {"state_kept"}),
        (ChangesItsParameter, {"clone", "state_kept"}),
        (ChangesItsInput, {"input_kept"}),
        (DependsOnTheBatch, {"batches"}),
        (DependsOnManyImages, {"batches"}),
        (DependsOnTheOrder, {"order"}),
        (ChangesFloatsInPlace, {"input_kept"}),
        (UsesTheGlobalGenerator, {"generators_kept"}),
        (IgnoresNaN, {"wrong_nan"}),
        (TakesMinusInfinityForBlack, {"wrong_minus_infinity"}),
        (HasTheWrongSign, {"decision"}),
        (ForgetsItsOffset, {"decision", "predict_mask"}),
        (ScoresWithTheMean, {"anomaly_map", "predict_mask"}),
        (MasksTooMuch, {"predict_mask"}),
        (HasAnotherPixelThreshold, {"predict_mask"}),
        (MasksTies, {"predict_mask"}),
        (IsNotThreadSafe, {"threads"}),
        (AcceptsOtherChannels, {"wrong_fewer_channels"}),
        (LosesStateInPickles, {"pickle", "joblib"}),
        (RemembersTheFirstFit, {"refit"}),
        (ReturnsNoSelf, {"refit"}),
        (FailsUnfitted, {"unfitted"}),
        (OverflowsInHalfPrecision, {"dtype_float16"}),
        (KnowsAtMostFourChannels, {"channels_7"}),
        (WritesIntoX, {"memmap", "colour_memmap"}),
        (ReadsColoursInMemoryOrder, {"colour_fortran_order"}),
        (CountsNegativeStrides, {"flipped", "colour_flipped"}),
        (WantsShapes, {"lazy_sequence"}),
        (ReadsLabels, {"labels_of_good_images"}),
        (PredictsBeforeItFits, {"fit_predict"}),
    ],
)
def test_a_fault_is_found_by_the_check_meant_for_it(faulty, found):
    assert set(failures(faulty())) == found


def failures(estimator, **options):
    found = {}
    for name, check in image_checks(estimator, **options):
        try:
            check()
        except AssertionError as error:
            found[name] = str(error)
    return found


class TakesADevice(PixelStatisticsDetector):
    def __init__(self, contamination=0.1, device="auto"):
        super().__init__(contamination)
        self.device = device

    def fit(self, X, y=None):
        if self.device not in ("auto", "cpu"):
            raise ValueError(f"device must be 'auto' or 'cpu'; got {self.device!r}.")
        return super().fit(X)


class TakesAnyDevice(TakesADevice):
    def fit(self, X, y=None):
        return PixelStatisticsDetector.fit(self, X)


class KnowsNoCPU(TakesADevice):
    def fit(self, X, y=None):
        if self.device == "cpu":
            raise ValueError(f"device must be 'auto'; got {self.device!r}.")
        return super().fit(X)


def test_devices_are_checked_where_there_is_such_a_parameter():
    assert "device" not in dict(image_checks(PixelStatisticsDetector()))
    assert "device" in check_image_detector(TakesADevice())
    found = {kind: failures(kind()) for kind in (TakesAnyDevice, KnowsNoCPU)}
    assert all(set(names) == {"device"} for names in found.values())
    assert "ValueError not raised by fit" in found[TakesAnyDevice]["device"]
    assert "got 'cpu'" in found[KnowsNoCPU]["device"]


class TrainsInPredict(skad.PatchAutoencoderDetector):
    def predict(self, X):
        labels = super().predict(X)
        with torch.no_grad():
            next(self.network_.parameters()).mul_(1 + 1e-3)
        return labels


@pytest.mark.filterwarnings("ignore:target_fpr=0.05 cannot be promised")
def test_a_network_that_changes_is_noticed():
    subject = TrainsInPredict(4, epochs=1, random_state=0)
    checks = dict(image_checks(subject, labels=True))
    with pytest.raises(AssertionError, match=r"changed: \['_fitted by predict"):
        checks["state_kept"]()


def test_labels_are_checked_on_demand():
    assert set(failures(PixelStatisticsDetector(), labels=True)) == {"labels_kept_out"}


def test_storage_is_checked_on_demand():
    def save_little(detector, path):
        path.write_text(repr(detector.contamination))

    def load_little(path):
        return PixelStatisticsDetector(float(path.read_text()))

    storage = save_little, load_little
    assert set(failures(PixelStatisticsDetector(), storage=storage)) == {"storage"}


def test_lazy_sequences_can_be_left_out():
    assert failures(WantsShapes(), lazy=False) == {}


# --- What the failures say --------------------------------------------------------


def test_the_error_names_the_checks_and_tells_why():
    with pytest.raises(AssertionError) as caught:
        check_image_detector(DependsOnTheOrder())
    title, *_ = message = str(caught.value).splitlines()
    assert title == "DependsOnTheOrder fails 1 of 50 checks:"
    assert any(line.startswith("order: Expect scores") for line in message)
    assert any("Not equal to tolerance rtol=1e-06, atol=1e-06" in s for s in message)


@pytest.mark.parametrize(
    ("faulty", "name", "words"),
    [
        (
            WritesInPredict,
            "state_kept",
            "changed: ['last_labels_ by predict (uint8)', ",
        ),
        (ChangesItsInput, "input_kept", "changed: ['X by predict (uint8)', "),
        (UsesTheGlobalGenerator, "generators_kept", "['numpy.random by fit (uint8)', "),
        (FailsUnfitted, "unfitted", "has no attribute 'mean_'"),
        (IgnoresNaN, "wrong_nan", "ValueError not raised by fit"),
        (KnowsAtMostFourChannels, "channels_7", "ValueError: too many channels"),
    ],
)
def test_one_failure_tells_its_reason(faulty, name, words):
    assert words in failures(faulty())[name]


def test_a_detector_of_rows_fails_but_does_not_stop_the_checks():
    found = failures(IsolationForest())
    assert {"constructor", "dtype_uint8", "threads"} - set(found) == {"constructor"}
    assert "Found array with dim 3" in found["dtype_uint8"]


def test_tests_have_readable_ids():
    decorator = parametrize_with_image_checks([PixelStatisticsDetector()])
    ids = [case.id for case in decorator.args[1]]
    assert ids[0] == "PixelStatisticsDetector-constructor"
    assert "PixelStatisticsDetector-dtype_uint16" in ids


def test_a_class_is_refused():
    with pytest.raises(TypeError, match="must be an instance; got the class"):
        list(image_checks(PixelStatisticsDetector))
