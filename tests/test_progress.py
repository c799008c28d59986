"""Progress of a fit: the bar, scikit-learn's callbacks, and a scikit-learn without."""

import importlib.util
import sys

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

import skad.detectors.patch
import skad.detectors.progress
import skad.network.checkpoint
import skad.network.training
from skad import PatchAutoencoderDetector
from skad.metrics import image_auroc_scorer

NAME = "PatchAutoencoderDetector"


class Recorder:
    """A callback that scikit-learn hands on to what is fitted inside."""

    max_propagation_depth = None

    def __init__(self):
        self.told = []

    def setup(self, estimator, context):
        self.told.append(("setup", context.estimator_name))

    def teardown(self, estimator, context):
        self.told.append(("teardown", context.estimator_name))

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context, *, metadata, fitted_estimator):
        self.told.append((context.task_name, context.estimator_name))
        if context.task_name == "epoch":
            assert set(metadata) >= {"loss", "reconstruction_loss", "anomaly_loss"}
            assert fitted_estimator is None
        elif context.estimator_name == NAME:
            assert fitted_estimator is not estimator
            assert fitted_estimator.offset_ == estimator.offset_


A_FIT = [("epoch", NAME), ("epoch", NAME), ("fit", NAME)]


@pytest.fixture
def callback():
    """The module of scikit-learn 1.9."""
    return pytest.importorskip("sklearn.callback")


@pytest.fixture(scope="module")
def labelled():
    X = np.random.default_rng(0).integers(90, 110, (24, 16, 16), dtype=np.uint8)
    X[20:, 4:9, 6:11] = 250
    return X, np.repeat([1, -1], [20, 4])


def detector():
    return PatchAutoencoderDetector(4, epochs=2, target_fpr=0.4, random_state=0)


def search():
    return GridSearchCV(
        detector(),
        {"target_fpr": [0.4]},
        scoring=image_auroc_scorer,
        cv=StratifiedKFold(2),
        error_score="raise",
    )


def test_a_callback_is_told_of_every_epoch(callback, labelled):
    recorder = Recorder()
    detector().set_callbacks(recorder).fit(*labelled)
    assert recorder.told == [("setup", NAME), *A_FIT, ("teardown", NAME)]


def test_a_search_hands_its_callbacks_on_to_every_training(callback, labelled):
    recorder = Recorder()
    search().set_callbacks(recorder).fit(*labelled)
    assert recorder.told == [
        ("setup", "GridSearchCV"),
        *A_FIT,  # two folds
        *A_FIT,
        ("search", "GridSearchCV"),
        *A_FIT,  # the best, on all images
        ("fit", "GridSearchCV"),
        ("teardown", "GridSearchCV"),
    ]


@pytest.mark.filterwarnings("ignore:The estimator FunctionTransformer does not support")
def test_a_pipeline_hands_its_callbacks_on_to_the_training(callback, labelled):
    recorder = Recorder()
    steps = [("as_given", FunctionTransformer()), ("detect", detector())]
    Pipeline(steps).set_callbacks(recorder).fit(*labelled)
    start = recorder.told.index(A_FIT[0])
    assert recorder.told[start : start + 3] == A_FIT


def test_a_fit_that_fails_leaves_no_callback_open(callback, labelled, monkeypatch):
    def failing(*args, **options):
        raise MemoryError("too many images")

    monkeypatch.setattr(skad.detectors.patch, "learn", failing)
    X = labelled[0][:20]  # the others are near copies
    recorder = Recorder()
    model = detector().set_callbacks(recorder)
    with pytest.raises(MemoryError, match="too many images"):
        model.fit(X)
    assert recorder.told == [("setup", NAME), ("teardown", NAME)]
    assert not hasattr(model, "_callback_fit_ctx")


def test_a_training_that_goes_on_tells_of_the_epochs_that_are_left(
    callback, labelled, monkeypatch, tmp_path
):
    X = labelled[0][:20]  # the others are near copies
    step, made = skad.network.training.compute_losses, []

    def stopping(*batch):
        made.append(batch)
        if len(made) == 2:  # the second of two epochs
            raise KeyboardInterrupt
        return step(*batch)

    monkeypatch.setattr(skad.network.checkpoint, "_SECONDS", 0.0)  # after every step
    monkeypatch.setattr(skad.network.training, "compute_losses", stopping)
    model = detector().set_params(batch_size=32, device="cpu")  # one step an epoch
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, checkpoint=tmp_path / "c")
    recorder = Recorder()
    model.set_callbacks(recorder).fit(X, checkpoint=tmp_path / "c")
    assert recorder.told.count(("epoch", NAME)) == 1


def test_what_a_memory_keeps_has_no_epochs_to_tell_of(callback, labelled, tmp_path):
    model, recorder = detector().set_params(memory=tmp_path).fit(*labelled), Recorder()
    model.set_callbacks(recorder).fit(*labelled)
    assert recorder.told == [("setup", NAME), ("fit", NAME), ("teardown", NAME)]


def test_scikit_learns_scoring_monitor_scores_the_fitted_detector(callback, labelled):
    monitor = callback.ScoringMonitor(scoring=image_auroc_scorer)
    model = detector().set_callbacks(monitor).fit(*labelled)
    (entry,) = monitor.get_logs().data
    assert entry["task_name"] == "fit"
    assert entry["score"] == image_auroc_scorer(model, *labelled)


def test_scikit_learns_progress_bar_shows_the_training_in_a_search(
    callback, labelled, capsys, monkeypatch
):
    rich = pytest.importorskip("rich")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(rich, "_console", None)  # one that reads the width now
    bar = callback.ProgressBar(max_propagation_depth=None)
    search().set_callbacks(bar).fit(*labelled)
    shown = capsys.readouterr().out
    assert shown.count(f"{NAME} - fit") == 3
    assert "100%" in shown


def test_without_scikit_learns_callbacks_there_is_the_bar(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sklearn.callback", None)  # as before 1.9
    path = skad.detectors.progress.__file__
    spec = importlib.util.spec_from_file_location("without_callbacks", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    class Fits(module.CallbackSupportMixin, BaseEstimator):
        def __init__(self, verbose=1):
            self.verbose = verbose

        def fit(self, X, y=None):
            with module.following(self, X, y, 2) as progress:
                for i in range(1, 7):
                    progress(i, 6, {"loss": 0.5})
            return self

    assert module.with_callbacks(Fits.fit) is Fits.fit
    assert not hasattr(Fits(), "set_callbacks")
    Fits(verbose=0).fit(None)
    assert capsys.readouterr().err == ""
    Fits(verbose=1).fit(None)
    shown = capsys.readouterr().err
    assert "6/6" in shown
    assert "loss=0.500" in shown
