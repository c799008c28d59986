"""Detectors with an encoder: fit and predict, with and without training, and promises.

Most with an encoder that nobody trained: what is planted is plain.
"""

import pickle

import joblib
import numpy as np
import pytest
from own_encoders import own_encoder
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, StratifiedKFold

import skad.detectors.learning
from skad import PatchAutoencoderDetector
from skad.metrics import image_auroc_scorer
from skad.threshold.robust import robust_threshold

SIZE = (32, 48)

pytestmark = pytest.mark.filterwarnings("ignore:target_fpr=.* cannot be promised")


def good_images(n, size=SIZE, seed=0):
    rng = np.random.default_rng(seed)
    pattern = 90 + 60 * np.sin(np.arange(size[1]) / 4)
    return (pattern + rng.normal(0, 6, (n, *size))).astype(np.uint8)


def with_square(images, top, left, value=250):
    images = images.copy()
    images[:, top : top + 10, left : left + 10] = value
    return images


def make(**parameters):
    settings = {"epochs": 0, "random_state": 0, "device": "cpu"}
    if "encoder" not in parameters:
        settings["encoder"] = own_encoder()
    return PatchAutoencoderDetector(8, **settings | parameters)


def cross(**parameters):
    return make(calibration="cross", target_fpr=0.1, **parameters)


@pytest.fixture(scope="module")
def good():
    return good_images(20)


@pytest.fixture(scope="module")
def crossed(good):
    return cross().fit(good)


@pytest.fixture
def fits(monkeypatch):
    """What everything that scores is really fitted with."""
    found, fit_mapper = [], skad.detectors.learning.fit_mapper

    def spied(*args):
        found.append(args)
        return fit_mapper(*args)

    monkeypatch.setattr(skad.detectors.learning, "fit_mapper", spied)
    return found


def assert_finds(detector, images, top, left):
    bad = with_square(images, top, left)
    assert (detector.predict(bad) == -1).all()
    for amap in detector.anomaly_map(bad):
        row, column = np.unravel_index(amap.argmax(), amap.shape)
        assert top - 4 <= row < top + 14
        assert left - 4 <= column < left + 14


# What gives evidence.


@pytest.mark.parametrize("calibration", ["split", "cross"])
def test_without_training_a_defect_is_found_where_it_was_planted(good, calibration):
    detector = make(calibration=calibration, target_fpr=0.2).fit(good)
    assert detector.network_ is None
    assert detector.history_ == []
    new = good_images(20, seed=1)
    assert (detector.predict(new) == 1).mean() > 0.5
    assert_finds(detector, new[:3], 14, 30)
    with pytest.raises(ValueError, match=r"fitted with epochs=0.*Fit it with epochs >"):
        detector.reconstruct(new)


def test_encoder_and_network_score_together(good, trainings):
    detector = make(epochs=1, target_fpr=0.2).fit(good)
    assert trainings == [14]
    assert len(detector.history_) == 1
    assert len(detector.fitted.mapper.tails) == 6  # branches
    assert detector.reconstruct(good).shape == good.shape
    assert_finds(detector, good[:3], 14, 30)
    # The network is the same as without it.
    alone = make(encoder=None, epochs=1).fit(good)
    rebuilt = alone.reconstruct(good)
    np.testing.assert_array_equal(detector.reconstruct(good), rebuilt)


def test_a_warm_start_drops_the_network_or_begins_one(good, trainings):
    detector = make(epochs=1, warm_start=True).fit(good)
    detector.set_params(epochs=0).fit(good_images(10, seed=1))
    assert detector.network_ is None
    assert trainings == [14]
    known = set(detector.fitted.trained_on)
    detector.set_params(epochs=1).fit(good_images(10, seed=2))
    assert detector.network_ is not None
    assert known < set(detector.fitted.trained_on)


def test_pixels_outside_the_roi_count_nowhere(good):
    roi = np.zeros(SIZE, bool)
    roi[:, :24] = True
    detector = cross(roi=roi).fit(good)
    maps = detector.anomaly_map(good)
    assert (maps[:, ~roi] == 0).all()
    outside = with_square(good, 10, 34)
    np.testing.assert_array_equal(detector.anomaly_map(outside), maps)
    assert_finds(detector, good[:3], 10, 6)


def test_sixteen_bits_score_as_eight(good, crossed):
    deep = cross().fit(good.astype(np.uint16) * 257)
    new = with_square(good_images(3, seed=1), 3, 5)
    found, expected = deep.score_samples(new * np.uint16(257)), crossed
    np.testing.assert_allclose(found, expected.score_samples(new), rtol=1e-2)


def test_the_scale_of_floats_does_not_matter(good):
    new = with_square(good_images(3, seed=1), 3, 5)
    expected = cross().fit(good * 1.0).score_samples(new * 1.0)
    for offset, scale in ((0, 1e-100), (-1e11, 1e6)):
        detector = cross().fit(offset + scale * good)
        found = detector.score_samples(offset + scale * new)
        np.testing.assert_allclose(found, expected, rtol=2e-2)


def test_images_of_several_sizes(good):
    several = [*good_images(10), *good_images(10, seed=1)[:, :28, :40]]
    detector = cross(image_size=SIZE).fit(several)
    maps = detector.anomaly_map(several)
    assert [amap.shape for amap in maps] == [image.shape for image in several]
    assert_finds(detector, good[:2], 14, 30)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_constant_images_give_finite_maps(good, value, lite0):
    constant = np.full((6, 32, 32), value, np.uint8)
    detector = cross(encoder=lite0)
    with pytest.warns(UserWarning, match="All 6 good images are equal"):
        detector.fit(constant)
    other = np.concatenate([constant[:1], constant[:1] // 2 + 60, good[:1, :, :32]])
    maps = detector.anomaly_map(other)
    assert np.isfinite(maps).all()
    assert maps[0].max() < 5
    assert maps[2].max() > maps[0].max()


# Promises.


def test_cross_calibration_uses_all_images_and_promises_nothing(good, crossed):
    assert len(crossed.calibration_scores_) == 20
    assert crossed.provenance_["n_training"] == 20
    assert crossed.offset_ == robust_threshold(crossed.calibration_scores_, 0.1)
    detector = pickle.loads(pickle.dumps(crossed))
    for _ in range(2):
        assert np.isnan(detector.promised_fpr_)
        assert detector.is_cross_fitted_
        detector.retarget(0.2)
    assert detector.offset_ == robust_threshold(crossed.calibration_scores_, 0.2)
    detector.calibrate(good_images(19, seed=1))
    assert detector.promised_fpr_ == 0.2
    assert not detector.is_cross_fitted_
    assert detector.retarget(0.1).promised_fpr_ == 0.1


def test_scores_of_cross_calibration_are_as_those_of_new_images(crossed):
    """Those of images that are known would be higher."""
    new = crossed.score_samples(good_images(40, seed=1))
    known = np.median(crossed.score_samples(good_images(20)))
    assert np.median(new) < known
    found = np.median(crossed.calibration_scores_)
    assert abs(found - np.median(new)) < 0.5 * (known - np.median(new))


def test_cross_calibration_keeps_groups_together(good, fits):
    groups = np.array([*"abcdefghij" * 2])
    detector = cross().fit(good, groups=groups)
    assert len(detector.calibration_scores_) == 10
    folds = fits[0][3]
    assert sorted(np.concatenate(folds)) == list(range(20))
    assert [len(set(groups[fold])) for fold in folds] == [1] * 10


# Parameters.


@pytest.mark.parametrize(
    ("parameters", "shape", "words"),
    [
        ({"encoder": None}, SIZE, r'epochs=0 trains no network.*Set encoder="eff'),
        ({"epochs": 2, "calibration": "cross"}, SIZE, r"got epochs=2\. Set epochs=0"),
        ({}, (*SIZE, 4), r"must have 1 or 3 channels; got 4\. .* or set encoder=None"),
        ({"encoder": "efficientnet-lite9"}, SIZE, "'encoder' parameter"),
    ],
)
def test_what_does_not_go_together_is_said_before_the_fit(parameters, shape, words):
    with pytest.raises(ValueError, match=words):
        make(**parameters).fit(np.zeros((4, *shape), np.uint8))


def test_searches_choose_an_encoder(good):
    X = np.concatenate([good[:12], with_square(good[12:], 14, 30, value=150)])
    y = np.repeat([1, -1], [12, 8])
    search = GridSearchCV(
        make(encoder=None, epochs=1),
        {"encoder": [None, "efficientnet-lite0"]},
        scoring=image_auroc_scorer,
        cv=StratifiedKFold(2, shuffle=True, random_state=0),
    )
    search.fit(X, y)
    assert search.cv_results_["mean_test_score"][1] > 0.9
    best = search.best_estimator_
    assert best.get_params()["encoder"] == search.best_params_["encoder"]
    assert clone(best).get_params() == best.get_params()


def test_equal_fits_run_once_with_an_encoder_of_ones_own(good, tmp_path, fits):
    detector = cross(memory=str(tmp_path))
    for again in (detector, detector, clone(detector), cross(memory=str(tmp_path))):
        again.fit(good)
    assert len(fits) == 1
    scores = again.score_samples(good)
    np.testing.assert_array_equal(detector.score_samples(good), scores)
    cross(memory=str(tmp_path), encoder=own_encoder(1)).fit(good)
    assert len(fits) == 2


@pytest.mark.parametrize("name", [None, "efficientnet-lite0"])
def test_pickles_are_equal_to_the_bit(good, name, tmp_path):
    good = good[:8]
    detector = cross(encoder=name or own_encoder()).fit(good)
    joblib.dump(detector, tmp_path / "detector")
    again = joblib.load(tmp_path / "detector")
    for method in ("anomaly_map", "score_samples"):
        found, expected = (getattr(d, method)(good) for d in (again, detector))
        np.testing.assert_array_equal(found, expected)
