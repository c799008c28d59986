"""Images of several sizes, in memory: the same as resized ones, and back."""

import pickle

import numpy as np
import pytest
from image_files import save

import skad
from skad import PatchAutoencoderDetector

SIZE = (24, 20)
SIDES = [(24, 20), (30, 44), (17, 61), (48, 40), (24, 21), (90, 20)]


def draw(n, channels=(), dtype=np.uint8, seed=0):
    rng = np.random.default_rng(seed)
    shapes = [(*SIDES[i % len(SIDES)], *channels) for i in range(n)]
    return [rng.integers(90, 111, shape).astype(dtype) for shape in shapes]


def resized(images):
    return np.stack([skad.resize_image(image, SIZE) for image in images])


def with_square(images):
    """Draw a bright square into the lower right quarter of each image."""
    for image in images:
        height, width = image.shape[:2]
        image[height // 2 : -2, width // 2 : -2] = image.max() * 2
    return images


def make(**parameters):
    parameters = {"image_size": SIZE, "epochs": 1, "target_fpr": 0.3} | parameters
    return PatchAutoencoderDetector(8, random_state=0, **parameters)


@pytest.fixture(scope="module")
def detector():
    return make().fit(draw(14))


def test_it_learns_and_scores_as_from_resized_images(detector):
    plain = make().fit(resized(draw(14)))
    assert detector.offset_ == plain.offset_
    assert detector.image_shape_in_ == SIZE
    new = draw(5, seed=1)
    scores = plain.score_samples(resized(new))
    for X in (new, tuple(new), np.array([*new, None], object)[:-1], resized(new)):
        np.testing.assert_array_equal(detector.score_samples(X), scores)


def test_files_and_pickles_give_the_same(detector, tmp_path):
    X = draw(14, seed=1)
    skad.save(detector, tmp_path / "model")
    expected = detector.anomaly_map(X)
    for copy in (skad.load(tmp_path / "model"), pickle.loads(pickle.dumps(detector))):
        for one, other in zip(copy.anomaly_map(X), expected, strict=True):
            np.testing.assert_array_equal(one, other)
        assert copy.calibrate(X, np.repeat([1, -1], 7)).labelled_threshold_
    folder = skad.ImageFolder(save(tmp_path / "0.png", X[0]), image_size=SIZE)
    np.testing.assert_array_equal(detector.anomaly_map(folder), expected[:1])


@pytest.mark.parametrize(("channels", "dtype"), [((3,), np.uint16), ((), np.int64)])
def test_maps_masks_and_regions_are_in_the_pixels_of_each_image(channels, dtype):
    detector = make(epochs=2).fit(draw(14, channels, dtype))
    X = draw(3, channels, dtype, seed=1) + with_square(draw(4, channels, dtype, seed=2))
    sizes = [image.shape[:2] for image in X]
    maps, masks = detector.anomaly_map(X), detector.predict_mask(X)
    assert maps[0].dtype == np.float32
    assert [m.shape for m in maps] == [m.shape for m in masks] == sizes
    scores = np.array([-m.max() for m in maps], np.float64)
    np.testing.assert_array_equal(detector.score_samples(X), scores)
    flagged = detector.predict(X) == -1
    assert flagged[3:].all() and not flagged.all()
    np.testing.assert_array_equal([m.any() for m in masks], flagged)
    for image, result in zip(X[3:], detector.inspect(X)[3:], strict=True):
        row, column = result.regions[0].centroid
        assert row > image.shape[0] / 2 - 2 and column > image.shape[1] / 2 - 2
    for rebuilt, image in zip(detector.reconstruct(X), X, strict=True):
        assert (rebuilt.shape, rebuilt.dtype) == (image.shape, image.dtype)
    one_size = [X[0], X[3]]
    assert detector.anomaly_map(one_size).shape == (2, *SIZE)
    assert detector.reconstruct(one_size).shape == (2, *SIZE, *channels)


def test_fit_refuses():
    for X, parameters, words in (
        (draw(4), {"image_size": None}, r"shape \(24, 20\) .*image_size"),
        (draw(4), {"roi": np.ones(SIZE, bool)}, "roi is for images of one size"),
        ([*draw(3), draw(1, (3,))[0]], {}, "image 3 .* channels"),
        ([*draw(3), draw(1, (), np.uint16)[0]], {}, "image 3 .* number type"),
        ([*draw(3, (), float), np.full(SIZE, np.nan)], {}, "image 3"),
    ):
        with pytest.raises(ValueError, match=words):
            make(**parameters).fit(X)


def test_a_fitted_detector_refuses(detector):
    for X, words in (
        (draw(1, (3,))[0], "without a batch axis"),
        ([np.zeros((0, 20), np.uint8), *draw(2)], "shape"),
    ):
        with pytest.raises(ValueError, match=words):
            detector.score_samples(X)
