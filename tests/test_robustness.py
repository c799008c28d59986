"""A fit comes to its own end, whatever the program around it and the numbers in X."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from skad import PatchAutoencoderDetector
from skad.metrics import image_auroc_score

pytestmark = pytest.mark.filterwarnings("ignore:target_fpr=.* cannot be promised")


def detector(**parameters):
    settings = {"patch_size": 8, "epochs": 1, "random_state": 0, "target_fpr": 0.3}
    return PatchAutoencoderDetector(**(settings | parameters))


@pytest.fixture(scope="module")
def good():
    return np.random.default_rng(0).integers(90, 110, (12, 32, 32), dtype=np.uint8)


@pytest.fixture(scope="module")
def expected(good):
    return detector().fit(good).anomaly_map(good)


def test_numpy_numbers_and_torchs_modes_change_nothing(good, expected):
    given = {"epochs": np.int64(1), "batch_size": np.int32(16)}
    with torch.inference_mode(), torch.autocast("cpu"):
        fitted = detector(**given).fit(good)
        maps = fitted.anomaly_map(good)
        assert torch.is_autocast_enabled("cpu")
    np.testing.assert_array_equal(maps, expected)


def test_torchs_default_type_and_device_change_nothing(good, expected):
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        with ThreadPoolExecutor(2) as pool:
            fits = [pool.submit(detector().fit, good) for _ in range(2)]
            for fitted in fits:
                maps = fitted.result().anomaly_map(good)
                np.testing.assert_array_equal(maps, expected)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)


def test_a_training_that_diverges_names_the_learning_rate(good):
    with pytest.raises(ValueError, match=r"learning_rate=1.* diverged"):
        detector(learning_rate=1e30).fit(good)


def small_defects(offset, scale):
    """Good images, and ten with a square of four standard deviations at the end."""
    images = np.random.default_rng(0).normal(0, 1, (40, 32, 32))
    images[30:, 10:13, 10:13] += 4
    return offset + scale * images


def test_the_scale_of_floats_does_not_matter():
    plain = small_defects(0, 1)
    expected = detector().fit(plain[:20]).score_samples(plain)
    assert image_auroc_score(np.repeat([1, -1], [30, 10]), expected) > 0.8
    for offset, scale in ((0, 1e-100), (0, 1e60), (-1e11, 1e6)):
        images = small_defects(offset, scale)
        found = detector().fit(images[:20]).score_samples(images)
        np.testing.assert_allclose(found, expected, rtol=1e-2)


@pytest.mark.parametrize(("dtype", "scale"), [("f2", 2e4), ("f8", 1e60)])
def test_reconstructions_of_any_scale_are_finite(dtype, scale):
    images = (np.random.default_rng(0).uniform(0, 1, (8, 16, 16)) * scale).astype(dtype)
    fitted = detector().fit(images)
    rebuilt = fitted.reconstruct(images)
    assert np.isfinite(rebuilt).all()
    assert 0.1 * scale < rebuilt.mean(dtype=np.longdouble) < scale
    wild = images[:1].copy()
    wild[0, 4:8, 4:8] = -3 * scale
    assert fitted.predict(wild) == -1


def test_constant_floats_have_no_scale():
    """Their standard deviation is rounding, and no unit to divide by."""
    images = np.full((6, 32, 32), 0.1) * np.linspace(1, 1 + 1e-15, 6)[:, None, None]
    with pytest.warns(UserWarning, match="All 6 good images are equal"):
        fitted = detector().fit(images)
    assert fitted.score_samples(images + 1e-12).min() > -100


def test_a_network_that_gives_no_finite_numbers_gives_no_verdict(good):
    fitted = detector().fit(good)
    mapper = fitted.fitted.mapper
    with torch.inference_mode():
        for layer in (mapper.folded.to_logit, mapper.folded.to_image):
            layer[0].bias[0] = np.nan
    for method in (fitted.predict, fitted.anomaly_map, fitted.reconstruct):
        with pytest.raises(ValueError, match=r"NaN or infinity: its weights are dam"):
            method(good)


class Handle:
    """Images behind something that cannot be pickled, as an open file of HDF5."""

    def __init__(self, images):
        self.read = lambda i: images[i]
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.read(i)


def test_what_is_kept_is_not_taken_for_that_of_other_images(good, tmp_path):
    path = str(tmp_path / "kept")
    for parameters, options in (({"memory": path}, {}), ({}, {"checkpoint": path})):
        with pytest.raises(ValueError, match=r"With memory or a checkpoint, .* Handle"):
            detector(**parameters).fit(Handle(good), **options)
    assert not (tmp_path / "kept").exists()
    detector().fit(Handle(good))
