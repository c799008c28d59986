"""The detector keeps its contract: thresholds, maps, what trains and what does not."""

import ast
import copy
import inspect
import pickle
import random
import re
import warnings
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.exceptions import NotFittedError, UndefinedMetricWarning

import skad.detectors.patch
from skad import ImageFolder, PatchAutoencoderDetector
from skad.detectors.patch import learn
from skad.detectors.split import digest
from skad.metrics import image_auroc_score
from skad.threshold.conformal import labelled_threshold

SIZE = (32, 28)
ASKING = (
    "anomaly_map anomaly_regions decision_function inspect p_value predict "
    "predict_mask reconstruct score_samples"
).split()

pytestmark = pytest.mark.filterwarnings("ignore:target_fpr=.* cannot be promised")


def good_images(n, size=SIZE, n_channels=None, dtype=np.uint8, seed=0):
    """A soft pattern in one pose, and noise; mean 90, deviation 30."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    pattern = 90 + 30 * np.sin(rows / 4) + 20 * np.cos(columns / 3)
    if n_channels is not None:
        pattern = pattern[..., None] + 5 * np.arange(n_channels)
    images = pattern + rng.normal(0, 4, (n, *pattern.shape))
    scale = 257 if dtype == "u2" else 1
    return (images * scale).astype(dtype)


def with_square(images, top, left, side=6, value=250):
    images = images.copy()
    images[:, top : top + side, left : left + side] = value
    return images


def make(**parameters):
    defaults = {"patch_size": 8, "epochs": 1, "random_state": 0, "device": "cpu"}
    return PatchAutoencoderDetector(**(defaults | parameters))


def fit(X, y=None, **parameters):
    return make(**parameters).fit(X, y)


def weights(detector):
    return {k: v.numpy().copy() for k, v in detector.network_.state_dict().items()}


def same_weights(a, b):
    a, b = weights(a), weights(b)
    return all(np.array_equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def good():
    return good_images(20)


@pytest.fixture(scope="module")
def mixed():
    """20 good images, 10 with defects of all kinds of strength, and their labels."""
    images = good_images(30, seed=1)
    for i, value in enumerate(range(60, 260, 20)):
        images[i] = with_square(images[i : i + 1], 4 + i, 6 + i, value=value)[0]
    return images, np.repeat([-1, 1], [10, 20])


@pytest.fixture(scope="module")
def trained():
    return fit(good_images(40), epochs=12, target_fpr=0.1)


@pytest.fixture
def detector(trained):
    return copy.deepcopy(trained)


@pytest.fixture
def tasks(monkeypatch):
    """Collect the training tasks."""
    found = []

    def spied(task, **options):
        found.append(task)
        return learn(task, **options)

    monkeypatch.setattr(skad.detectors.patch, "learn", spied)
    return found


# Parameters and documentation.

WRONG = {
    "patch_size": [1, True, 2.5, (), (8, 1), (8, 2.5), "8", None, 10**400],
    "image_size": [0, True, 2.5, (), (8,), (8, 8, 8), (8, 0), "8", (2**16, 2**16)],
    "image_shape": [896, "square", (32, 28)],
    "encoder": ["efficientnet", "", 3, torch.nn.Linear(1, 1), True],
    "epochs": [0, -1, 1.5, "1", None],
    "batch_size": [0, 1.5, None],
    "learning_rate": [0, np.inf, np.nan, "fast", 1e300],
    "validation_fraction": [0, 1, -0.1, "0.3"],
    "calibration": ["cross", "none", None, 0.3],
    "contamination": [0, 0.51, "none", None],
    "target_fpr": [0, 1, "auto", None],
    "roi": [np.ones((28, 32), bool), np.zeros(SIZE, bool), np.full(SIZE, np.nan), 3],
    "device": ["gpu", "cuda:x", "cuda:99", "meta", 0],
    "memory": [3],
    "warm_start": ["yes"],
    "random_state": [-1, 0.5, "seed"],
    "verbose": [-1, "loud"],
}


@pytest.mark.parametrize("name", inspect.signature(PatchAutoencoderDetector).parameters)
def test_wrong_values_of_every_parameter_are_named(good, name):
    for value in WRONG[name]:
        with pytest.raises(ValueError, match=rf"\b{name}\b"):
            fit(good[:4], **{name: value})


def section(title):
    """Return the lines of one section of the class's docstring."""
    text = inspect.getdoc(PatchAutoencoderDetector)
    return re.search(rf"^{title}\n-+\n(.*?)(?=\n\n\w+\n-+\n|\Z)", text, re.M | re.S)[1]


def test_documented_defaults_are_those_of_the_signature():
    signature = inspect.signature(PatchAutoencoderDetector).parameters
    assert re.findall(r"^(\w+) :.*", section("Parameters"), re.M) == list(signature)
    defaults = re.findall(r"^(\w+) :.*default=(.+)$", section("Parameters"), re.M)
    documented = {name: ast.literal_eval(value) for name, value in defaults}
    assert documented == {name: p.default for name, p in signature.items()}
    after_the_first = list(signature.values())[1:]
    assert {p.kind for p in after_the_first} == {inspect.Parameter.KEYWORD_ONLY}


def test_documented_attributes_are_those_of_a_fitted_detector(detector, mixed):
    documented = set(re.findall(r"^(\w+_) :", section("Attributes"), re.M))
    detector.calibrate(*mixed)
    names = {name for name in dir(detector) if re.fullmatch("[a-z].*_", name)}
    held = {name for name in names if hasattr(detector, name)}
    assert documented == held | {"feature_names_in_"}
    assert not detector.network_.training
    assert detector.image_shape_in_ == SIZE
    assert detector.n_features_in_ == 32 * 28


def test_nothing_works_before_fit(good):
    detector = make()
    for method in ASKING:
        with pytest.raises(NotFittedError):
            getattr(detector, method)(good)
    for call in (
        lambda: detector.calibrate(good),
        lambda: detector.retarget(0.1),
        lambda: detector.score(good, np.ones(20)),
        lambda: detector.offset_,
    ):
        with pytest.raises(NotFittedError):
            call()
    assert not hasattr(detector, "offset_")


def test_a_fit_that_fails_leaves_the_former_one(detector, good, monkeypatch):
    before = pickle.dumps(detector)
    for X in (good[:1], good[:4] * np.nan):
        with pytest.raises(ValueError):
            detector.fit(X)
    monkeypatch.setattr(skad.detectors.patch, "learn", None)
    with pytest.raises(TypeError):
        detector.set_params(memory=None, warm_start=True).fit(good_images(4, seed=7))
    assert pickle.dumps(detector.set_params(warm_start=False)) == before


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
    np.testing.assert_array_equal(scores, -maps.max((1, 2)).astype(np.float64))
    np.testing.assert_array_equal(decisions, scores - detector.offset_)
    np.testing.assert_array_equal(predicted, np.where(decisions >= 0, 1, -1))
    above = maps.astype(np.float64) > detector.pixel_threshold_
    np.testing.assert_array_equal(masks, above)
    np.testing.assert_array_equal(predicted == -1, masks.any((1, 2)))
    areas = [sum(region.area for region in some) for some in regions]
    np.testing.assert_array_equal(masks.sum((1, 2)), areas)
    return predicted


@pytest.mark.filterwarnings("ignore:.*look nearly the same")
def test_an_image_is_flagged_exactly_where_its_mask_is_not_empty(detector, mixed):
    X, y = mixed
    assert set(agree(detector, X)) == {1, -1}
    scores = detector.score_samples(X)
    agree(detector.set_params(target_fpr=0.5).calibrate(X, groups=range(30)), X)
    assert detector.offset_ in scores  # a threshold that is exactly a score
    agree(detector.calibrate(X, y, metric="f1"), X)
    for i in (0, 29):  # ties
        detector.calibrate(X[i : i + 1])
        assert detector.offset_ == scores[i]
        assert agree(detector, X)[i] == 1


def test_an_offset_that_you_set_promises_nothing(detector, mixed):
    detector.offset_ = -3
    assert (detector.offset_, detector.pixel_threshold_) == (-3.0, 3.0)
    assert np.isnan(detector.promised_fpr_)
    agree(detector, mixed[0])
    with pytest.raises(ValueError, match="offset_ must be a number"):
        detector.offset_ = np.nan


def test_contamination_is_the_share_of_good_images_that_is_flagged(good):
    X = np.concatenate([good, with_square(good, 10, 10)])
    y = np.repeat([1, -1], 20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no promise is asked for, none is broken
        detector = fit(X, y, contamination=0.25, target_fpr=0.001)
    assert np.mean(agree(detector, good) == -1) == 0.25


@pytest.mark.filterwarnings("error")
def test_few_images_are_a_warning_and_one_is_an_error(good):
    with pytest.warns(UserWarning, match="promised: 2 good image"):
        detector = fit(good[:5], target_fpr=0.05)
    assert detector.offset_ == detector.calibration_scores_[0]
    for y, n in ((None, 1), ([1, -1], 1), ([-1, -1], 0)):
        X = good[: 1 if y is None else 2]
        with pytest.raises(ValueError, match=f"2 good images, .* n_samples = {n}. Add"):
            fit(X, y)


# What trains and what calibrates.


def test_held_out_images_leave_no_trace_but_the_threshold(good, tasks):
    before = make().fit(good[:12], groups=range(12))
    held_out = np.sort(before.score_samples(good[tasks[0].calibration]))
    np.testing.assert_array_equal(before.calibration_scores_, held_out)
    X = good[:12].copy()
    X[tasks[0].calibration] = 255 - X[tasks[0].calibration]
    after = make().fit(X, groups=range(12))  # negatives look alike
    assert same_weights(before, after)
    np.testing.assert_array_equal(before.anomaly_map(good), after.anomaly_map(good))
    assert before.offset_ > after.offset_


def test_images_labelled_anomalous_are_left_out(good, tasks):
    X = np.concatenate([with_square(good[:6], 4, 4), good[:10]])
    y = np.repeat([-1, 1], [6, 10])
    predicted = make(target_fpr=0.4).fit_predict(X, y)
    fitted = fit(X, y, target_fpr=0.4)
    np.testing.assert_array_equal(predicted, fitted.predict(X))
    for task in tasks:
        assert sorted([*task.training, *task.calibration]) == list(range(6, 16))
    with pytest.raises(ValueError, match="one label an image, 16 in all"):
        fit(X, y[:3])
    with pytest.warns(UserWarning, match="ignored"):
        fit(good[:4], [0, 1, 1, 0])


# Places and resolutions.


@pytest.mark.parametrize(
    ("size", "image_size"),
    [((33, 27), (17, 40)), ((20, 50), 64), ((1, 1), None), ((40, 3), 1)],
)
def test_maps_have_the_resolution_of_the_input(size, image_size):
    X = good_images(6, size)
    detector = fit(X, image_size=image_size)
    agree(detector, X)
    rebuilt = detector.reconstruct(X)
    assert (rebuilt.shape, rebuilt.dtype) == (X.shape, X.dtype)


def assert_found(detector, X, top, left):
    assert (detector.predict(X) == -1).all()
    results = zip(detector.anomaly_map(X), detector.anomaly_regions(X), strict=True)
    for amap, regions in results:
        row, column = np.unravel_index(amap.argmax(), SIZE)
        assert -2 <= row - top < 8 and -2 <= column - left < 8  # or a cell beside it
        assert regions[0].peak == amap.max()


@pytest.mark.parametrize(("top", "left"), [(0, 0), (13, 11)])
def test_a_defect_is_found_where_it_was_planted(trained, top, left):
    assert_found(trained, with_square(good_images(3, seed=9), top, left), top, left)


def test_a_defect_is_found_at_other_resolutions_and_scales():
    options = {"image_size": (64, 40), "patch_size": (4, 16), "epochs": 10}
    detector = fit(good_images(20, n_channels=3), **options)
    X = with_square(good_images(3, n_channels=3, seed=9), 20, 4)
    assert_found(detector, X, 20, 4)


def test_pixels_outside_the_roi_count_nowhere():
    roi = np.zeros(SIZE, bool)
    roi[6:26, 5:20] = True
    X, new = good_images(14), with_square(good_images(3, seed=4), 12, 16)
    noisy = np.where(roi, X, good_images(14, seed=3)[::-1] // 3 + 150)
    options = {"roi": roi, "image_size": (24, 40), "epochs": 4}
    one, other = fit(X, **options), fit(noisy, **options)
    assert same_weights(one, other)
    np.testing.assert_array_equal(one.calibration_scores_, other.calibration_scores_)
    maps = one.anomaly_map(new)
    changed = other.anomaly_map(np.where(roi, new, np.uint8(255)))
    np.testing.assert_array_equal(maps, changed)
    assert (maps[:, ~roi] == 0).all()
    assert (agree(one, new) == -1).all()


# Numbers of all kinds.


@pytest.mark.parametrize(("dtype", "n_channels"), [("u2", None), ("f2", 2)])
def test_reconstructions_have_shape_type_and_range_of_the_input(dtype, n_channels):
    X = good_images(12, dtype=dtype, n_channels=n_channels)
    detector = fit(X, epochs=40)
    agree(detector, X)
    rebuilt = detector.reconstruct(X)
    assert (rebuilt.shape, rebuilt.dtype) == (X.shape, X.dtype)
    error = np.abs(rebuilt.astype(float) - X.astype(float)).mean()
    assert error < 0.5 * X.astype(float).std()


@pytest.mark.parametrize("n_features", [2, 10])
def test_rows_of_a_few_features_train_briefly_and_show_gross_outliers(n_features):
    rng = np.random.default_rng(0)
    X, new, bad = rng.normal(size=(3, 100, n_features))
    bad[:, 0] += np.where(bad[:, 0] > 0, 8, -8)
    detector = PatchAutoencoderDetector(random_state=0, device="cpu").fit(X)
    assert len(detector.history_) == max(1, 75 * n_features // 256)
    scores = detector.score_samples(np.concatenate([new, bad]))
    assert image_auroc_score(np.repeat([1, -1], 100), scores) > 0.9


# Calibration.


def test_calibration_on_good_images(detector, trained, trainings):
    X = good_images(30, seed=8)
    assert detector.set_params(target_fpr=0.2).calibrate(X) is detector
    scores = np.sort(detector.score_samples(X))
    np.testing.assert_array_equal(detector.calibration_scores_, scores)
    assert detector.offset_ == scores[5]  # floor(0.2 * 31) = 6
    assert detector.mean_map_ == pytest.approx(detector.anomaly_map(X).mean(), rel=0.1)
    assert detector.retarget(0.3).offset_ == scores[8]
    assert detector.target_fpr == 0.3
    assert trainings == []
    assert same_weights(detector, trained)
    assert not hasattr(detector, "labelled_threshold_")


@pytest.mark.parametrize("metric", ["balanced_accuracy", "cost"])
def test_calibration_on_labelled_images(detector, mixed, metric):
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
    detector.calibrate(X[y == 1])
    assert not hasattr(detector, "labelled_threshold_")


@pytest.mark.parametrize(
    ("y", "options", "words"),
    [
        (
            np.repeat([0, 1], 15),
            {},
            "must hold the labels +1 (good) and -1 (anomalous)",
        ),
        (np.ones(29), {}, "one label an image, 30 in all; got shape (29,)"),
        (np.ones(30), {}, "both labels"),
        (None, {"metric": "accuracy"}, "metric must be one of"),
        ([-1, 1] * 15, {"metric": "cost", "cost_miss": -1}, "cost_miss must be"),
    ],
)
def test_wrong_calls_calibrate_nothing(detector, mixed, y, options, words):
    before = pickle.dumps(detector)
    with pytest.raises(ValueError, match=re.escape(words)):
        detector.calibrate(mixed[0], y, **options)
    assert pickle.dumps(detector) == before


def test_score_is_the_balanced_accuracy(detector, mixed):
    X, y = mixed
    predicted = detector.predict(X)
    recalls = {label: np.mean(predicted[y == label] == label) for label in (1, -1)}
    assert detector.score(X, y) == pytest.approx(sum(recalls.values()) / 2)
    for label, recall in recalls.items():  # a fold without the other label
        assert detector.score(X[y == label], y[y == label]) == pytest.approx(recall)
    with pytest.warns(UndefinedMetricWarning, match="np.where"):
        assert np.isnan(detector.score(X, np.repeat([0, 1], 15)))


# Training again, and not training again.


def test_a_warm_start_goes_on_from_the_fitted_network(detector, good):
    learnt = {name for name, _ in detector.network_.named_parameters()}
    before = weights(detector)

    def furthest():
        after = weights(detector)
        return max(np.abs(after[name] - before[name]).max() for name in learnt)

    options = {"epochs": 1, "learning_rate": 1e-12, "warm_start": True}
    detector.set_params(**options).fit(good_images(8, seed=3))
    assert furthest() < 1e-6
    with pytest.raises(ValueError, match=r"network for 1 channels; X has 3\. Set"):
        detector.fit(good_images(4, n_channels=3))
    detector.set_params(warm_start=False).fit(good)
    assert furthest() > 0.01
    assert same_weights(detector, fit(good, learning_rate=1e-12, warm_start=True))


def trained_on(detector, X):
    digests = [digest(image[..., np.newaxis]) for image in X]
    return np.isin(np.array(digests, np.uint64), detector.fitted.trained_on)


def test_a_warm_start_calibrates_on_images_it_was_not_trained_on():
    X = good_images(24)
    detector = fit(X[:20], warm_start=True, validation_fraction=0.25)
    detector.set_params(random_state=1).fit(X[:20])
    assert trained_on(detector, X[:20]).sum() == 15
    known = trained_on(detector, X)
    with pytest.raises(ValueError, match=r"trained on all of X\. Add images, or train"):
        detector.fit(X[known])
    X = 257 * X.astype(np.uint16)  # the same images
    detector.fit(X)  # 6 are held out, of 9 that it does not know
    assert trained_on(detector, X).sum() == 18
    calibrating = np.isin(detector.score_samples(X), detector.calibration_scores_)
    assert calibrating.sum() == 6
    assert not (calibrating & known).any()
    detector.set_params(warm_start=False).fit(X[:4])
    assert not trained_on(detector, X[4:]).any()


def test_equal_trainings_run_once(good, trainings, tmp_path):
    X = good[:10]
    first = fit(X, memory=str(tmp_path))
    for options in ({"target_fpr": 0.3}, {"contamination": 0.2}, {"verbose": 0}):
        again = fit(X.copy(), memory=joblib.Memory(str(tmp_path), verbose=0), **options)
        np.testing.assert_array_equal(again.anomaly_map(X), first.anomaly_map(X))
        assert again.history_ == first.history_
    assert len(trainings) == 1
    roi = np.arange(28) + np.zeros((32, 1)) > 5
    for i, other in enumerate([{"learning_rate": 0.003}, {"roi": roi}]):
        fit(X, memory=tmp_path, **other)
        assert len(trainings) == 2 + i
    fit(good[10:], memory=tmp_path)
    fit(X, memory=tmp_path, warm_start=True).fit(X)
    assert len(trainings) == 5


# Randomness.


def global_states():
    return (
        random.getstate(),
        pickle.dumps(np.random.get_state()),  # noqa: NPY002
        torch.get_rng_state().numpy().tobytes(),
    )


def test_equal_seeds_give_equal_bits(good):
    X = good[:8]
    first, before = fit(X, random_state=3), global_states()
    second = fit(X, random_state=3)
    second.calibrate(good[8:]).reconstruct(X)
    other = fit(X, random_state=None)
    assert global_states() == before
    assert same_weights(first, second)
    np.testing.assert_array_equal(first.anomaly_map(good), second.anomaly_map(good))
    assert not same_weights(first, other)
    generator = fit(X, random_state=np.random.RandomState(3))
    assert same_weights(generator, first)
    assert not same_weights(generator.fit(X), first)


# What is left as it was.


@pytest.fixture(scope="module")
def expected():
    X = good_images(8, n_channels=3)
    detector = fit(X)
    return detector, {method: getattr(detector, method)(X) for method in ASKING}


@pytest.mark.parametrize("form", ["lazy", "files"])
def test_the_form_of_the_images_does_not_matter(form, expected, tmp_path):
    X = good_images(8, n_channels=3)
    if form == "lazy":
        same = Lazy(X)
    else:
        for i, image in enumerate(X):
            Image.fromarray(image).save(tmp_path / f"{i:02}.png")
        same = ImageFolder(tmp_path)
    detector, told = expected
    found = fit(same)
    assert same_weights(found, detector)
    assert found.offset_ == detector.offset_
    for method in ("anomaly_map", "reconstruct", "predict"):
        np.testing.assert_array_equal(getattr(found, method)(same), told[method])
    assert found.anomaly_regions(same) == told["anomaly_regions"]


class Lazy:
    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.images[i]


def test_threads_may_share_a_detector(detector):
    batches = [good_images(6, seed=seed) for seed in range(8)]
    expected = [detector.anomaly_map(X) for X in batches]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(detector.anomaly_map, batches))
    np.testing.assert_array_equal(found, expected)


def test_pickles_load_elsewhere_and_tell_of_another_version(trained, mixed):
    away = copy.deepcopy(trained).set_params(device="cuda:99")
    back = pickle.loads(pickle.dumps(away))
    np.testing.assert_array_equal(back.predict(mixed[0]), trained.predict(mixed[0]))
    state = away.__getstate__() | {"_skad_version": "0.0.1"}
    with pytest.warns(UserWarning, match=r"pickle was written by skad 0\.0\.1; this"):
        make().__setstate__(state)
