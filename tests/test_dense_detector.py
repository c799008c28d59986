"""The old network as a detector: it scores, calibrates and trains further."""

import pickle

import numpy as np
import pytest
from old_models import SHAPE, forward, random_weights, write_model
from scipy.ndimage import uniform_filter
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from skad import DenseAutoencoderDetector
from skad.testing import image_checks

N_GOOD = 30


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("gray") / "model")


@pytest.fixture(scope="module")
def colour_model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("colour") / "model", (16, 24, 3))


def draw(n=N_GOOD, shape=SHAPE[:2], seed=0):
    return np.random.default_rng(seed).integers(90, 111, (n, *shape), dtype=np.uint8)


def with_squares(n):
    images = draw(n, seed=1)
    images[:, 4:10, 8:14] = 250
    return images


@pytest.fixture(scope="module")
def fitted(model):
    return DenseAutoencoderDetector(model, target_fpr=0.1).fit(draw())


# --- Scores and thresholds --------------------------------------------------------


def test_maps_and_scores_are_the_reconstruction_error(fitted):
    """9 x 9 means of the error, by definition; at the border of what is there."""
    images = with_squares(3)
    maps = fitted.anomaly_map(images)
    assert (maps.dtype, maps.shape) == (np.float32, images.shape)
    unit = images[..., None] / 255
    error = np.abs(unit - forward(random_weights(), unit)).mean(-1)  # (n, H, W)
    sums = np.array([uniform_filter(e, 9, mode="constant") for e in error])
    expected = sums / uniform_filter(np.ones(SHAPE[:2]), 9, mode="constant")
    np.testing.assert_allclose(maps, expected, atol=1e-5)
    np.testing.assert_allclose(fitted.score_samples(images), -maps.max((1, 2)))
    assert fitted.mean_map_ == pytest.approx(fitted.anomaly_map(draw()).mean())


def test_reconstructions_have_type_and_range_of_the_images(fitted, colour_model):
    images = draw(3)
    expected = 255 * forward(random_weights(), images[..., None] / 255)[..., 0]
    rebuilt = fitted.reconstruct(images)
    assert (rebuilt.dtype, rebuilt.shape) == (np.uint8, images.shape)
    np.testing.assert_allclose(rebuilt, expected, atol=0.51)
    detector = DenseAutoencoderDetector(colour_model).read_model()
    assert detector.image_shape_in_ == (16, 24, 3)
    X = draw(3, (16, 24, 3))
    assert detector.reconstruct(X).shape == X.shape


def test_the_threshold_is_that_of_all_good_images(model, fitted):
    scores = np.sort(fitted.score_samples(draw()))
    np.testing.assert_array_equal(fitted.calibration_scores_, scores)
    assert fitted.offset_ == scores[2]  # floor(0.1 * 31) = 3
    assert fitted.history_ == []
    assert (fitted.predict(with_squares(5)) == -1).all()
    share = DenseAutoencoderDetector(model, contamination=0.2).fit(draw())
    assert (share.predict(draw()) == -1).mean() == pytest.approx(0.2)
    X, y = np.concatenate([draw(), with_squares(5)]), np.repeat([1, -1], [N_GOOD, 5])
    assert clone(fitted).fit(X, y).offset_ == fitted.offset_


@pytest.mark.filterwarnings("ignore:These images are unlike those that set")
def test_images_of_another_size_are_resized_and_maps_back(fitted):
    detector = clone(fitted).fit(draw(shape=(9, 14)))
    flat = np.full((1, 9, 14), 77, np.uint8)
    assert detector.reconstruct(flat).shape == detector.anomaly_map(flat).shape
    expected = fitted.score_samples(np.full((1, *SHAPE[:2]), 77, np.uint8))
    np.testing.assert_allclose(detector.score_samples(flat), expected, rtol=0.05)


# --- A network without a threshold ------------------------------------------------


def test_a_network_alone_scores_until_good_images_set_its_threshold(model, fitted):
    detector = DenseAutoencoderDetector(model, target_fpr=0.1)
    X, _ = draw(3), detector.read_model()
    scores = detector.score_samples(X)
    np.testing.assert_array_equal(scores, fitted.score_samples(X))
    for method in (detector.predict, detector.p_value, detector.inspect):
        with pytest.raises(NotFittedError, match=r"no threshold yet.*calibrate\(X\)"):
            method(X)
    again = pickle.loads(pickle.dumps(detector))
    np.testing.assert_array_equal(again.score_samples(X), scores)
    assert not hasattr(again, "offset_")
    detector.calibrate(draw())
    assert detector.offset_ == fitted.offset_


# --- Further training -------------------------------------------------------------


def test_epochs_train_on_some_and_calibrate_on_the_others(model):
    options = {"target_fpr": 0.2, "validation_fraction": 0.4, "random_state": 0}
    detector = DenseAutoencoderDetector(model, epochs=3, batch_size=8, **options)
    detector.fit(draw())
    assert len(detector.calibration_scores_) == 12
    assert [epoch["epoch"] for epoch in detector.history_] == [1, 2, 3]
    unit = draw()[..., None] / 255
    error = (forward(random_weights(), unit) - unit) ** 2
    first, _, last = (epoch["loss"] for epoch in detector.history_)
    assert last < first < 1.1 * error.mean()
    held_out = detector.calibration_scores_
    again = clone(detector).fit(draw())
    np.testing.assert_array_equal(again.calibration_scores_, held_out)
    assert set(held_out) <= set(detector.score_samples(draw()))


def test_a_warm_start_goes_on_and_a_cold_one_reads_the_files_again(model):
    images = draw()
    detector = DenseAutoencoderDetector(
        model, epochs=2, target_fpr=0.2, random_state=0, warm_start=True
    ).fit(images)
    first, network = detector.history_, detector.network_
    before = {k: v.clone() for k, v in network.state_dict().items()}
    held_out = detector.calibration_scores_
    known = ~np.isin(detector.score_samples(images), held_out)
    detector.set_params(epochs=0).fit(images)  # on those it was not trained on
    np.testing.assert_array_equal(detector.calibration_scores_, held_out)
    with pytest.raises(ValueError, match="trained on all of X"):
        detector.fit(images[known])
    detector.set_params(model=None, epochs=2).fit(draw(seed=1))
    assert detector.history_[0]["loss"] < first[0]["loss"]
    assert all(v.equal(before[k]) for k, v in network.state_dict().items())
    detector.set_params(warm_start=False, model=model).fit(images)
    assert detector.history_ == first


# --- Errors -----------------------------------------------------------------------


def test_without_a_model_the_error_says_what_to_name():
    with pytest.raises(ValueError, match=r"model must be the path of .*warm_start"):
        DenseAutoencoderDetector().fit(draw())
    with pytest.raises(NotFittedError):
        DenseAutoencoderDetector().predict(draw())


def test_other_channels_are_named(model, colour_model):
    with pytest.raises(ValueError, match=r"with 1 channel.*has 3.*gray=True"):
        DenseAutoencoderDetector(model).fit(draw(shape=(16, 24, 3)))
    with pytest.raises(ValueError, match=r"with 3 channel.*has 1.*gray=False"):
        DenseAutoencoderDetector(colour_model).fit(draw())


def test_numbers_that_were_not_scaled_are_named(model):
    for epochs in (0, 1):
        with pytest.raises(ValueError, match=r"from 0 to 1; got .*pixels / 255"):
            DenseAutoencoderDetector(model, epochs=epochs).fit(draw().astype(int))


# --- In scikit-learn --------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:target_fpr=0.05 cannot be promised")
def test_checks_for_image_detectors_pass(model, colour_model):
    gray, colour = (
        dict(image_checks(DenseAutoencoderDetector(path, random_state=0)))
        for path in (model, colour_model)
    )
    for name in gray:
        try:
            gray[name]()
        except AssertionError as error:
            if "takes images with 1 channel" not in str(error):
                raise
            colour[name]()
