"""The examples run, on small images and one epoch, and what they show is so."""

import importlib
import os
import sys
from pathlib import Path

import joblib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import sklearn
from joblib.externals.loky import get_reusable_executor

EXAMPLES = Path(__file__).parents[1] / "examples"
TINY = {"epochs": 1, "tile_size": 32}
ELSEWHERE = {"pixel_statistics_detector"}  # tests/test_testing.py
PLOTS = sorted(EXAMPLES.glob("plot_*.py"))  # without a main: the gallery runs them


@pytest.fixture
def example(monkeypatch):
    """Import an example as a module: in workers of joblib, too, it has that name."""
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module


def test_every_example_is_run():
    tests = [name.removeprefix("test_example_") for name in globals()]
    assert {path.stem for path in EXAMPLES.glob("*.py")} <= {
        *tests,
        *ELSEWHERE,
        *(path.stem for path in PLOTS),
    }


def test_an_example_says_what_it_shows_and_how_to_run_it():
    for path in EXAMPLES.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert text.startswith('"""')
        assert f"python examples/{path.name}" in text


@pytest.mark.filterwarnings("ignore:target_fpr=0.05 cannot be promised")
def test_example_old_script(example, tmp_path, monkeypatch, capsys):
    module = example("old_script")
    module.write_surfaces(tmp_path)
    for path in [*(tmp_path / "Train").iterdir(), *(tmp_path / "Test").iterdir()]:
        if int(path.stem) > 7:
            path.unlink()
    new, small = module.AD, {"img_size": (32, 32)}
    monkeypatch.setattr(module, "AD", lambda n: new(n, **small if n == "AD1" else {}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["old_script.py", ".", "--epochs", "1"])
    module.main()
    assert capsys.readouterr().out.count(", score ") == 8
    assert len(os.listdir("Output")) == 9
    assert os.listdir("Output/hardcore") == ["00.png"]
    assert (tmp_path / "Models" / "model.safetensors").exists()


def test_example_pipeline_from_paths(example, capsys):
    labels, masks, accuracy = example("pipeline_from_paths").main(**TINY)
    np.testing.assert_array_equal(labels == -1, masks.any(axis=(1, 2)))
    assert masks.shape == (20, 32, 32)
    assert 0 <= accuracy <= 1
    assert capsys.readouterr().out.startswith("000.png: ")


def test_example_search_thresholds(example, capsys, trainings, tmp_path):
    module = example("search_thresholds")
    module.write_surfaces(tmp_path, tile_size=32)  # as a folder of the user's
    (tmp_path / "test" / "defect").rename(tmp_path / "test" / "scratch")
    files, y = module.labelled_files(tmp_path / "test")
    assert [file.parent.name == "good" for file in files] == (y == 1).tolist()
    search, frozen, found, n_fits, n_trainings = module.main(**TINY, root=tmp_path)
    assert n_fits == 4 * 2 + 1
    assert n_trainings == [2 + 1, 1]
    assert len(trainings) == 2 + 1 + 1
    assert len(set(search.cv_results_["mean_test_score"])) > 1  # thresholds did differ
    assert frozen.best_estimator_.predict(files).shape == (30,)
    assert found.value >= max(frozen.cv_results_["mean_test_score"]) - 1e-9
    assert "fits by the search: 9, trainings: 3" in capsys.readouterr().out


def test_example_roc_curve(example, tmp_path):
    picture = tmp_path / "roc.png"
    module = example("roc_curve")
    y, scores, curve, found = module.main(**TINY, picture=picture)
    good, bad = scores[y == 1], scores[y == -1]
    larger = (good[:, None] > bad).mean() + 0.5 * (good[:, None] == bad).mean()
    assert curve.roc_auc == pytest.approx(larger)
    assert found.roc_auc == pytest.approx(larger)
    assert picture.stat().st_size > 0
    plt.close(curve.figure_)
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
    flagged = both.score_samples(X) < both.offset_
    np.testing.assert_array_equal(both.predict(X) == -1, flagged)


def test_example_persistence(example, capsys):
    detector, copies, images = example("persistence").main(**TINY)
    maps = detector.anomaly_map(images)
    for copy in copies.values():
        assert copy is not detector
        np.testing.assert_array_equal(copy.predict(images), detector.predict(images))
        np.testing.assert_array_equal(copy.anomaly_map(images), maps)
    assert capsys.readouterr().out.count("scores are the same: True") == 2


def test_example_parallel_search(example, monkeypatch):
    # Workers whose threads nobody but joblib limits, as they are for a user.
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    get_reusable_executor().shutdown(wait=True)
    try:
        search, threads, processes = example("parallel_search").main(**TINY)
    finally:
        get_reusable_executor().shutdown(wait=True)
    assert os.getpid() not in processes
    assert 2 * max(threads) <= max(joblib.cpu_count(), 2)
    assert search.best_estimator_.offset_ <= 0


def test_example_metadata_routing(example, capsys):
    searches = example("metadata_routing").main(**TINY, sizes=(8,))
    off, on = (searches[i].best_estimator_.calibration_scores_ for i in (False, True))
    assert len(on) < len(off)  # one image of each part
    assert not sklearn.get_config()["enable_metadata_routing"]  # left as it was
    assert capsys.readouterr().out.count("parts on both sides: none") == 2


@pytest.mark.parametrize("path", PLOTS, ids=lambda path: path.stem)
def test_example_with_pictures(path, capsys):
    source = path.read_text(encoding="utf-8")
    assert source.count("epochs=20") == 1
    plt.close("all")  # what other tests have left
    try:
        exec(source.replace("epochs=20", "epochs=1"), {"__name__": path.stem})
        assert plt.get_fignums() == [1]
    finally:
        plt.close("all")
    assert capsys.readouterr().out
