"""The detector inside scikit-learn's tools: what docs/scikit_learn.md says of each."""

import joblib
import numpy as np
import pytest
import sklearn
from PIL import Image
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.calibration import CalibratedClassifierCV, CalibrationDisplay
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    GroupKFold,
    HalvingGridSearchCV,
    StratifiedKFold,
    TunedThresholdClassifierCV,
    cross_val_predict,
    cross_validate,
    learning_curve,
    permutation_test_score,
    validation_curve,
)
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.metadata_routing import get_routing_for_object
from sklearn.utils.validation import check_is_fitted

from skad import ImageFolder, ImageReader, PatchAutoencoderDetector
from skad.metrics import balanced_accuracy_scorer, f1_scorer, image_auroc_scorer

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
    X, y = labelled
    return tiny_detector().fit(X, y)


@pytest.fixture
def files(labelled, tmp_path):
    """Write the labelled images to a folder; return their paths."""
    folder = tmp_path / "images"
    folder.mkdir()
    for i, image in enumerate(labelled[0]):
        Image.fromarray(image).save(folder / f"{i:02}.png")
    return sorted(folder.iterdir())


def halves(X):
    return X[:, ::2, ::2]


def test_pipeline(labelled, fitted):
    X, _ = labelled
    pipeline = Pipeline(
        [("halves", FunctionTransformer(halves)), ("detect", tiny_detector())]
    ).fit(X[:8])
    alone = tiny_detector().fit(halves(X[:8]))
    for method in ("predict", "decision_function", "score_samples"):
        expected = getattr(alone, method)(halves(X))
        np.testing.assert_array_equal(getattr(pipeline, method)(X), expected)
    assert not hasattr(pipeline, "anomaly_map")
    maps = pipeline["detect"].anomaly_map(pipeline[:-1].transform(X[:2]))
    assert maps.shape == (2, 8, 8)


def test_pipeline_of_paths(labelled, files):
    X, y = labelled
    pipeline = Pipeline([("read", ImageReader()), ("detect", tiny_detector())])
    pipeline.fit(files, y)
    alone = tiny_detector().fit(X, y)
    np.testing.assert_array_equal(pipeline.predict(files), alone.predict(X))
    assert pipeline.score(files, y) == alone.score(X, y)
    assert pipeline[-1].offset_ == alone.offset_
    sizes = {"read__image_size": [8, 16]}
    search = GridSearchCV(pipeline, sizes, cv=TWO_FOLDS, error_score="raise")
    search.fit(files, y)
    best = search.best_params_["read__image_size"]
    assert search.best_estimator_[-1].image_shape_in_ == (best, best)


def test_folders_are_divided_like_arrays(labelled, files):
    folder = ImageFolder(files)
    options = {
        "scoring": {"auroc": image_auroc_scorer, "f1": f1_scorer},
        "cv": TWO_FOLDS,
        "error_score": "raise",
    }
    found, expected = (
        cross_validate(tiny_detector(), X, labelled[1], **options)
        for X in (folder, labelled[0])
    )
    for name in ("test_auroc", "test_f1"):
        np.testing.assert_array_equal(found[name], expected[name])


def test_eight_thresholds_in_three_folds_are_four_trainings(
    labelled, trainings, tmp_path
):
    shares = np.linspace(0.1, 0.45, 8)
    search = GridSearchCV(
        tiny_detector(memory=str(tmp_path)),
        {"target_fpr": shares},
        scoring=balanced_accuracy_scorer,
        cv=StratifiedKFold(3, shuffle=True, random_state=0),
        error_score="raise",
    ).fit(*labelled)
    assert len(search.cv_results_["params"]) * search.n_splits_ + 1 == 25
    assert len(trainings) == 4
    assert trainings[-1] == N_GOOD / 2  # the refit, on all good images
    rates = search.cv_results_["mean_test_score"]
    assert len(set(rates)) > 1  # the thresholds did differ

    trainings.clear()
    again = clone(search).set_params(estimator__memory=None)
    again.fit(*labelled)
    assert len(trainings) == 25
    np.testing.assert_array_equal(again.cv_results_["mean_test_score"], rates)


def test_grid_search(labelled, trainings, tmp_path):
    search = GridSearchCV(
        tiny_detector(memory=str(tmp_path)),
        {"target_fpr": [0.2, 0.3, 0.4, 0.5]},
        scoring={"auroc": image_auroc_scorer, "accuracy": balanced_accuracy_scorer},
        refit="accuracy",
        cv=TWO_FOLDS,
        error_score="raise",
    ).fit(*labelled)
    # Half of the 16 good images of a fold, and of all 32: the others calibrate.
    assert trainings == [8, 8, 16]
    assert np.ptp(search.cv_results_["mean_test_auroc"]) == 0
    assert set(search.predict(labelled[0])) <= {-1, 1}


def test_halving_grid_search(labelled, trainings):
    X, y = labelled
    search = HalvingGridSearchCV(
        tiny_detector(),
        {"learning_rate": [0.001, 0.01]},
        resource="epochs",
        min_resources=1,
        max_resources=2,
        factor=2,
        scoring=image_auroc_scorer,
        cv=TWO_FOLDS,
        error_score="raise",
    ).fit(X, y)
    assert search.n_resources_ == [1, 2]
    assert search.best_params_["epochs"] == 2
    assert len(trainings) == 2 * 2 + 1 * 2 + 1


def test_cross_validate(labelled, trainings):
    result = cross_validate(
        tiny_detector(),
        *labelled,
        scoring={"auroc": image_auroc_scorer, "f1": f1_scorer, "roc_auc": "roc_auc"},
        cv=TWO_FOLDS,
        return_estimator=True,
        error_score="raise",
    )
    assert trainings == [8, 8]  # images labelled -1 train nothing
    np.testing.assert_allclose(result["test_auroc"], result["test_roc_auc"])
    for detector in result["estimator"]:
        assert len(detector.calibration_scores_) == 8


def test_cross_val_predict(labelled, fitted, trainings):
    X, y = labelled
    folds = [(train[y[train] == 1], test) for train, test in TWO_FOLDS.split(X, y)]
    scores = cross_val_predict(tiny_detector(), X, cv=folds, method="decision_function")
    assert trainings == [8, 8]
    train, test = folds[1]
    expected = tiny_detector().fit(X[train]).decision_function(X[test])
    np.testing.assert_array_equal(scores[test], expected)

    frozen = FrozenEstimator(fitted)
    predicted = cross_val_predict(frozen, X, y, cv=TWO_FOLDS)
    np.testing.assert_array_equal(predicted, fitted.predict(X))
    with pytest.raises(AttributeError, match="classes_"):
        cross_val_predict(frozen, X, y, cv=TWO_FOLDS, method="decision_function")


def test_folds_are_not_stratified_unless_one_says_so(labelled, fitted):
    X, y = labelled
    with pytest.warns(UserWarning, match="without a single anomalous image"):
        result = cross_validate(
            FrozenEstimator(fitted), X, y, scoring=image_auroc_scorer, cv=2
        )
    assert np.isnan(result["test_score"][0])


def test_learning_curve(labelled, trainings):
    sizes, _, test_scores = learning_curve(
        tiny_detector(target_fpr=0.4),
        *labelled,
        train_sizes=[0.5, 1.0],
        scoring=image_auroc_scorer,
        cv=TWO_FOLDS,
        shuffle=True,
        random_state=0,
        error_score="raise",
    )
    assert sizes.tolist() == [10, 20]
    assert test_scores.shape == (2, 2)
    assert trainings[1] == trainings[3] == 8  # of 20 images 16 are good
    assert max(trainings[0], trainings[2]) <= 5


def test_validation_curve(labelled, trainings, tmp_path):
    _, test_scores = validation_curve(
        tiny_detector(memory=str(tmp_path)),
        *labelled,
        param_name="target_fpr",
        param_range=[0.2, 0.5, 0.9],
        scoring=balanced_accuracy_scorer,
        cv=TWO_FOLDS,
        error_score="raise",
    )
    assert len(trainings) == 2
    assert test_scores.shape == (3, 2)


def test_permutation_test_score(labelled, fitted, trainings):
    score, permuted, p_value = permutation_test_score(
        FrozenEstimator(fitted),
        *labelled,
        scoring=image_auroc_scorer,
        cv=TWO_FOLDS,
        n_permutations=9,
        random_state=0,
    )
    assert trainings == []
    assert score == 1.0
    assert permuted.max() < 1
    assert p_value == pytest.approx(1 / (9 + 1))


def test_calibration_display(labelled, fitted):
    X, y = labelled
    with pytest.raises(ValueError, match="to be a binary classifier"):
        CalibrationDisplay.from_estimator(fitted, X, y)
    classifier = AsClassifier(FrozenEstimator(fitted)).fit(X, y)
    calibrated = CalibratedClassifierCV(FrozenEstimator(classifier)).fit(X, y)
    display = CalibrationDisplay.from_estimator(calibrated, X, y, n_bins=2, pos_label=1)
    assert display.prob_true.tolist() == [0, 1]


def test_frozen_estimator(labelled, fitted, trainings):
    X, y = labelled
    frozen = FrozenEstimator(fitted)
    frozen.fit(X[:3], None)
    assert clone(frozen) is frozen
    np.testing.assert_array_equal(frozen.predict(X), fitted.predict(X))
    assert frozen.score(X, y) == fitted.score(X, y)
    assert frozen.anomaly_map(X[:2]).shape == (2, 16, 16)
    assert trainings == []
    with pytest.raises(ValueError, match="cannot set parameters of the inner"):
        frozen.set_params(target_fpr=0.1)


def test_a_search_over_a_frozen_detector_trains_nothing(labelled, fitted, trainings):
    X, y = labelled
    offsets = fitted.score_samples(X) - fitted.offset_
    best = fitted.score_samples(X[y == 1]).min() - fitted.offset_
    search = GridSearchCV(
        FixedThresholdClassifier(AsClassifier(FrozenEstimator(fitted))),
        {"threshold": [offsets.min(), *np.linspace(0, offsets.max(), 6), best]},
        scoring=balanced_accuracy_scorer,
        cv=StratifiedKFold(3, shuffle=True, random_state=0),
        error_score="raise",
    ).fit(X, y)
    assert trainings == []
    assert search.best_params_ == {"threshold": best}
    assert search.best_score_ == 1.0
    scores = search.cv_results_["mean_test_score"]
    assert scores[0] == 0.5  # nothing flagged
    assert np.sum(scores == 1) < 8

    either = Pipeline([("detect", FrozenEstimator(fitted))])
    candidates = [FrozenEstimator(fitted), FrozenEstimator(clone_of_fitted(fitted))]
    candidates[1].estimator.calibrate(X, y)
    search = GridSearchCV(
        either,
        {"detect": candidates},
        scoring=balanced_accuracy_scorer,
        cv=TWO_FOLDS,
        error_score="raise",
    ).fit(X, y)
    assert trainings == []
    assert search.cv_results_["mean_test_score"][1] == 1.0


def test_tuned_threshold_classifier(labelled, fitted, trainings):
    X, y = labelled
    with pytest.raises(AttributeError, match="classes_"):
        TunedThresholdClassifierCV(FrozenEstimator(fitted), cv=TWO_FOLDS).fit(X, y)
    tuned = TunedThresholdClassifierCV(
        AsClassifier(FrozenEstimator(fitted)),
        scoring=balanced_accuracy_scorer,
        cv=TWO_FOLDS,
    ).fit(X, y)
    assert trainings == []
    calibrated = clone_of_fitted(fitted).calibrate(X, y)
    for judged in (tuned, calibrated):
        assert balanced_accuracy_score(y, judged.predict(X)) == 1


def clone_of_fitted(detector):
    copy = tiny_detector()
    copy.__dict__.update(detector.__dict__)
    return copy


def test_stacking_classifier(labelled, fitted, trainings):
    X, y = labelled
    with pytest.raises(AttributeError, match="classes_"):
        StackingClassifier([("a", FrozenEstimator(fitted))], cv=TWO_FOLDS).fit(X, y)
    members = [(name, AsClassifier(FrozenEstimator(fitted)).fit(X, y)) for name in "ab"]
    stacked = StackingClassifier(members, LogisticRegression(), cv="prefit").fit(X, y)
    assert trainings == []
    assert stacked.final_estimator_.n_features_in_ == 2  # two decision functions
    np.testing.assert_array_equal(stacked.predict(X), y)


def test_voting_classifier(labelled, fitted):
    X, y = labelled
    with pytest.raises(ValueError, match="should be a classifier"):
        VotingClassifier([("a", fitted), ("b", fitted)]).fit(X, y)


def test_clone(labelled, fitted):
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    with pytest.raises(NotFittedError):
        check_is_fitted(copy)
    check_is_fitted(fitted)


def test_set_output(labelled, fitted, tmp_path):
    X, _ = labelled
    assert not hasattr(fitted, "set_output")
    path = tmp_path / "a.png"
    Image.fromarray(X[0]).save(path)
    pipeline = Pipeline([("read", ImageReader()), ("detect", FrozenEstimator(fitted))])
    with sklearn.config_context(transform_output="pandas"):
        maps = fitted.anomaly_map(X[:1])
        scores = pipeline.score_samples([path])
    assert type(maps) is np.ndarray
    np.testing.assert_array_equal(scores, fitted.score_samples(X[:1]))
    with pytest.raises(ValueError, match="Unable to configure output for ImageReader"):
        pipeline.set_output(transform="pandas")


def test_joblib(labelled, fitted, tmp_path):
    X, _ = labelled
    joblib.dump(fitted, tmp_path / "detector.joblib")
    copy = joblib.load(tmp_path / "detector.joblib")
    np.testing.assert_array_equal(copy.score_samples(X), fitted.score_samples(X))
    assert copy.offset_ == fitted.offset_


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
        {"detect__target_fpr": [0.2, 0.4]},
        cv=folds,
        **options,
    ).fit(X, y, groups=groups)
    result = cross_validate(
        detector, X, y, cv=folds, params={"groups": groups}, **options
    )
    expected = []
    for train, test in folds.split(X, y, groups):
        alone = tiny_detector().fit(X[train], y[train], groups=groups[train])
        assert (
            len(alone.calibration_scores_)
            == len(set(groups[train][y[train] == 1])) // 2
        )
        expected.append(image_auroc_scorer(alone, X[test], y[test]))
    np.testing.assert_array_equal(result["test_score"], expected)
    assert search.cv_results_["mean_test_score"][0] == np.mean(expected)
    assert len(search.best_estimator_["detect"].calibration_scores_) == N_GOOD // 4

    apart = tiny_detector().set_fit_request(groups=False)
    on = cross_validate(apart, X, y, cv=folds, params={"groups": groups}, **options)
    with sklearn.config_context(enable_metadata_routing=False):
        off = cross_validate(apart, X, y, cv=folds, groups=groups, **options)
    np.testing.assert_array_equal(on["test_score"], off["test_score"])

    weights = np.ones(len(X))
    with pytest.raises(TypeError, match="not routed to any object"):
        cross_validate(detector, X, y, params={"sample_weight": weights})
    with pytest.raises(ValueError, match="not explicitly set as requested"):
        cross_validate(tiny_detector(), X, y, cv=folds, params={"groups": groups})
    with pytest.raises(TypeError, match="unexpected"):
        detector.fit(X, y, sample_weight=weights)


class Recorder:
    """A callback for scikit-learn: the names of the tasks that came to their end."""

    def __init__(self):
        self.tasks = []

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context):
        self.tasks.append((context.estimator_name, context.task_name))


def test_callbacks(labelled):
    pytest.importorskip("sklearn.callback")  # new in scikit-learn 1.9
    recorder = Recorder()
    search = GridSearchCV(
        tiny_detector(),
        {"target_fpr": [0.2]},
        scoring=image_auroc_scorer,
        cv=TWO_FOLDS,
        refit=False,
        error_score="raise",
    )
    search.set_callbacks(recorder).fit(*labelled)
    assert {estimator for estimator, _ in recorder.tasks} == {"GridSearchCV"}
    assert len(recorder.tasks) >= 2  # the folds at least

    recorder = Recorder()
    detector = tiny_detector().set_params(epochs=3).set_callbacks(recorder)
    detector.fit(*labelled)
    name = "PatchAutoencoderDetector"
    assert recorder.tasks == [(name, "epoch")] * 3 + [(name, "fit")]
    assert not any("callback_fit" in attribute for attribute in vars(detector))
