"""The guide docs/scikit_learn.md: its snippets run, its table names real tests."""

import re
from pathlib import Path

import numpy as np
import pytest

import skad.detectors.patch

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs/scikit_learn.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
ROWS = re.findall(r"^\| (.+) \| (yes|no|by a wrapper) \| .+ \|$", GUIDE, re.MULTILINE)
TOOLS = {
    "`Pipeline`",
    "`GridSearchCV`",
    "`HalvingGridSearchCV`",
    "`cross_validate`",
    "`cross_val_predict`",
    "`learning_curve`",
    "`validation_curve`",
    "`permutation_test_score`",
    "`CalibrationDisplay`",
    "`FrozenEstimator`",
    "`TunedThresholdClassifierCV`",
    "`StackingClassifier`",
    "`VotingClassifier`",
    "`clone`",
    "`set_output`",
    "joblib",
    "metadata routing",
    "callbacks",
}


def small(snippet):
    """The snippet with small images and one epoch."""
    for shown, quick in (
        ("tile_size=64", "tile_size=32"),
        ("patch_size=16, epochs=20", "patch_size=8, epochs=1"),
    ):
        snippet = snippet.replace(shown, quick)
    return snippet


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Run the snippets in order; return their names and the numbers of trainings."""
    names, trainings = {"__name__": "guide"}, []
    train = skad.detectors.patch.train

    def counted(*args, **options):
        trainings.append(len(after))
        return train(*args, **options)

    after: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("guide"))
        patch.setattr(skad.detectors.patch, "train", counted)
        for snippet in SNIPPETS:
            exec(small(snippet), names)
            after.append(len(trainings))
    return names, np.diff(after, prepend=0).tolist()


def test_snippets_are_made_small():
    assert sum(small(snippet) != snippet for snippet in SNIPPETS) == 2


def test_snippets_train_as_often_as_the_guide_says(ran):
    _, trainings = ran
    # Labels; a training a fold; the refit; that of the training tiles; the same; …
    assert trainings[:5] == [0, 3, 1, 1, 0]
    assert "# 13 fits, 1 training" in SNIPPETS[2]
    # … other images in each fold; tools for classifiers, twice.
    assert trainings[5:8] == [3, 0, 0]
    assert "check_image_detector" in SNIPPETS[8]


def test_snippets_give_what_the_guide_says(ran):
    names, _ = ran
    y, scores = names["y"], names["scores"]
    assert scores.shape == y.shape
    assert np.isfinite(scores).all()
    assert set(names["labels"]) <= {-1, 1}
    assert names["search"].best_score_ == max(
        names["search"].cv_results_["mean_test_score"]
    )
    assert {f"test_{name}" for name in ("auroc", "found", "accuracy", "f1", "cost")} < (
        set(names["result"])
    )
    assert (names["result"]["test_cost"] <= 0).all()
    found = names["found"]
    assert found.detection_interval[0] <= found.detection_rate
    assert found.false_alarm_rate <= found.false_alarm_interval[1]
    thresholds = names["fixed"].cv_results_["param_threshold"]
    assert names["fixed"].best_params_["threshold"] in thresholds
    assert len(names["passed"]) > 40


def test_the_table_names_every_tool_once():
    assert sorted(row[0] for row in ROWS) == sorted(TOOLS)


def test_every_scorer_is_in_the_guide():
    from skad import metrics

    scorers = [name for name in metrics.__all__ if name.endswith("_scorer")]
    assert len(scorers) == 5
    assert [name for name in scorers if f"| `{name}" not in GUIDE] == []


@pytest.mark.parametrize("name", re.findall(r"`(\w+\.py)`", GUIDE))
def test_the_examples_that_are_named_exist(name):
    assert (ROOT / "examples" / name).exists()


@pytest.mark.parametrize("path", re.findall(r"`((?:examples|tests)/\w+\.py)`", GUIDE))
def test_the_files_that_are_named_exist(path):
    assert (ROOT / path).exists()
