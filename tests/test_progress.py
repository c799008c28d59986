"""Progress of a fit: the bar, and scikit-learn's callbacks."""

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV, StratifiedKFold

import skad.detectors.patch
from skad import PatchAutoencoderDetector
from skad.metrics import image_auroc_scorer

NAME = "PatchAutoencoderDetector"
A_FIT = [("epoch", NAME), ("epoch", NAME), ("fit", NAME)]


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
        elif context.estimator_name == NAME:
            assert fitted_estimator.offset_ == estimator.offset_


@pytest.fixture
def recorder():
    pytest.importorskip("sklearn.callback")  # new in scikit-learn 1.9
    return Recorder()


@pytest.fixture(scope="module")
def labelled():
    X = np.random.default_rng(0).integers(90, 110, (24, 16, 16), dtype=np.uint8)
    X[20:, 4:9, 6:11] = 250
    return X, np.repeat([1, -1], [20, 4])


def detector(**parameters):
    options = {"epochs": 2, "target_fpr": 0.4, "random_state": 0}
    return PatchAutoencoderDetector(4, **(options | parameters))


def test_the_bar_shows_the_loss(labelled, capfd):
    detector().fit(labelled[0][:8])
    assert capfd.readouterr() == ("", "")
    history = detector(verbose=1).fit(labelled[0][:8]).history_
    out, err = capfd.readouterr()
    assert out == ""
    assert all(text in err for text in ("training", "loss=", "100%"))
    names = ["epoch", "loss", "reconstruction_loss", "anomaly_loss"]
    assert [list(epoch) for epoch in history] == [names, names]
    assert [epoch["epoch"] for epoch in history] == [1, 2]


def test_callbacks_hear_of_every_epoch_of_every_training(recorder, labelled):
    options = {"scoring": image_auroc_scorer, "cv": StratifiedKFold(2)}
    search = GridSearchCV(
        detector(), {"target_fpr": [0.4]}, error_score="raise", **options
    )
    search.set_callbacks(recorder).fit(*labelled)
    assert recorder.told == [
        ("setup", "GridSearchCV"),
        *A_FIT,  # two folds
        *A_FIT,
        ("search", "GridSearchCV"),
        *A_FIT,  # the best, on all images
        ("fit", "GridSearchCV"),
        ("teardown", "GridSearchCV"),
    ]


def test_what_a_memory_keeps_has_no_epochs_to_tell_of(recorder, labelled, tmp_path):
    model = detector(memory=tmp_path).fit(*labelled)
    model.set_callbacks(recorder).fit(*labelled)
    assert recorder.told == [("setup", NAME), ("fit", NAME), ("teardown", NAME)]


def test_a_fit_that_fails_leaves_no_callback_open(recorder, labelled, monkeypatch):
    def failing(*args, **options):
        raise MemoryError("too many images")

    monkeypatch.setattr(skad.detectors.patch, "learn", failing)
    model = detector().set_callbacks(recorder)
    with pytest.raises(MemoryError, match="too many images"):
        model.fit(labelled[0][:20])
    assert recorder.told == [("setup", NAME), ("teardown", NAME)]
    assert not hasattr(model, "_callback_fit_ctx")
