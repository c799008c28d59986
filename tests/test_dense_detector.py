"""The old network as a detector: what it reads, scores, calibrates and goes on with."""

import pickle
from pathlib import Path

import joblib
import numpy as np
import pytest
from old_models import SHAPE, forward, random_weights, write_model
from scipy.ndimage import uniform_filter
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import skad
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


def with_squares(n, shape=SHAPE[:2], seed=1):
    images = draw(n, shape, seed)
    images[:, 4:10, 8:14] = 250
    return images


@pytest.fixture(scope="module")
def fitted(model):
    return DenseAutoencoderDetector(model, target_fpr=0.1).fit(draw())


# --- What it computes -------------------------------------------------------------


def expected_maps(images):
    """9 x 9 means of the error, by definition; at the border of what is there."""
    unit = images[..., None] / 255
    error = np.abs(unit - forward(random_weights(), unit)).mean(-1)  # (n, H, W)
    sums = [uniform_filter(e, 9, mode="constant") for e in error]
    return np.array(sums) / uniform_filter(np.ones(SHAPE[:2]), 9, mode="constant")


def test_maps_and_scores_are_the_error_of_the_reconstruction(fitted):
    images = with_squares(3)
    maps = fitted.anomaly_map(images)
    assert (maps.dtype, maps.shape) == (np.float32, images.shape)
    np.testing.assert_allclose(maps, expected_maps(images), atol=1e-5)
    np.testing.assert_allclose(
        fitted.score_samples(images), -maps.max((1, 2)).astype(float)
    )
    assert fitted.mean_map_ == pytest.approx(fitted.anomaly_map(draw()).mean())


def test_reconstructions_have_type_and_range_of_the_images(fitted):
    images = draw(3)
    expected = 255 * forward(random_weights(), images[..., None] / 255)[..., 0]
    rebuilt = fitted.reconstruct(images)
    assert (rebuilt.dtype, rebuilt.shape) == (np.uint8, images.shape)
    np.testing.assert_allclose(rebuilt, expected, atol=0.51)


def test_the_threshold_is_that_of_all_good_images(model, fitted):
    scores = np.sort(fitted.score_samples(draw()))
    np.testing.assert_array_equal(fitted.calibration_scores_, scores)
    assert fitted.offset_ == scores[2]  # floor(0.1 * 31) = 3
    assert fitted.history_ == []
    assert (fitted.predict(with_squares(5)) == -1).all()
    share = DenseAutoencoderDetector(model, contamination=0.2).fit(draw())
    assert (share.predict(draw()) == -1).mean() == pytest.approx(0.2)


def test_the_network_is_that_of_the_files(fitted, model):
    kernel = random_weights()["dense"][0]
    found = fitted.network_.dense[0].weight.detach().cpu().numpy()
    np.testing.assert_array_equal(found, kernel.T)
    named = DenseAutoencoderDetector(f"{model}.h5", target_fpr=0.1).fit(draw())
    np.testing.assert_array_equal(named.calibration_scores_, fitted.calibration_scores_)


@pytest.mark.parametrize("factor", [1, 257])
def test_16_bits_and_shares_of_one_are_the_same_images(model, fitted, factor):
    wide = DenseAutoencoderDetector(model).read_model()
    images = with_squares(2)
    deep = wide.score_samples(images.astype(np.uint16) * 257)
    np.testing.assert_allclose(deep, fitted.score_samples(images), atol=1e-6)
    floats = DenseAutoencoderDetector(model, target_fpr=0.1).fit(draw() / 255)
    np.testing.assert_allclose(floats.score_samples(images / 255), deep, atol=1e-6)


@pytest.mark.filterwarnings("ignore:These images are unlike those that set")
@pytest.mark.parametrize("size", [(32, 48), (9, 14), (40, 40)])
def test_images_of_another_size_are_resized_and_maps_back(model, size):
    detector = DenseAutoencoderDetector(model, target_fpr=0.1).fit(draw(shape=size))
    images = draw(2, size)
    assert detector.anomaly_map(images).shape == (2, *size)
    assert detector.reconstruct(images).shape == (2, *size)
    flat = np.full((1, *size), 77, np.uint8)
    small = DenseAutoencoderDetector(model).read_model()
    found, same = (
        detector.anomaly_map(flat),
        small.anomaly_map(flat[:, :1, :1].repeat(16, 1).repeat(24, 2)),
    )
    assert found.max() == pytest.approx(same.max(), rel=0.05)


def test_rows_are_images_too(model, fitted):
    rows = DenseAutoencoderDetector(model, image_shape=SHAPE[:2], target_fpr=0.1)
    rows.fit(draw().reshape(N_GOOD, -1))
    np.testing.assert_array_equal(rows.calibration_scores_, fitted.calibration_scores_)


def test_images_labelled_anomalous_are_left_out(model, fitted):
    X, y = np.concatenate([draw(), with_squares(5)]), np.repeat([1, -1], [N_GOOD, 5])
    detector = DenseAutoencoderDetector(model, target_fpr=0.1).fit(X, y)
    assert detector.offset_ == fitted.offset_
    with pytest.raises(ValueError, match="at least 1 good image"):
        detector.fit(X, np.full(len(X), -1))


# --- A network without a threshold ------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_a_network_alone_scores_and_gives_no_verdict(model, colour_model, channels):
    detector = DenseAutoencoderDetector(model if channels == 1 else colour_model)
    assert detector.read_model() is detector
    shape = SHAPE[:2] if channels == 1 else (*SHAPE[:2], 3)
    assert detector.image_shape_in_ == shape
    X = draw(3, shape)
    assert detector.score_samples(X).shape == (3,)
    assert detector.anomaly_map(X).shape == (3, *SHAPE[:2])
    assert detector.reconstruct(X).shape == X.shape
    for name in (
        "predict",
        "decision_function",
        "p_value",
        "predict_mask",
        "anomaly_regions",
        "inspect",
    ):
        with pytest.raises(NotFittedError, match=r"no threshold yet.*calibrate\(X\)"):
            getattr(detector, name)(X)
    with pytest.raises(NotFittedError, match="no threshold yet"):
        skad.ScoreDisplay.from_estimator(detector, X, [1, 1, -1])
    assert "skad-fitted" not in detector._repr_html_()


def test_good_images_give_it_the_threshold_that_fit_gives(model, fitted):
    detector = DenseAutoencoderDetector(model, target_fpr=0.1).read_model()
    detector.calibrate(draw())
    assert detector.offset_ == fitted.offset_
    np.testing.assert_array_equal(detector.p_value(draw()), fitted.p_value(draw()))
    assert not hasattr(detector.read_model(), "offset_")
    with pytest.raises(AttributeError, match="object has no attribute 'nonsense'"):
        detector.nonsense  # noqa: B018 (that it raises is the point)


# --- Training on ------------------------------------------------------------------


def test_epochs_train_on_some_and_calibrate_on_the_others(model, fitted):
    same = {"target_fpr": 0.2, "random_state": 0, "validation_fraction": 0.4}
    same |= {"epochs": 3, "batch_size": 8}
    detector = DenseAutoencoderDetector(model, **same).fit(draw())
    assert len(detector.calibration_scores_) == 12
    assert [epoch["epoch"] for epoch in detector.history_] == [1, 2, 3]
    unit = draw()[..., None] / 255
    error = (forward(random_weights(), unit) - unit) ** 2
    first, _, last = (epoch["loss"] for epoch in detector.history_)
    assert last < first < 1.1 * error.mean()
    again = DenseAutoencoderDetector(model, **same).fit(draw())
    np.testing.assert_array_equal(
        again.calibration_scores_, detector.calibration_scores_
    )
    scores = np.sort(detector.score_samples(draw()))
    assert set(detector.calibration_scores_) <= set(scores)


def test_a_warm_start_goes_on_and_a_cold_one_reads_the_files_again(model, fitted):
    settings = {"epochs": 2, "target_fpr": 0.2, "random_state": 0}
    detector = DenseAutoencoderDetector(model, **settings).fit(draw())
    first, network = detector.history_, detector.network_
    before = {k: v.clone() for k, v in network.state_dict().items()}
    detector.set_params(warm_start=True, model=None).fit(draw())
    assert detector.history_[0]["loss"] < first[0]["loss"]
    assert all(v.equal(before[k]) for k, v in network.state_dict().items())
    detector.set_params(warm_start=False, model=model).fit(draw())
    assert detector.history_ == first


def test_a_warm_start_calibrates_on_images_it_was_not_trained_on(model):
    images = draw()
    detector = DenseAutoencoderDetector(
        model, epochs=1, target_fpr=0.2, random_state=0, warm_start=True
    ).fit(images)
    held_out = detector.calibration_scores_
    detector.set_params(epochs=0).fit(images)
    np.testing.assert_array_equal(detector.calibration_scores_, held_out)
    known = ~np.isin(detector.score_samples(images), held_out)
    with pytest.raises(ValueError, match="trained on all of X"):
        detector.fit(images[known])
    detector.set_params(warm_start=False).fit(images[known])
    assert len(detector.calibration_scores_) == known.sum()


# --- Errors -----------------------------------------------------------------------


def test_without_a_model_the_error_says_what_to_name(tmp_path):
    with pytest.raises(
        ValueError, match=r"model must be the path of .*warm_start=True"
    ):
        DenseAutoencoderDetector().fit(draw())
    with pytest.raises(FileNotFoundError, match=r"looked for its .*\.json and \.h5"):
        DenseAutoencoderDetector(tmp_path / "none").fit(draw())
    with pytest.raises(NotFittedError):
        DenseAutoencoderDetector().predict(draw())


def test_other_channels_are_named(model, colour_model):
    with pytest.raises(
        ValueError, match=r"takes images with 1 channel.*has 3.*gray=True"
    ):
        DenseAutoencoderDetector(model).fit(draw(shape=(16, 24, 3)))
    with pytest.raises(ValueError, match=r"with 3 channel.*has 1.*gray=False"):
        DenseAutoencoderDetector(colour_model).fit(draw())


@pytest.mark.parametrize(
    "X", [draw().astype(float), draw().astype(int), draw() - 150.0]
)
def test_numbers_that_were_not_scaled_are_named(model, X):
    with pytest.raises(ValueError, match=r"from 0 to 1; got .*pixels / 255"):
        DenseAutoencoderDetector(model).fit(X)


def test_the_image_out_of_range_is_named(model):
    X = draw() / 255
    detector = DenseAutoencoderDetector(model, random_state=0).fit(X)
    X[17, 3, 4] = 1.5
    trained = clone(detector).set_params(epochs=1)
    asked = (detector.predict, detector.reconstruct, detector.calibrate, detector.fit)
    for ask in (*asked, trained.fit):
        with pytest.raises(ValueError, match=r"from 0 to 1; .* to 1\.5 in image 17"):
            ask(X)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", 5),
        ("image_shape", 16),
        ("epochs", -1),
        ("epochs", 1.5),
        ("batch_size", 0),
        ("learning_rate", 0),
        ("validation_fraction", 1),
        ("contamination", 0.7),
        ("target_fpr", 0),
        ("device", 0),
        ("device", "abacus"),
        ("warm_start", "yes"),
        ("random_state", "x"),
        ("verbose", "x"),
    ],
)
def test_wrong_parameters_are_named(model, name, value):
    with pytest.raises(ValueError, match=name):
        DenseAutoencoderDetector(model).set_params(**{name: value}).fit(draw())


def test_every_parameter_has_a_rule():
    names = DenseAutoencoderDetector().get_params().keys()
    assert names == DenseAutoencoderDetector._parameter_constraints.keys()


# --- In scikit-learn --------------------------------------------------------------

NOT_FOR_IT = {"channels_4", "channels_7"}  # networks have one channel or three
STORAGE = (skad.save, skad.load)


@pytest.mark.filterwarnings("ignore:target_fpr=0.05 cannot be promised")
@pytest.mark.parametrize("epochs", [0, 1])
@pytest.mark.parametrize("channels", [1, 3])
def test_checks_for_image_detectors_pass(model, colour_model, channels, epochs):
    path = colour_model if channels == 3 else model
    detector = DenseAutoencoderDetector(path, epochs=epochs, random_state=0)
    found = dict(image_checks(detector, labels=True, storage=STORAGE))
    of_colour = {"channels_3", "wrong_fewer_channels"}
    of_colour |= {name for name in found if "colour" in name}
    assert of_colour | NOT_FOR_IT <= set(found)
    for name in found.keys() - NOT_FOR_IT:
        if (name in of_colour) == (channels == 3):
            found[name]()


def test_it_is_cloned_searched_and_piped(model):
    X, y = np.concatenate([draw(20), with_squares(10)]), np.repeat([1, -1], [20, 10])
    pipeline = make_pipeline(FunctionTransformer(), DenseAutoencoderDetector(model))
    search = GridSearchCV(
        pipeline,
        {"denseautoencoderdetector__target_fpr": [0.1, 0.3]},
        cv=StratifiedKFold(2, shuffle=True, random_state=0),
    ).fit(X, y)
    assert search.best_score_ > 0.8
    assert not hasattr(clone(search.best_estimator_[-1]), "offset_")


@pytest.mark.parametrize("calibrated", [True, False])
def test_pickles_keep_all(model, fitted, tmp_path, calibrated):
    detector = fitted
    if not calibrated:
        detector = DenseAutoencoderDetector(model).read_model()
    joblib.dump(detector, tmp_path / "a.joblib")
    for again in (
        joblib.load(tmp_path / "a.joblib"),
        pickle.loads(pickle.dumps(detector)),
    ):
        np.testing.assert_array_equal(
            again.score_samples(draw()), detector.score_samples(draw())
        )
        assert hasattr(again, "offset_") == calibrated


@pytest.mark.skipif(
    not (Path(__file__).parents[2] / "shared/old_model").exists(),
    reason="the real model is not here",
)
def test_the_real_model_in_the_detector():
    folder = Path(__file__).parents[2] / "shared/old_model"
    reference = np.load(folder / "reference.npz")
    detector = DenseAutoencoderDetector(folder / "model").read_model()
    assert detector.image_shape_in_ == (200, 200)
    rebuilt = detector.reconstruct(reference["images"])
    np.testing.assert_allclose(rebuilt, 255 * reference["reconstructions"], atol=0.51)
