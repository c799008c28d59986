"""The examples run, on small images and one epoch, and what they show is so."""

import importlib
import os
from pathlib import Path

import numpy as np
import pytest
from joblib.externals.loky import get_reusable_executor

EXAMPLES = Path(__file__).parents[1] / "examples"
TINY = {"epochs": 1, "tile_size": 32}
ELSEWHERE = {"old_script", "pixel_statistics_detector"}  # have tests of their own


@pytest.fixture
def example(monkeypatch):
    """Import an example as a module: in workers of joblib, too, it has that name."""
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module


def test_every_example_is_run():
    tests = [name.removeprefix("test_example_") for name in globals()]
    assert {path.stem for path in EXAMPLES.glob("*.py")} <= {*tests, *ELSEWHERE}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda p: p.stem)
def test_an_example_says_what_it_shows_and_how_to_run_it(path):
    text = path.read_text(encoding="utf-8")
    assert text.startswith('"""')
    assert f"python examples/{path.name}" in text
    assert 'if __name__ == "__main__":' in text


def test_example_pipeline_from_paths(example, capsys):
    labels, masks, accuracy = example("pipeline_from_paths").main(**TINY)
    np.testing.assert_array_equal(labels == -1, masks.any(axis=(1, 2)))
    assert masks.shape == (20, 32, 32)
    assert 0 <= accuracy <= 1
    assert capsys.readouterr().out.startswith("000.png: ")


def test_example_search_thresholds(example, capsys):
    search, n_fits, by_search, by_frozen = example("search_thresholds").main(**TINY)
    assert n_fits == 8 * 3 + 1
    assert by_search == 3 + 1
    assert by_frozen == 0
    assert len(set(search.cv_results_["mean_test_score"])) > 1  # thresholds did differ
    assert "fits by the search: 25, trainings: 4" in capsys.readouterr().out


def test_example_roc_curve(example, tmp_path):
    picture = tmp_path / "roc.png"
    module = example("roc_curve")
    y, scores, curve, found = module.main(**TINY, picture=picture)
    good, bad = scores[y == 1], scores[y == -1]
    larger = (good[:, None] > bad).mean() + 0.5 * (good[:, None] == bad).mean()
    assert curve.roc_auc == pytest.approx(larger)
    assert found.roc_auc == pytest.approx(larger)
    assert picture.stat().st_size > 0
    tested = []
    for train, test in module.folds_that_train_on_good_images(scores, y):
        assert (y[train] == 1).all()
        assert not set(train) & set(test)
        tested.extend(test)
    assert sorted(tested) == list(range(len(y)))


def test_example_two_scales(example):
    candidates, results = example("two_scales").main(**TINY, sizes=(4, 12))
    assert set(results) == set(candidates)
    both = candidates["two detectors"]
    assert [d.patch_size for d in both.detectors_] == [4, 12]
    assert candidates["one detector"].patch_size == (4, 12)
    X = np.random.default_rng(0).integers(0, 255, (3, 32, 32), dtype=np.uint8)
    least = [
        min(
            (score - np.mean(d.calibration_scores_)) / np.std(d.calibration_scores_)
            for d, score in zip(both.detectors_, scores, strict=True)
        )
        for scores in zip(*(d.score_samples(X) for d in both.detectors_), strict=True)
    ]
    np.testing.assert_allclose(both.score_samples(X), least)
    np.testing.assert_array_equal(both.predict(X) == -1, least < both.offset_)


def test_example_persistence(example, capsys):
    detector, copies, images = example("persistence").main(**TINY)
    for copy in copies.values():
        assert copy is not detector
        np.testing.assert_array_equal(copy.predict(images), detector.predict(images))
        np.testing.assert_array_equal(
            copy.anomaly_map(images), detector.anomaly_map(images)
        )
    assert capsys.readouterr().out.count("scores are the same: True") == 2


def test_example_parallel_search(example):
    try:
        search, threads, processes = example("parallel_search").main(**TINY)
    finally:
        get_reusable_executor().shutdown(wait=True)
    assert set(processes) - {os.getpid()}
    assert os.getpid() not in processes
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 64
    assert 2 * max(threads) <= max(n_cores, 2)
    assert search.best_estimator_.offset_ <= 0


def test_example_metadata_routing(example):
    search, best_scores = example("metadata_routing").main(**TINY)
    assert best_scores[False] == best_scores[True]
    assert 0 <= best_scores[True] <= 1
    assert "mean_test_balanced_accuracy" in search.cv_results_
