"""What may be passed as roi, and what it comes to."""

import re

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


def test_the_larger_of_two_values_says_where_to_look():
    for mask in (INSIDE.tolist(), INSIDE[:, :, None], np.where(INSIDE, 2.0, -1.0)):
        np.testing.assert_array_equal(check_roi(mask, SIZE), INSIDE)


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
def test_what_is_no_mask_of_the_images_is_refused(roi, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        check_roi(roi, SIZE)


def test_a_mask_of_the_files_is_resized_with_them(tmp_path):
    for i, image in enumerate(draw(3, (40, 48))):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    folder = ImageFolder(tmp_path, image_size=SIZE)
    large = INSIDE.repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(check_roi(large, SIZE, folder), INSIDE)
    for mask, source in [(large, draw(5)), (large[1:], folder)]:
        with pytest.raises(ValueError, match=r"roi must have the .* of the images"):
            check_roi(mask, SIZE, source)


def test_a_mask_may_be_a_file_and_model_files_hold_it(tmp_path):
    path, X = tmp_path / "mask.png", draw(8)
    Image.fromarray(255 * INSIDE.astype(np.uint8)).save(path)
    detector = PatchAutoencoderDetector(8, epochs=1, target_fpr=0.4, roi=path)
    skad.save(detector.fit(X), tmp_path / "model")
    path.unlink()
    loaded = skad.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.roi, INSIDE)
    assert not loaded.anomaly_map(X)[:, ~INSIDE].any()
    with pytest.raises(FileNotFoundError, match=r"no such image file: .*mask\.png"):
        check_roi(str(path), SIZE)
