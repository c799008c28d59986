"""What may be passed as roi, and what it comes to."""

import re
from itertools import product

import numpy as np
import pytest
from PIL import Image

import skad
from skad import ImageFolder, PatchAutoencoderDetector
from skad.images.roi import check_roi

SIZE = (20, 24)
INSIDE = np.zeros(SIZE, bool)
INSIDE[4:, :16] = True


def draw(n, size=SIZE):
    return np.random.default_rng(0).integers(90, 110, (n, *size), dtype=np.uint8)


def saved(mask, path):
    Image.fromarray(mask).save(path)
    return path


@pytest.mark.parametrize(
    "mask",
    [
        INSIDE,
        INSIDE.tolist(),
        INSIDE[:, :, None],
        255 * INSIDE.astype(np.uint8),
        INSIDE.astype(float),
        np.where(INSIDE, 2, -1),
    ],
)
def test_the_larger_of_two_values_says_where_to_look(mask):
    np.testing.assert_array_equal(check_roi(mask, SIZE), INSIDE)


def test_a_mask_may_be_a_file(tmp_path):
    mask = 255 * INSIDE.astype(np.uint8)
    colour = np.stack([mask, 0 * mask, 0 * mask], -1)
    for name, pixels in {"a.png": mask, "b.bmp": colour}.items():
        path = saved(pixels, tmp_path / name)
        for roi in (path, str(path)):
            np.testing.assert_array_equal(check_roi(roi, SIZE), INSIDE)
    with pytest.raises(FileNotFoundError, match=r"no such image file: .*c\.png"):
        check_roi(tmp_path / "c.png", SIZE)


def test_of_many_values_those_above_half_of_the_largest_count():
    gray = np.arange(480).reshape(SIZE)
    with pytest.warns(UserWarning, match=r"480 different values.* the largest, 239\.5"):
        np.testing.assert_array_equal(check_roi(gray, SIZE), gray >= 240)


@pytest.mark.parametrize(
    ("roi", "words"),
    [
        (np.ones((24, 20), bool), "of the images, (20, 24); got (24, 20)"),
        (np.zeros(SIZE), "no pixel is"),
        (np.ones((*SIZE, 3)), "roi must be an array (H, W)"),
        (np.full(SIZE, np.inf), "without NaN"),
    ],
)
def test_what_is_no_mask_of_the_images_is_named(roi, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        check_roi(roi, SIZE)


def test_a_mask_of_the_files_is_resized_with_them(tmp_path):
    for i, image in enumerate(draw(5, (40, 48))):
        saved(image, tmp_path / f"{i}.png")
    folder = ImageFolder(tmp_path, image_size=SIZE)
    large = INSIDE.repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(check_roi(large, SIZE, folder), INSIDE)
    for source, mask in product((folder, draw(5)), (large, large[1:])):
        if source is not folder or mask is not large:
            with pytest.raises(ValueError, match=r"roi must have the .* of the images"):
                check_roi(mask, SIZE, source)


def test_a_model_file_holds_the_mask_of_a_file(tmp_path):
    mask = saved(INSIDE, tmp_path / "mask.png")
    parameters = {"epochs": 1, "target_fpr": 0.4, "random_state": 0}
    X = draw(8)
    detector = PatchAutoencoderDetector(8, roi=mask, **parameters).fit(X)
    same = PatchAutoencoderDetector(8, roi=INSIDE, **parameters).fit(X)
    skad.save(detector, tmp_path / "model")
    mask.unlink()
    loaded = skad.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.roi, INSIDE)
    np.testing.assert_array_equal(loaded.anomaly_map(X), same.anomaly_map(X))
    assert not loaded.anomaly_map(X)[:, ~INSIDE].any()
