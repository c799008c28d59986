"""The detector keeps its contract: thresholds, maps, what trains and what does not."""

import ast
import copy
import inspect
import json
import pickle
import random
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import joblib
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError, UndefinedMetricWarning
from sklearn.model_selection import GridSearchCV

import skad.detectors.learning
import skad.detectors.patch
from skad import ImageFolder, PatchAutoencoderDetector
from skad.detectors.split import digest
from skad.metrics import balanced_accuracy_scorer
from skad.threshold.conformal import conformal_threshold, labelled_threshold

SIZE = (32, 28)
METHODS = (
    "anomaly_map anomaly_regions calibrate decision_function p_value predict "
    "inspect predict_mask reconstruct score_samples"
).split()
NAMES = list(inspect.signature(PatchAutoencoderDetector).parameters)

pytestmark = pytest.mark.filterwarnings("ignore:target_fpr=.* cannot be promised")


def good_images(n, size=SIZE, n_channels=None, dtype=np.uint8, seed=0):
    """A soft pattern in one pose, and noise; mean 90, deviation 30."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    pattern = 90 + 30 * np.sin(rows / 4) + 20 * np.cos(columns / 3)
    if n_channels is not None:
        pattern = pattern[..., None] + 5 * np.arange(n_channels)
    images = pattern + rng.normal(0, 4, (n, *pattern.shape))
    scale = 257 if dtype == np.uint16 else 1
    return (images * scale).astype(dtype)


def with_square(images, top, left, side=6, value=250):
    images = images.copy()
    images[:, top : top + side, left : left + side] = value
    return images


def fit(X, y=None, **parameters):
    defaults = {"patch_size": 8, "epochs": 1, "random_state": 0, "device": "cpu"}
    return PatchAutoencoderDetector(**(defaults | parameters)).fit(X, y)


def weights(detector):
    return {k: v.numpy().copy() for k, v in detector.network_.state_dict().items()}


def same_weights(a, b):
    return all(np.array_equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def good():
    return good_images(40)


@pytest.fixture(scope="module")
def mixed():
    """20 good images, 10 with defects of all kinds of strength, and their labels."""
    images = good_images(30, seed=1)
    for i, value in enumerate(range(60, 260, 20)):
        images[i] = with_square(images[i : i + 1], 4 + i, 6 + i, value=value)[0]
    return images, np.repeat([-1, 1], [10, 20])


@pytest.fixture(scope="module")
def trained(good):
    return fit(good, epochs=20, target_fpr=0.1)


@pytest.fixture
def detector(trained):
    return copy.deepcopy(trained)


@pytest.fixture
def learned(monkeypatch):
    """Collect the arguments with which learn is called."""
    calls = []
    learn = skad.detectors.patch.learn
    signature = inspect.signature(learn)

    def spied(*args, **options):
        calls.append(signature.bind(*args, **options).arguments)
        return learn(*args, **options)

    monkeypatch.setattr(skad.detectors.patch, "learn", spied)
    return calls


# Parameters.

WRONG = {
    "patch_size": [1, True, 0, -3, 2.5, (), (8, 1), (8, 2.5), "8", None],
    "image_size": [0, True, 2.5, (), (8,), (8, 8, 8), (8, 0), (8, 2.5), "8"],
    "image_shape": [896, "square", (32, 28), (-32, 28)],
    "epochs": [0, -1, 1.5, "1", None],
    "batch_size": [0, -1, 1.5, None],
    "learning_rate": [0, -0.1, np.inf, np.nan, "fast", None],
    "validation_fraction": [0, 1, 0.0, 1.0, -0.1, 2, "0.3", None],
    "contamination": [0, 0.0, 0.51, -0.1, "none", None],
    "target_fpr": [0, 1, -0.1, 1.5, "auto", None],
    "roi": [
        np.ones((28, 32), bool),
        np.zeros(SIZE, bool),
        np.ones((*SIZE, 3), np.uint8),
        np.full(SIZE, np.nan),
        np.full(SIZE, "1"),
        3,
    ],
    "device": ["gpu", "cuda:x", "meta", "", 0, None],
    "memory": [3, 0.5],
    "warm_start": ["yes", 2],
    "random_state": [-1, 0.5, "seed"],
    "verbose": [-1, 0.5, "loud", None],
}


@pytest.mark.parametrize("name", NAMES)
def test_wrong_values_of_every_parameter_are_named(good, name):
    for value in WRONG[name]:
        with pytest.raises(ValueError, match=rf"\b{name}\b"):
            fit(good[:4], **{name: value})


def test_a_device_that_is_not_there(good, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    words = re.escape("device='cuda:1', but this machine has 1 CUDA devices. Use")
    with pytest.raises(ValueError, match=words):
        fit(good[:4], device="cuda:1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match=r'0 CUDA devices\. Use device="auto"'):
        fit(good[:4], device="cuda")


def test_the_constructor_assigns_and_nothing_else():
    given = {name: object() for name in NAMES}
    detector = PatchAutoencoderDetector(**given)
    assert vars(detector) == given
    assert detector.get_params(deep=False) == given


def test_all_but_the_first_parameter_are_keyword_only():
    first, *rest = inspect.signature(PatchAutoencoderDetector).parameters.values()
    assert first.name == "patch_size"
    assert {p.kind for p in rest} == {inspect.Parameter.KEYWORD_ONLY}


def section(title):
    """Return the lines of one section of the class's docstring."""
    text = inspect.getdoc(PatchAutoencoderDetector)
    return re.search(rf"^{title}\n-+\n(.*?)(?=\n\n\w+\n-+\n|\Z)", text, re.M | re.S)[1]


def test_documented_defaults_are_those_of_the_signature():
    found = re.findall(r"^(\w+) :.*", section("Parameters"), re.M)
    assert found == NAMES
    defaults = re.findall(r"^(\w+) :.*default=(.+)$", section("Parameters"), re.M)
    signature = inspect.signature(PatchAutoencoderDetector).parameters
    documented = {name: ast.literal_eval(value) for name, value in defaults}
    assert documented == {name: p.default for name, p in signature.items()}


def test_documented_attributes_are_those_of_a_fitted_detector(detector, mixed):
    documented = set(re.findall(r"^(\w+_) :|^(\w+_)$", section("Attributes"), re.M))
    documented = {a or b for a, b in documented}
    detector.calibrate(*mixed)
    found = {name for name in dir(detector) if re.fullmatch("[a-z].*_", name)}
    held = {name for name in found if hasattr(detector, name)}
    assert documented == held | {"feature_names_in_"}
    assert isinstance(detector.network_, torch.nn.Module)
    assert not detector.network_.training
    assert detector.image_shape_in_ == SIZE
    assert detector.n_features_in_ == 32 * 28


@pytest.mark.parametrize("method", [*METHODS, "score"])
def test_nothing_works_before_fit(method, good):
    detector = PatchAutoencoderDetector()
    arguments = (good, np.ones(40)) if method == "score" else (good,)
    with pytest.raises(NotFittedError):
        getattr(detector, method)(*arguments)
    with pytest.raises(ValueError, match="n_samples = 1"):
        detector.fit(good[:1])
    with pytest.raises(NotFittedError):
        getattr(detector, method)(*arguments)
    assert not hasattr(detector, "network_")


def test_a_fit_that_fails_leaves_the_former_one(detector, good):
    before = pickle.dumps(detector)
    for X in (good[:1], good[:, :5, 0] / 1.0, good_images(4, n_channels=3) * np.nan):
        with pytest.raises(ValueError):
            detector.set_params(roi=np.ones((3, 3), bool)).fit(X)
    detector.set_params(roi=None)
    assert pickle.dumps(detector) == before


@pytest.mark.parametrize("broken", ["train", "score_images"])  # on the way, at the end
def test_a_training_that_fails_leaves_the_former_one(
    detector, good, monkeypatch, broken
):
    def fail(*_, **__):
        raise RuntimeError("out of memory")

    before = pickle.dumps(detector)
    monkeypatch.setattr(skad.detectors.learning, broken, fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        detector.fit(good)
    assert pickle.dumps(detector) == before


# Scores, maps and the one threshold.


def agree(detector, X):
    """Check all outputs against each other; return what predict says."""
    maps, scores = detector.anomaly_map(X), detector.score_samples(X)
    decisions, predicted = detector.decision_function(X), detector.predict(X)
    masks, regions = detector.predict_mask(X), detector.anomaly_regions(X)
    assert (maps.dtype, maps.shape) == (np.float32, (len(X), *X.shape[1:3]))
    assert (masks.dtype, masks.shape) == (bool, maps.shape)
    assert scores.dtype == decisions.dtype == np.float64
    assert predicted.dtype.kind == "i"
    assert np.isfinite(maps).all()
    assert detector.pixel_threshold_ == -detector.offset_
    shifted = copy.copy(detector)
    shifted.offset_ -= 1.0
    assert shifted.pixel_threshold_ == detector.pixel_threshold_ + 1.0
    np.testing.assert_array_equal(scores, -maps.max((1, 2)).astype(np.float64))
    np.testing.assert_array_equal(decisions, scores - detector.offset_)
    np.testing.assert_array_equal(predicted, np.where(decisions >= 0, 1, -1))
    np.testing.assert_array_equal(
        masks, maps.astype(np.float64) > detector.pixel_threshold_
    )
    np.testing.assert_array_equal(predicted == -1, masks.any((1, 2)))
    np.testing.assert_array_equal(predicted == -1, [len(r) > 0 for r in regions])
    np.testing.assert_array_equal(masks.sum((1, 2)), [sum_areas(r) for r in regions])
    return predicted


def sum_areas(regions):
    return sum(region.area for region in regions)


def test_an_image_is_flagged_exactly_where_its_mask_is_not_empty(detector, mixed):
    X, y = mixed
    assert set(agree(detector, X)) == {1, -1}
    scores = detector.score_samples(X)
    for target_fpr in (0.05, 0.3, 0.5, 0.9):
        agree(detector.set_params(target_fpr=target_fpr).calibrate(X), X)
        assert detector.offset_ in scores  # a threshold that is exactly a score
    for metric in ("balanced_accuracy", "f1", "cost"):
        agree(detector.calibrate(X, y, metric=metric), X)
    for i in range(len(X)):  # ties, and the floats next to them
        detector.set_params(target_fpr=0.5).calibrate(X[i : i + 1])
        assert detector.offset_ == scores[i]
        assert agree(detector, X)[i] == 1


@pytest.mark.parametrize("contamination", [0.1, 0.25, 0.5, 0.123])
def test_contamination_is_the_share_that_is_flagged(good, contamination):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no promise is asked for, none is broken
        detector = fit(good, contamination=contamination, target_fpr=0.001)
    predicted = agree(detector, good)
    assert np.mean(predicted == -1) == pytest.approx(contamination, abs=1 / len(good))


def test_contamination_is_a_share_of_the_images_that_count(good):
    y = np.where(np.arange(40) < 20, 1, -1)
    X = np.where((y == 1)[:, None, None], good, with_square(good, 10, 10))
    detector = fit(X, y, contamination=0.25)
    assert np.mean(detector.predict(X[:20]) == -1) == 0.25


@pytest.mark.parametrize("target_fpr", [0.1, 0.35, 0.9])
def test_the_threshold_is_the_conformal_one(good, target_fpr):
    detector = fit(good, target_fpr=target_fpr)
    scores = detector.calibration_scores_
    assert scores.shape == (12,)
    assert (np.diff(scores) >= 0).all()
    k = int(target_fpr * 13)
    assert detector.offset_ == scores[k - 1] == conformal_threshold(scores, target_fpr)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("n", "m"), [(2, 1), (5, 2)])
def test_few_images_are_a_warning(good, n, m):
    with pytest.warns(UserWarning, match=f"promised: {m} good image"):
        detector = fit(good[:n], target_fpr=0.05)
    assert len(detector.calibration_scores_) == m
    assert detector.offset_ == detector.calibration_scores_[0]
    agree(detector, good)


@pytest.mark.parametrize(("y", "n"), [(None, 1), ([1, -1], 1), ([-1, -1], 0)])
def test_one_good_image_is_an_error(good, y, n):
    X = good[: 1 if y is None else 2]
    with pytest.raises(ValueError, match=f"2 good images, .* n_samples = {n}. Add"):
        fit(X, y)


def test_p_values_are_ranks_among_the_calibration_scores(detector, mixed):
    p_values, scores = detector.p_value(mixed[0]), detector.score_samples(mixed[0])
    m = len(detector.calibration_scores_)
    for p, s in zip(p_values, scores, strict=True):
        lower = sum(c <= s for c in detector.calibration_scores_)
        assert p == (1 + lower) / (m + 1)


# What trains and what calibrates.


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.99])
def test_held_out_images_are_not_trained_on(good, learned, trainings, share):
    detector = fit(good[:20], validation_fraction=share)
    (call,) = learned
    training, calibration = call["training"], call["calibration"]
    assert sorted([*training, *calibration]) == list(range(20))
    assert len(calibration) == min(max(round(20 * share), 1), 19)
    assert trainings == [len(training)]
    np.testing.assert_array_equal(
        detector.calibration_scores_,
        np.sort(detector.score_samples(good[:20][calibration])),
    )


def test_held_out_images_leave_no_trace_but_the_threshold(good, learned):
    detector = PatchAutoencoderDetector(8, epochs=1, random_state=0, device="cpu")
    before = clone(detector).fit(good[:12], groups=range(12))
    X = good[:12].copy()
    X[learned[0]["calibration"]] = 255 - X[learned[0]["calibration"]]
    after = clone(detector).fit(X, groups=range(12))  # negatives look alike
    assert same_weights(weights(before), weights(after))
    np.testing.assert_array_equal(before.anomaly_map(good), after.anomaly_map(good))
    assert before.offset_ > after.offset_


def test_images_labelled_anomalous_are_left_out(good, learned):
    X = np.concatenate([with_square(good[:6], 4, 4), good[:10]])
    y = np.repeat([-1, 1], [6, 10])
    detector = fit(X, y)
    used = [*learned[0]["training"], *learned[0]["calibration"]]
    assert sorted(used) == list(range(6, 16))
    alone = fit(good[:10])
    assert len(learned[1]["training"]) == len(learned[0]["training"])
    assert detector.calibration_scores_.shape == alone.calibration_scores_.shape


@pytest.mark.parametrize("y", [np.ones(12), np.arange(12), np.zeros(12)])
def test_other_labels_are_ignored(good, y):
    expected = fit(good[:12]).score_samples(good)
    of_one_kind = not y.any()
    with pytest.warns(UserWarning, match="ignored") if of_one_kind else nullcontext():
        detector = fit(good[:12], y)
    np.testing.assert_array_equal(detector.score_samples(good), expected)


@pytest.mark.parametrize("labels", [["good", "bad"], [1, np.nan], [-1, None]])
def test_labels_that_teach_the_wrong_images_are_an_error(detector, mixed, labels):
    X, y = mixed[0], labels * 15
    for use in (fit, detector.score, detector.calibrate):
        with pytest.raises(ValueError, match=r"\+1 \(good\)"):
            use(X, y)


def test_fit_predict_learns_nothing_from_images_labelled_bad(learned):
    X, y = np.concatenate([good_images(8), good_images(3, seed=4)]), np.ones(11)
    y[8:] = -1
    fitted = fit(X, y, target_fpr=0.4)
    labels = clone(fitted).fit_predict(X, y)
    np.testing.assert_array_equal(labels, fitted.predict(X))
    assert [len(t["training"]) + len(t["calibration"]) for t in learned] == [8, 8]


def test_labels_of_another_length_are_an_error(good):
    with pytest.raises(ValueError, match="one label an image, 12 in all"):
        fit(good[:12], [1, -1, 1])


# Places and resolutions.


@pytest.mark.parametrize(
    ("size", "image_size"),
    [
        ((33, 27), None),
        ((33, 27), 16),
        ((33, 27), (17, 40)),
        ((20, 50), (64, 64)),
        ((1, 1), None),
        ((3, 5), None),
        ((1, 10), (8, 8)),
        ((40, 3), 1),
    ],
)
def test_maps_have_the_resolution_of_the_input(size, image_size):
    X = good_images(6, size)
    detector = fit(X, image_size=image_size)
    agree(detector, X)
    rebuilt = detector.reconstruct(X)
    assert (rebuilt.shape, rebuilt.dtype) == (X.shape, X.dtype)


@pytest.mark.parametrize(("top", "left"), [(0, 0), (3, 20), (13, 11), (26, 22)])
def test_a_defect_is_found_where_it_was_planted(trained, top, left):
    X = with_square(good_images(3, seed=9), top, left)
    truth = np.zeros(SIZE, bool)
    truth[top : top + 6, left : left + 6] = True
    assert (trained.predict(X) == -1).all()
    for amap, mask, regions in zip(
        trained.anomaly_map(X),
        trained.predict_mask(X),
        trained.anomaly_regions(X),
        strict=True,
    ):
        row, column = np.unravel_index(amap.argmax(), SIZE)
        assert -2 <= row - top < 8 and -2 <= column - left < 8  # or a cell beside it
        assert (mask & truth).sum() > 0.5 * truth.sum()
        row_min, col_min, row_max, col_max = regions[0].bbox
        assert truth[row_min:row_max, col_min:col_max].any()
        assert regions[0].peak == amap.max()


@pytest.mark.parametrize(
    ("options", "n_channels"),
    [
        ({"image_size": 24}, None),
        ({"image_size": (64, 40)}, 3),
        ({"patch_size": (4, 16)}, 2),
        ({"patch_size": 500}, None),
    ],
)
def test_a_defect_is_found_at_other_resolutions_and_scales(options, n_channels):
    detector = fit(good_images(20, n_channels=n_channels), epochs=10, **options)
    X = with_square(good_images(3, n_channels=n_channels, seed=9), 20, 4)
    assert (detector.predict(X) == -1).all()
    for amap in detector.anomaly_map(X):
        row, column = np.unravel_index(amap.argmax(), SIZE)
        assert 19 <= row < 27 and 3 <= column < 11


def test_several_patch_sizes_make_one_detector(good, learned):
    fit(good[:4], patch_size=(4, 12))
    fit(good[:4], patch_size=np.int64(6))
    assert [call["settings"].patch_sizes for call in learned] == [(4, 12), (6,)]


def test_a_map_depends_on_its_image_alone(trained):
    X = good_images(70, seed=5)  # more than one pass
    X = np.concatenate([X, with_square(X[:5], 8, 8)])
    maps, scores = trained.anomaly_map(X), trained.score_samples(X)
    order = np.random.default_rng(0).permutation(len(X))
    np.testing.assert_array_equal(trained.anomaly_map(X[order]), maps[order])
    np.testing.assert_array_equal(trained.score_samples(X[order]), scores[order])
    for i in (0, 63, 64, 69, 74):
        np.testing.assert_array_equal(trained.anomaly_map(X[i : i + 1])[0], maps[i])
        np.testing.assert_array_equal(trained.score_samples(X[i : i + 7])[0], scores[i])
    rebuilt = trained.reconstruct(X)
    np.testing.assert_array_equal(trained.reconstruct(X[68:69])[0], rebuilt[68])


# Pixels outside of the region of interest count nowhere.

ROI = np.zeros(SIZE, bool)
ROI[6:26, 5:20] = True


@pytest.fixture(scope="module", params=[None, (24, 40)])
def pair(request):
    X = good_images(14)
    noisy = np.where(ROI, X, good_images(14, seed=3)[::-1] // 3 + 150)
    options = {"roi": ROI, "image_size": request.param, "epochs": 8}
    return fit(X, **options), fit(noisy, **options)


def test_pixels_outside_the_roi_do_not_train_or_calibrate(pair):
    assert same_weights(*map(weights, pair))
    assert pair[0].offset_ == pair[1].offset_
    np.testing.assert_array_equal(*(d.calibration_scores_ for d in pair))


def test_pixels_outside_the_roi_do_not_score(pair):
    X = good_images(5, seed=4)
    for value in (0, 255):
        changed = np.where(ROI, X, np.uint8(value))
        np.testing.assert_array_equal(
            pair[0].anomaly_map(X), pair[0].anomaly_map(changed)
        )
        np.testing.assert_array_equal(
            pair[0].score_samples(X), pair[1].score_samples(changed)
        )


def test_maps_are_0_outside_the_roi(pair):
    X = with_square(good_images(3, seed=4), 10, 16, side=12)
    agree(pair[0], X)
    assert (pair[0].anomaly_map(X)[:, ~ROI] == 0).all()
    assert not pair[0].predict_mask(X)[:, ~ROI].any()


def test_what_is_inside_the_roi_is_found(pair):
    X = with_square(good_images(3, seed=4), 12, 9)
    assert (pair[0].predict(X) == -1).all()
    for amap in pair[0].anomaly_map(X):
        row, column = np.unravel_index(amap.argmax(), SIZE)
        assert 11 <= row < 19 and 8 <= column < 16


def test_huge_values_outside_the_roi_are_nothing():
    X = good_images(8, dtype=float)
    detector = fit(X, roi=ROI)
    changed = np.where(ROI, X, 1e60)
    np.testing.assert_array_equal(
        detector.score_samples(X), detector.score_samples(changed)
    )


def test_a_roi_of_one_pixel_will_do():
    roi = np.zeros(SIZE, bool)
    roi[30, 3] = True
    X = good_images(6)
    detector = fit(X, roi=roi, image_size=8)
    agree(detector, X)


# Numbers of all kinds.


@pytest.mark.parametrize("value", [0, 100, 255])
def test_images_of_one_flat_colour(value):
    X = np.full((10, *SIZE), value, np.uint8)
    with pytest.warns(UserWarning, match="All 10 good images are equal"):
        detector = fit(X, target_fpr=0.3)
    assert (agree(detector, X) == 1).all()
    assert (detector.predict(with_square(X, 8, 8, value=128)) == -1).all()
    np.testing.assert_allclose(detector.reconstruct(X), value, atol=30)


@pytest.mark.parametrize("n_channels", [1, 2, 3, 4, 7])
def test_any_number_of_channels(n_channels):
    X = good_images(6, n_channels=n_channels)
    detector = fit(X)
    assert detector.image_shape_in_ == (*SIZE, n_channels)
    assert detector.n_features_in_ == 32 * 28 * n_channels
    agree(detector, X)
    assert detector.reconstruct(X).shape == X.shape


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.uint16, np.int16, np.int64, np.float16, np.float32, float]
)
def test_reconstructions_have_shape_type_and_range_of_the_input(dtype):
    X = good_images(16, dtype=dtype)
    detector = fit(X, epochs=40)
    agree(detector, X)
    rebuilt = detector.reconstruct(X)
    assert (rebuilt.shape, rebuilt.dtype) == (X.shape, X.dtype)
    error = np.abs(rebuilt.astype(float) - X.astype(float)).mean()
    assert error < 0.5 * X.astype(float).std()


def test_bool_images():
    X = good_images(8) > 90
    detector = fit(X, epochs=5)
    agree(detector, X)
    assert detector.reconstruct(X).dtype == bool


@pytest.mark.parametrize("value", [1e6, -1e10, 1e30, 1e60])
def test_wild_values_are_anomalous_and_finite(value):
    X = good_images(8, dtype=float)
    detector = fit(X)
    assert agree(detector, with_square(X[:2], 8, 8, value=value)).tolist() == [-1, -1]
    assert np.isfinite(detector.reconstruct(X)).all()


# Regions.


def test_regions_of_a_map_drawn_by_hand(detector, monkeypatch):
    maps = np.zeros((3, 8, 9), np.float32)
    maps[0, 1:3, 1:4] = 5.0
    maps[0, 3, 4] = 7.0  # touches the rectangle by a corner
    maps[0, 6, 8] = 9.0
    maps[0, 0, 7] = 2.0  # exactly the threshold: no region
    maps[2] = 3.0
    detector.offset_ = -2.0
    X = np.zeros((3, *SIZE), np.uint8)
    monkeypatch.setattr(
        "skad.detectors.base._maps", lambda *_: iter([maps[:2], maps[2:]])
    )
    first, second, third = detector.anomaly_regions(X)
    assert [region._asdict() for region in first] == [
        {"bbox": (6, 8, 7, 9), "area": 1, "peak": 9.0, "centroid": (6.0, 8.0)},
        {
            "bbox": (1, 1, 4, 5),
            "area": 7,
            "peak": 7.0,
            "centroid": (pytest.approx(12 / 7), pytest.approx(16 / 7)),
        },
    ]
    assert second == []
    (whole,) = third
    assert (whole.bbox, whole.area) == ((0, 0, 8, 9), 72)
    assert [type(value) for value in (*whole.bbox, whole.area)] == [int] * 5
    assert type(whole.peak) is float
    np.testing.assert_array_equal(detector.predict_mask(X).sum((1, 2)), [8, 0, 72])


# Calibration.


def test_calibration_on_good_images(detector, trainings):
    X = good_images(30, seed=8)
    before = weights(detector)
    assert detector.set_params(target_fpr=0.2).calibrate(X) is detector
    np.testing.assert_array_equal(
        detector.calibration_scores_, np.sort(detector.score_samples(X))
    )
    assert detector.offset_ == detector.calibration_scores_[5]  # floor(0.2 * 31) = 6
    maps = detector._mapper.first_look(X[..., np.newaxis])
    assert detector.mean_map_ == pytest.approx(maps.mean(), rel=1e-5)
    assert trainings == []
    assert same_weights(before, weights(detector))
    assert not hasattr(detector, "labelled_threshold_")


@pytest.mark.parametrize("metric", ["balanced_accuracy", "f1", "cost"])
def test_calibration_on_labelled_images(detector, mixed, trainings, metric):
    X, y = mixed
    scores = detector.score_samples(X)
    detector.calibrate(X, list(y), metric=metric, cost_miss=3, cost_false_alarm=2)
    expected = labelled_threshold(scores, y, metric, 3, 2)
    assert detector.labelled_threshold_ == expected
    assert detector.offset_ == expected.offset
    np.testing.assert_array_equal(detector.calibration_scores_, np.sort(scores[y == 1]))
    predicted = agree(detector, X)
    assert expected.detection_rate == np.mean(predicted[y == -1] == -1)
    assert expected.false_alarm_rate == np.mean(predicted[y == 1] == -1)
    if metric == "balanced_accuracy":
        assert detector.score(X, y) == pytest.approx(expected.value)
    assert trainings == []
    detector.calibrate(X[y == 1])
    assert not hasattr(detector, "labelled_threshold_")


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (np.repeat([0, 1], 15), "must hold the labels +1 (good) and -1 (anomalous)"),
        (np.repeat([0, 1], 15), "np.where(bad, -1, 1)"),
        (np.array(["good", "bad"] * 15), "must hold the labels +1 (good)"),
        (np.ones(29), "one label an image, 30 in all; got shape (29,)"),
        (np.ones((30, 2)), "got shape (30, 2)"),
        (np.ones(30), "both labels"),
    ],
)
def test_wrong_labels_calibrate_nothing(detector, mixed, y, words):
    before = pickle.dumps(detector)
    with pytest.raises(ValueError, match=re.escape(words)):
        detector.calibrate(mixed[0], y)
    assert pickle.dumps(detector) == before


def test_wrong_metrics_and_costs(detector, mixed):
    for X_and_y in (mixed, mixed[:1]):
        with pytest.raises(ValueError, match="metric must be one of"):
            detector.calibrate(*X_and_y, metric="accuracy")
    for cost in (-1, None, "a"):
        with pytest.raises(ValueError, match="cost_miss must be a finite number >= 0"):
            detector.calibrate(*mixed, metric="cost", cost_miss=cost)


@pytest.mark.parametrize("target_fpr", [None, "a", 0, 1.0])
def test_a_target_fpr_set_wrong_calibrates_nothing(detector, mixed, target_fpr):
    offset = detector.offset_
    with pytest.raises(ValueError, match="target_fpr must be above 0 and below 1; got"):
        detector.set_params(target_fpr=target_fpr).calibrate(mixed[0])
    assert detector.offset_ == offset


def test_score_is_the_balanced_accuracy(detector, mixed):
    X, y = mixed
    predicted = detector.predict(X)
    detected = np.mean(predicted[y == -1] == -1)
    passed = np.mean(predicted[y == 1] == 1)
    assert detector.score(X, y) == pytest.approx((detected + passed) / 2)
    assert type(detector.score(X, y)) is float
    assert detector.score(X, y) == balanced_accuracy_scorer(detector, X, y)
    assert detector.score(X, y.astype(object)) == detector.score(X, y)


def test_the_score_for_one_kind_alone_lets_a_search_go_on(detector, mixed):
    """A fold without labels of the other kind is no reason to end with NaN."""
    X, y = mixed
    predicted = detector.predict(X)
    for label in (1, -1):
        share = np.mean(predicted[y == label] == label)
        assert detector.score(X[y == label], y[y == label]) == pytest.approx(share)


def test_the_score_for_other_labels_is_undefined(detector, mixed):
    with pytest.warns(UndefinedMetricWarning, match="np.where"):
        assert np.isnan(detector.score(mixed[0], np.repeat([0, 1], 15)))
    with pytest.raises(ValueError, match="one label an image, 30 in all"):
        detector.score(mixed[0], [1, -1])


# Training again, and not training again.


def test_a_warm_start_goes_on_from_the_fitted_network(detector, good):
    learnt = {name for name, _ in detector.network_.named_parameters()}
    before = weights(detector)

    def furthest():
        after = weights(detector)
        return max(np.abs(after[name] - before[name]).max() for name in learnt)

    detector.set_params(epochs=1, learning_rate=1e-12, warm_start=True).fit(good)
    assert furthest() < 1e-6
    detector.set_params(warm_start=False).fit(good)
    assert furthest() > 0.01


def test_a_first_warm_start_is_a_cold_one(good):
    cold, warm = fit(good[:6]), fit(good[:6], warm_start=True)
    assert same_weights(weights(cold), weights(warm))


def test_a_warm_start_calibrates_on_images_it_was_not_trained_on():
    X = good_images(24)
    detector = fit(X[:20], warm_start=True, validation_fraction=0.25)
    for seed in (None, 1):
        detector.set_params(random_state=seed).fit(X[:20])
        assert trained_on(detector, X[:20]).sum() == 15
    known = trained_on(detector, X)
    with pytest.raises(ValueError, match=r"trained on all of X\. Add images, or train"):
        detector.fit(X[known])
    detector.fit(X)  # 6 are held out, of 9 that it does not know
    assert trained_on(detector, X).sum() == 18
    calibrating = np.isin(detector.score_samples(X), detector.calibration_scores_)
    assert calibrating.sum() == 6
    assert not (calibrating & known).any()


def test_copies_train_and_calibrate_once(good):
    with pytest.warns(UserWarning, match="20 of 60 good images are copies of others"):
        copies = fit(np.concatenate([good, good[::-2]]))
    alone = fit(good)
    assert same_weights(weights(copies), weights(alone))
    np.testing.assert_array_equal(copies.calibration_scores_, alone.calibration_scores_)


def test_copies_calibrate_once(detector, good):
    new = good_images(10, seed=9)
    with pytest.warns(UserWarning, match="30 of 40 good images are copies of others"):
        detector.calibrate(np.repeat(new, 4, 0))
    assert len(detector.calibration_scores_) == 10
    assert detector.promised_fpr_ == max(detector.target_fpr, 1 / 11)


def test_an_image_and_its_copy_are_too_few(good):
    with pytest.warns(UserWarning, match="All 2 good images are equal"):
        fit(good[[3, 3]])
    with pytest.warns(UserWarning, match=r"1 of 3 good .*image 2 is one of image 0"):
        assert len(fit(good[[3, 5, 3]]).calibration_scores_) == 1


def test_what_differs_a_little_is_no_copy():
    X = 1.0 + 1e-9 * np.random.default_rng(0).random((6, *SIZE))
    assert len(fit(X, validation_fraction=0.5).calibration_scores_) == 3


def test_a_few_features_may_be_equal_by_chance():
    X = np.random.default_rng(0).integers(3, size=(30, 4)).astype(float)
    assert len(fit(X).calibration_scores_) == 9


@pytest.mark.parametrize(
    "types", [("f4", "f8"), ("f8", "f4"), ("i4", "i8"), ("u1", "u2")]
)
def test_images_are_known_in_another_type(types):
    X = good_images(20)
    if types[0].startswith("f"):
        X = X / 255
    first, second = (X.astype(kind) for kind in types)
    if types[1] == "u2":
        second = 257 * second
    detector = fit(first, warm_start=True)
    known = trained_on(detector, first)
    np.testing.assert_array_equal(trained_on(detector, second), known)
    detector.set_params(random_state=1).fit(second)
    calibrating = np.isin(detector.score_samples(second), detector.calibration_scores_)
    assert calibrating.any()
    assert not (calibrating & known).any()


def test_small_differences_and_all_scales_tell_images_apart():
    image = np.random.default_rng(0).random((8, 8, 1))
    brighter = image.copy()
    brighter[3, 4] += 1e-6
    for scale in (1e-300, 1.0, 1e90):
        assert digest(scale * image) == digest(scale * image.copy())
        assert digest(scale * image) != digest(scale * brighter)
    assert digest(2.0 * image) != digest(image)


def test_float32_that_rounds_up_to_a_power_of_two_is_known_again():
    image = np.full((8, 8, 1), 1 - 2.0**-27)
    assert digest(image.astype(np.float32)) == digest(image)


def test_a_cold_start_forgets_what_was_trained_on(good):
    detector = fit(good[:10], warm_start=True)
    assert trained_on(detector, good[:10]).sum() == 7
    detector.set_params(warm_start=False).fit(good[10:20])
    assert not trained_on(detector, good[:10]).any()


def trained_on(detector, X):
    digests = [digest(image[..., np.newaxis]) for image in X]
    return np.isin(np.array(digests, np.uint64), detector._fitted.trained_on)


def test_a_warm_start_needs_as_many_channels(detector):
    detector.set_params(warm_start=True)
    with pytest.raises(ValueError, match=r"network for 1 channels; X has 3\. Set"):
        detector.fit(good_images(4, n_channels=3))


def test_mixed_names_of_columns_are_refused_before_training(trainings):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(np.random.default_rng(0).random((12, 3)))
    with pytest.raises(TypeError, match="Feature names are only supported if all"):
        fit(frame.set_axis(["a", 1, 2], axis=1))
    assert not trainings


def test_equal_trainings_run_once(good, trainings, tmp_path):
    X = good[:10]
    kept = {"memory": str(tmp_path), "epochs": 2}
    first = fit(X, **kept)
    assert len(trainings) == 1
    for thresholds in ({"target_fpr": 0.3}, {"contamination": 0.2}, {"verbose": 0}):
        again = fit(X, **kept, **thresholds)
        np.testing.assert_array_equal(again.anomaly_map(X), first.anomaly_map(X))
        assert same_weights(weights(first), weights(again))
        assert again.history_ == first.history_
        agree(again, X)
    for memory in (tmp_path, joblib.Memory(str(tmp_path), verbose=0)):
        fit(X.copy(), **(kept | {"memory": memory}))
    assert len(trainings) == 1
    for other in (
        {"epochs": 1},
        {"patch_size": 4},
        {"learning_rate": 0.003},
        {"batch_size": 4},
        {"image_size": 20},
        {"random_state": 1},
        {"validation_fraction": 0.5},
        {"roi": np.arange(28) + np.zeros((32, 1)) > 5},
    ):
        fit(X, **(kept | other))
    assert len(trainings) == 9
    fit(good[10:20], **kept)
    assert len(trainings) == 10
    again = fit(X, **kept, warm_start=True)
    assert len(trainings) == 10
    again.fit(X)
    assert len(trainings) == 11


def test_a_search_over_thresholds_trains_once_a_fold(mixed, trainings, tmp_path):
    X, y = mixed
    search = GridSearchCV(
        fit(X[-4:]).set_params(memory=str(tmp_path)),
        {"target_fpr": [0.2, 0.5], "contamination": ["auto", 0.1]},
        cv=2,
        error_score="raise",
    )
    trainings.clear()
    search.fit(X, y)
    assert len(trainings) == 3  # two folds, and all of X at the end
    assert 0 <= search.best_score_ <= 1


def test_the_history_is_plain_and_one_an_epoch(trained):
    assert len(trained.history_) == 20
    assert json.loads(json.dumps(trained.history_)) == trained.history_
    for i, epoch in enumerate(trained.history_, start=1):
        assert type(epoch) is dict
        names = ["epoch", "loss", "reconstruction_loss", "anomaly_loss"]
        assert list(epoch) == names
        assert epoch["epoch"] == i
        assert all(np.isfinite(value) for value in epoch.values())
    assert trained.history_[-1]["loss"] < trained.history_[0]["loss"]


def test_progress_is_shown_when_asked_for(good, capfd):
    fit(good[:4], verbose=0)
    assert capfd.readouterr() == ("", "")
    fit(good[:4], verbose=1, epochs=2)
    out, err = capfd.readouterr()
    assert out == ""
    assert "training" in err
    assert "loss=" in err
    assert "100%" in err


# Randomness.


def global_states():
    return (
        random.getstate(),
        pickle.dumps(np.random.get_state()),  # noqa: NPY002
        torch.get_rng_state().numpy().tobytes(),
    )


@pytest.mark.parametrize("random_state", [None, 0])
def test_the_global_generators_are_left_alone(good, random_state):
    before = global_states()
    detector = fit(good[:6], random_state=random_state)
    for method in METHODS:
        getattr(detector, method)(good)
    assert global_states() == before


def test_equal_seeds_give_equal_bits(good):
    X = good[:8]
    first = fit(X, random_state=3)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    second = fit(X, random_state=3)
    assert same_weights(weights(first), weights(second))
    assert first.history_ == second.history_
    np.testing.assert_array_equal(first.anomaly_map(good), second.anomaly_map(good))
    generators = [np.random.RandomState(3) for _ in range(2)]
    first, second = (fit(X, random_state=g) for g in generators)
    assert same_weights(weights(first), weights(second))
    assert not same_weights(weights(second), weights(second.fit(X)))


@pytest.mark.parametrize("others", [(4, 5), (None, None)])
def test_other_seeds_give_other_networks(good, others):
    first, second = (fit(good[:6], random_state=seed) for seed in others)
    assert not same_weights(weights(first), weights(second))


# What is left as it was.


@pytest.mark.parametrize(
    "arrange",
    [
        np.asfortranarray,
        lambda X: X[::-1, ::-1, ::-1][::-1, ::-1, ::-1],
        lambda X: np.repeat(X, 2, axis=2)[:, :, ::2],
        lambda X: np.moveaxis(np.moveaxis(X, 0, 2).copy(), 2, 0),
    ],
    ids=["fortran", "negative strides", "steps", "images last"],
)
def test_the_layout_in_memory_does_not_matter(good, arrange):
    X = good[:8]
    arranged = arrange(X)
    np.testing.assert_array_equal(arranged, X)
    assert same_weights(weights(fit(X)), weights(fit(arranged)))
    detector = fit(X)
    np.testing.assert_array_equal(
        detector.anomaly_map(X), detector.anomaly_map(arranged)
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_images_are_only_read(tmp_path, dtype):
    X = good_images(8, dtype=dtype)
    path = tmp_path / "images.npy"
    np.save(path, X)
    mapped = np.load(path, mmap_mode="r")
    read_only = X.copy()
    read_only.flags.writeable = False
    expected = fit(X).score_samples(X)
    np.testing.assert_array_equal(X, read_only)
    for same in (mapped, read_only):
        detector = fit(same)
        np.testing.assert_array_equal(detector.score_samples(same), expected)
        for method in METHODS:
            getattr(detector, method)(same)


def test_asking_changes_nothing(detector, mixed):
    before = pickle.dumps(detector)
    for method in set(METHODS) - {"calibrate"}:
        getattr(detector, method)(mixed[0])
    detector.score(*mixed)
    assert pickle.dumps(detector) == before


def test_threads_may_share_a_detector(detector):
    batches = [good_images(6, seed=seed) for seed in range(8)]
    expected = [detector.anomaly_map(X) for X in batches]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(detector.anomaly_map, batches))
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_array_equal(a, b)


def by_joblib(detector, folder):
    joblib.dump(detector, folder / "detector.joblib")
    return joblib.load(folder / "detector.joblib")


@pytest.mark.parametrize(
    "copied",
    [
        lambda detector, _: pickle.loads(pickle.dumps(detector)),
        lambda detector, _: copy.deepcopy(detector),
        by_joblib,
    ],
    ids=["pickle", "deepcopy", "joblib"],
)
def test_copies_are_the_same_to_the_bit(trained, mixed, tmp_path, copied):
    X, y = mixed
    twin = copied(trained, tmp_path)
    for method in set(METHODS) - {"calibrate", "anomaly_regions", "inspect"}:
        np.testing.assert_array_equal(
            getattr(twin, method)(X), getattr(trained, method)(X)
        )
    assert twin.anomaly_regions(X) == trained.anomaly_regions(X)
    assert twin.history_ == trained.history_
    before = pickle.dumps(trained)
    twin.calibrate(X, y)
    twin.set_params(warm_start=True, epochs=1).fit(X)
    assert pickle.dumps(trained) == before


def test_a_clone_is_not_fitted(trained, good):
    twin = clone(trained)
    assert twin.get_params() == trained.get_params()
    with pytest.raises(NotFittedError):
        twin.predict(good)


def test_a_stored_detector_loads_where_its_device_is_not(trained, mixed):
    away = copy.deepcopy(trained).set_params(device="cuda:99")
    back = pickle.loads(pickle.dumps(away))
    np.testing.assert_array_equal(
        back.score_samples(mixed[0]), trained.score_samples(mixed[0])
    )


# Lazy sequences.


def test_a_batch_of_1_is_one_of_2_for_batch_normalisation():
    X = good_images(10, size=(16, 16))
    assert same_weights(*(weights(fit(X, batch_size=size)) for size in (1, 2)))


class Lazy:
    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.images[i]


@pytest.mark.parametrize("n_channels", [None, 3])
def test_files_and_sequences_give_what_arrays_give(tmp_path, n_channels):
    X = good_images(10, n_channels=n_channels)
    for i, image in enumerate(X):
        Image.fromarray(image).save(tmp_path / f"{i:02}.png")
    detector = fit(X)
    for lazy in (ImageFolder(tmp_path), Lazy(X)):
        twin = fit(lazy)
        assert same_weights(weights(twin), weights(detector))
        assert twin.offset_ == detector.offset_
        for method in set(METHODS) - {"calibrate", "inspect"}:
            a, b = getattr(twin, method)(lazy), getattr(detector, method)(X)
            assert np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b


@pytest.mark.parametrize("n_features", [2, 4, 10])
def test_rows_of_a_few_features_train_briefly_and_show_gross_outliers(n_features):
    rng = np.random.default_rng(0)
    X, new, bad = rng.normal(size=(3, 100, n_features))
    bad[:, 0] += np.where(bad[:, 0] > 0, 8, -8)
    detector = PatchAutoencoderDetector(random_state=0, device="cpu").fit(X)
    assert len(detector.history_) == max(1, 75 * n_features // 256)
    good, worse = (detector.score_samples(rows) for rows in (new, bad))
    assert np.mean(worse < np.quantile(good, 0.02)) > 0.95
