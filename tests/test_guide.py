"""The guide docs/scikit_learn.md: its snippets run, what it names exists."""

import re
from pathlib import Path

import numpy as np
import pytest

import skad.detectors.learning
import skad.testing
from skad import metrics

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs/scikit_learn.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)


def small(snippet):
    """The snippet with small images and one epoch."""
    for shown, quick in (
        ("tile_size=64", "tile_size=32"),
        ("patch_size=16, epochs=20", "patch_size=8, epochs=1"),
    ):
        snippet = snippet.replace(shown, quick)
    return snippet


def names_of_checks(detector):
    return [name for name, _ in skad.testing.image_checks(detector)]


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Run the snippets in order; return their names and the numbers of trainings."""
    names, trainings = {"__name__": "guide"}, []
    train = skad.detectors.learning.train

    def counted(*args, **options):
        trainings.append(len(after))
        return train(*args, **options)

    after: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("guide"))
        patch.setattr(skad.detectors.learning, "train", counted)
        # Those that it names are run in the tests of skad.testing.
        patch.setattr(skad.testing, "check_image_detector", names_of_checks)
        for snippet in SNIPPETS:
            exec(small(snippet), names)
            after.append(len(trainings))
    return names, np.diff(after, prepend=0).tolist()


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
    assert names["scores"].shape == names["y"].shape
    assert set(names["labels"]) <= {-1, 1}
    thresholds = names["fixed"].cv_results_["param_threshold"]
    assert names["fixed"].best_params_["threshold"] in thresholds
    assert (names["result"]["test_f1"] <= 1).all()
    assert len(names["passed"]) > 20


def test_every_scorer_is_in_the_guide_and_every_file_in_it_exists():
    scorers = [name for name in metrics.__all__ if name.endswith("_scorer")]
    assert [name for name in scorers if f"| `{name}" not in GUIDE] == []
    files = re.findall(r"`((?:examples|tests)/\w+\.py)`", GUIDE)
    files += [f"examples/{name}" for name in re.findall(r"`(\w+\.py)`", GUIDE)]
    assert [file for file in files if not (ROOT / file).exists()] == []
