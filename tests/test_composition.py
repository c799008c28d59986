"""The detector inside scikit-learn's tools, as docs/scikit_learn.md says."""

import numpy as np
import pytest
import sklearn
from PIL import Image
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    GroupKFold,
    StratifiedKFold,
    TunedThresholdClassifierCV,
    cross_val_predict,
    cross_validate,
)
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.metadata_routing import get_routing_for_object

from skad import ImageFolder, ImageReader, PatchAutoencoderDetector
from skad.metrics import image_auroc_scorer

N_GOOD, N_BAD = 32, 8
TWO_FOLDS = StratifiedKFold(2, shuffle=True, random_state=0)


class AsClassifier(ClassifierMixin, BaseEstimator):
    """A detector for tools that take classifiers alone."""

    def __init__(self, detector):
        self.detector = detector

    def fit(self, X, y):
        self.classes_ = np.array([-1, 1])
        self.detector_ = clone(self.detector).fit(X, y)
        return self

    def decision_function(self, X):
        return self.detector_.decision_function(X)

    def predict(self, X):
        return self.detector_.predict(X)


def tiny_detector(**parameters):
    options = {"epochs": 1, "validation_fraction": 0.5, "target_fpr": 0.2}
    return PatchAutoencoderDetector(4, random_state=0, **(options | parameters))


@pytest.fixture(scope="module")
def labelled():
    """Noisy images, the last of them with a bright square."""
    rng = np.random.default_rng(0)
    X = rng.integers(90, 110, (N_GOOD + N_BAD, 16, 16), dtype=np.uint8)
    X[N_GOOD:, 4:9, 6:11] = 250
    return X, np.repeat([1, -1], [N_GOOD, N_BAD])


@pytest.fixture(scope="module")
def fitted(labelled):
    return tiny_detector().fit(*labelled)


@pytest.fixture
def files(labelled, tmp_path):
    """Write the labelled images to a folder; return their paths."""
    folder = tmp_path / "images"
    folder.mkdir()
    for i, image in enumerate(labelled[0]):
        Image.fromarray(image).save(folder / f"{i:02}.png")
    return sorted(folder.iterdir())


def test_pipelines_of_paths_and_folders_in_folds(labelled, fitted, files):
    X, y = labelled
    pipeline = Pipeline([("read", ImageReader()), ("detect", tiny_detector())])
    pipeline.fit(files, y)
    np.testing.assert_array_equal(pipeline.predict(files), fitted.predict(X))
    assert pipeline.score(files, y) == fitted.score(X, y)
    assert pipeline[-1].offset_ == fitted.offset_
    with sklearn.config_context(transform_output="pandas"):
        scores = pipeline.score_samples(files[:1])
    np.testing.assert_array_equal(scores, fitted.score_samples(X[:1]))
    options = {
        "scoring": {"auroc": image_auroc_scorer, "accuracy": "balanced_accuracy"}
    }
    found, expected = (
        cross_validate(tiny_detector(), images, y, cv=TWO_FOLDS, **options)
        for images in (ImageFolder(files), X)
    )
    for name in ("test_auroc", "test_accuracy"):
        np.testing.assert_array_equal(found[name], expected[name])


def test_eight_thresholds_in_three_folds_are_four_trainings(
    labelled, trainings, tmp_path
):
    search = GridSearchCV(
        tiny_detector(memory=str(tmp_path)),
        {"target_fpr": np.linspace(0.1, 0.45, 8)},
        scoring="balanced_accuracy",
        cv=StratifiedKFold(3, shuffle=True, random_state=0),
        error_score="raise",
    ).fit(*labelled)
    assert len(search.cv_results_["params"]) * search.n_splits_ + 1 == 25
    assert len(trainings) == 4
    assert trainings[-1] == N_GOOD / 2  # the refit, on all good images
    rates = search.cv_results_["mean_test_score"]
    assert len(set(rates)) > 1  # the thresholds did differ


def test_cross_validation_trains_on_good_images_alone(labelled, trainings):
    X, y = labelled
    options = {"cv": TWO_FOLDS, "return_estimator": True, "error_score": "raise"}
    scoring = {"auroc": image_auroc_scorer, "roc_auc": "roc_auc"}
    result = cross_validate(tiny_detector(), X, y, scoring=scoring, **options)
    assert trainings == [8, 8]
    np.testing.assert_allclose(result["test_auroc"], result["test_roc_auc"])
    for detector in result["estimator"]:
        assert len(detector.calibration_scores_) == 8
    folds = [(train[y[train] == 1], test) for train, test in TWO_FOLDS.split(X, y)]
    scores = cross_val_predict(tiny_detector(), X, cv=folds, method="decision_function")
    for detector, (_, test) in zip(result["estimator"], folds, strict=True):
        np.testing.assert_array_equal(scores[test], detector.decision_function(X[test]))


def test_folds_are_not_stratified_unless_one_says_so(labelled, fitted):
    frozen = FrozenEstimator(fitted)
    with pytest.warns(UserWarning, match="without a single anomalous image"):
        result = cross_validate(frozen, *labelled, scoring=image_auroc_scorer, cv=2)
    assert np.isnan(result["test_score"][0])


def test_frozen_detectors_and_thresholds_of_classifiers(labelled, fitted, trainings):
    X, y = labelled
    frozen = FrozenEstimator(fitted).fit(X[:3], None)
    np.testing.assert_array_equal(frozen.predict(X), fitted.predict(X))
    assert frozen.anomaly_map(X[:2]).shape == (2, 16, 16)
    best = fitted.decision_function(X[y == 1]).min()
    search = GridSearchCV(
        FixedThresholdClassifier(AsClassifier(frozen)),
        {"threshold": [fitted.decision_function(X).min(), best]},
        scoring="balanced_accuracy",
        cv=TWO_FOLDS,
        error_score="raise",
    ).fit(X, y)
    assert search.best_params_ == {"threshold": best}
    assert search.cv_results_["mean_test_score"].tolist() == [0.5, 1.0]
    options = {"scoring": "balanced_accuracy", "cv": TWO_FOLDS}
    tuned = TunedThresholdClassifierCV(AsClassifier(frozen), **options).fit(X, y)
    assert tuned.score(X, y) == 1
    with pytest.raises(AttributeError, match="classes_"):
        TunedThresholdClassifierCV(frozen, **options).fit(X, y)
    assert trainings == []


@pytest.fixture
def routing():
    """Turn metadata routing on, as a user does, and off again."""
    before = sklearn.get_config()["enable_metadata_routing"]
    sklearn.set_config(enable_metadata_routing=True)
    yield
    sklearn.set_config(enable_metadata_routing=before)


def test_metadata_routing(labelled, routing):
    X, y = labelled
    groups = np.arange(len(X)) // 2
    folds = GroupKFold(2)
    detector = tiny_detector().set_fit_request(groups=True)
    routes = get_routing_for_object(detector)
    assert routes.consumes("fit", {"sample_weight", "groups"}) == {"groups"}
    options = {"scoring": image_auroc_scorer, "error_score": "raise"}
    search = GridSearchCV(
        Pipeline([("as_given", FunctionTransformer()), ("detect", detector)]),
        {"detect__target_fpr": [0.2]},
        cv=folds,
        **options,
    ).fit(X, y, groups=groups)
    expected = []
    for train, test in folds.split(X, y, groups):
        alone = tiny_detector().fit(X[train], y[train], groups=groups[train])
        n_good_groups = len(set(groups[train][y[train] == 1]))
        assert len(alone.calibration_scores_) == n_good_groups // 2
        expected.append(image_auroc_scorer(alone, X[test], y[test]))
    assert search.cv_results_["mean_test_score"][0] == np.mean(expected)
    assert len(search.best_estimator_["detect"].calibration_scores_) == N_GOOD // 4
    params = {"groups": groups}
    with pytest.raises(ValueError, match="not explicitly set as requested"):
        cross_validate(tiny_detector(), X, y, cv=folds, params=params)
    with pytest.raises(TypeError, match="unexpected"):
        detector.fit(X, y, sample_weight=np.ones(len(X)))
