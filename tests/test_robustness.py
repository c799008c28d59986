"""A fit comes to its own end, whatever the program around it and the numbers in X."""

import pickle
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
import torch
from old_models import write_model

import skad
from skad import DenseAutoencoderDetector, PatchAutoencoderDetector
from skad.common.torch_settings import training_settings
from skad.metrics import image_auroc_score
from skad.threshold.conformal import labelled_threshold

pytestmark = pytest.mark.filterwarnings("ignore:target_fpr=.* cannot be promised")


def detector(**parameters):
    settings = {"patch_size": 8, "epochs": 1, "random_state": 0, "target_fpr": 0.3}
    return PatchAutoencoderDetector(**(settings | parameters))


@pytest.fixture(scope="module")
def good():
    return np.random.default_rng(0).integers(90, 110, (20, 32, 32), dtype=np.uint8)


@pytest.fixture(scope="module")
def expected(good):
    return detector().fit(good).score_samples(good)


# --- What is global in torch -------------------------------------------------------


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradients_may_be_off(good, expected, mode):
    with mode():
        fitted = detector().fit(good)
    np.testing.assert_array_equal(fitted.score_samples(good), expected)


def test_the_default_type_may_be_another(good, expected):
    torch.set_default_dtype(torch.float64)
    try:
        fitted = detector().fit(good)
        np.testing.assert_array_equal(fitted.score_samples(good), expected)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_fits_in_threads_leave_the_default_type(good, expected):
    torch.set_default_dtype(torch.float64)
    all_in = threading.Barrier(3)  # all are inside before any of them leaves

    def fit(i):
        with training_settings():
            all_in.wait(60)
            assert torch.get_default_dtype() == torch.float32
            fitted = detector().fit(good)
            time.sleep(0.05 * i)
            assert torch.get_default_dtype() == torch.float32
        return fitted.score_samples(good)

    try:
        with ThreadPoolExecutor(3) as pool:
            for scores in pool.map(fit, range(3)):
                np.testing.assert_array_equal(scores, expected)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_autocast_around_changes_nothing(good, expected):
    with torch.autocast("cpu"):
        fitted = detector().fit(good)
        scores, maps = fitted.score_samples(good), fitted.anomaly_map(good)
        rebuilt = fitted.reconstruct(good)
        assert torch.is_autocast_enabled("cpu")
    np.testing.assert_array_equal(scores, expected)
    np.testing.assert_array_equal(maps, fitted.anomaly_map(good))
    np.testing.assert_array_equal(rebuilt, fitted.reconstruct(good))


def test_tensors_may_be_made_on_another_device_elsewhere(good, expected, tmp_path):
    torch.set_default_device("meta")
    try:
        fitted = detector().fit(good)
        scores = fitted.score_samples(good)
        skad.save(fitted, tmp_path / "model")
        loaded = skad.load(tmp_path / "model")
        np.testing.assert_array_equal(
            loaded.anomaly_map(good), fitted.anomaly_map(good)
        )
        pickled = pickle.loads(pickle.dumps(fitted))
        np.testing.assert_array_equal(pickled.score_samples(good), expected)
    finally:
        torch.set_default_device(None)
    np.testing.assert_array_equal(scores, expected)


# --- Parameters -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("patch_size", 10**400),
        ("patch_size", (8, 10**400)),
        ("image_size", 10**400),
        ("image_size", (2**16, 2**16)),
        ("epochs", 10**400),
        ("learning_rate", 1e300),
        ("learning_rate", 10**400),
        ("learning_rate", Fraction(1, 10**400)),
        ("validation_fraction", np.longdouble("1e-4000")),
        ("contamination", Fraction(1, 10**400)),
        ("target_fpr", Fraction(1, 10**400)),
    ],
)
def test_absurd_numbers_are_refused_by_name(good, name, value):
    with pytest.raises(ValueError, match=f"{name}.* must be .*[Gg]ot"):
        detector(**{name: value}).fit(good)


@pytest.mark.parametrize(
    "given",
    [
        {"target_fpr": 5e-324, "learning_rate": 5e-324, "batch_size": 10**400},
        {"contamination": 5e-324, "validation_fraction": 5e-324},
        {"contamination": Fraction(1, 3), "target_fpr": Fraction(1, 3)},
    ],
)
def test_extreme_and_exact_numbers_are_numbers(good, given):
    assert np.isfinite(detector(**given).fit(good).decision_function(good)).all()


@pytest.mark.parametrize("cost", [10**400, np.longdouble("1e4000"), np.nan])
def test_costs_are_finite(good, cost):
    with pytest.raises(ValueError, match="cost_miss must be a finite number >= 0; got"):
        detector().fit(good).calibrate(
            good, [1, -1] * (len(good) // 2), metric="cost", cost_miss=cost
        )


@pytest.mark.parametrize("ratio", [5e-324, Fraction(1, 10**300), 1e308, 10**300])
def test_the_size_of_the_only_cost_does_not_matter(ratio):
    scores, y = [-4.0, -3.0, -2.0, -1.0], [-1, -1, 1, 1]
    best = labelled_threshold(scores, y, "cost", cost_miss=ratio, cost_false_alarm=0)
    assert best.offset == labelled_threshold(scores, y, "cost", 1, 0).offset
    assert best.detection_rate == 1


def test_numpy_numbers_are_numbers(good, expected):
    given = {"epochs": np.int64(1), "batch_size": np.int32(16)}
    fitted = detector(**given).fit(good)
    np.testing.assert_array_equal(fitted.score_samples(good), expected)


@pytest.mark.parametrize("learning_rate", [1e4, 1e9, 1e30])
def test_a_training_that_goes_astray_names_the_learning_rate(good, learning_rate):
    with pytest.raises(ValueError, match=r"learning_rate=1.* went astray"):
        detector(learning_rate=learning_rate).fit(good)


def test_so_it_is_with_the_dense_network(good, tmp_path):
    model = write_model(tmp_path / "model", (32, 32, 1))
    settings = {"epochs": np.int64(2), "batch_size": np.int64(8), "target_fpr": 0.3}
    dense = DenseAutoencoderDetector(model, random_state=0, **settings).fit(good)
    with pytest.raises(ValueError, match=r"learning_rate=1.* went astray"):
        dense.set_params(learning_rate=1e30).fit(good)


# --- Numbers in X -----------------------------------------------------------------


def small_defects(offset, scale):
    """Good images, and ten with a square of four standard deviations at the end."""
    images = np.random.default_rng(0).normal(0, 1, (40, 32, 32))
    images[30:, 10:13, 10:13] += 4
    return offset + scale * images


@pytest.mark.parametrize(
    ("offset", "scale"), [(0, 1e-200), (0, 1e-30), (0, 1e60), (-1e11, 1e4), (1, 1e-8)]
)
def test_the_scale_of_floats_does_not_matter(offset, scale):
    expected, found = (
        detector(target_fpr=0.3).fit(images[:20]).score_samples(images)
        for images in (small_defects(0, 1), small_defects(offset, scale))
    )
    np.testing.assert_allclose(found, expected, rtol=1e-2)
    labels = np.repeat([1, -1], [30, 10])
    assert image_auroc_score(labels, found) > 0.8


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [("f2", 2e4), ("f4", 1e38), ("f8", 1e39), ("g", 1e90), ("g", 1e-300)],
)
def test_reconstructions_of_any_scale_are_finite(dtype, scale):
    images = (np.random.default_rng(0).uniform(0, 1, (8, 16, 16)) * scale).astype(dtype)
    rebuilt = detector().fit(images).reconstruct(images)
    assert np.isfinite(rebuilt).all()
    assert 0.1 * scale < rebuilt.mean(dtype=np.longdouble) < scale


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_network_that_gives_no_finite_numbers_gives_no_verdict(good, wrong):
    fitted = detector().fit(good)
    with torch.inference_mode():
        for layer in (fitted._mapper.folded.to_logit, fitted._mapper.folded.to_image):
            layer[0].bias[0] = wrong
    for method in (fitted.predict, fitted.anomaly_map, fitted.reconstruct):
        with pytest.raises(ValueError, match=r"NaN or infinity: its weights are dam"):
            method(good)


def test_constant_floats_have_no_scale():
    """Their standard deviation is rounding, and no unit to divide by."""
    images = np.full((6, 32, 32), 0.1) * np.linspace(1, 1 + 1e-15, 6)[:, None, None]
    fitted = detector().fit(images)
    assert np.isfinite(fitted.score_samples(images)).all()
    assert fitted.score_samples(images + 1e-12).min() > -100


def test_channels_of_very_different_scales_are_warned_of(good):
    images = np.stack([good * 1000.0, good * 1.0], 3)
    with pytest.warns(UserWarning, match="Channel 1 of X has .* Bring the channels to"):
        detector().fit(images)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "target_fpr=.* cannot be promised")
        detector().fit(images / images.std((0, 1, 2)))
        detector().fit(np.stack([good, good // 100], 3))  # the type is their scale


# --- Sequences that cannot be told apart -------------------------------------------


class Handle:
    """Images behind something that cannot be pickled, as an open file of HDF5."""

    def __init__(self, images):
        self.images = images
        self.inner = {"read": lambda i: images[i]}

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.inner["read"](i)


@pytest.mark.parametrize("kept", ["memory", "checkpoint"])
def test_what_is_kept_is_not_taken_for_that_of_other_images(good, tmp_path, kept):
    path = str(tmp_path / "kept")
    parameters = {"memory": path} if kept == "memory" else {}
    options = {"checkpoint": path} if kept == "checkpoint" else {}
    with pytest.raises(ValueError, match=r"With memory or a checkpoint, .* Handle"):
        detector(**parameters).fit(Handle(good), **options)
    assert not (tmp_path / "kept").exists()
    detector().fit(Handle(good))
