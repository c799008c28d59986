import json
import os
import statistics

import numpy as np
import pytest
from PIL import Image

from skad import __version__, _benchmark
from skad._benchmark import run, run_one, table
from skad.metrics import wilson_interval

QUICK = {"epochs": 1, "patch_size": 8, "target_fpr": 0.3, "device": "cpu"}
FIGURES = {
    "n_train": 10,
    "image_auroc": 0.75,
    "n_good": 4,
    "n_defective": 2,
    "false_alarms": 1,
    "detections": 2,
    "false_alarm_rate": 0.25,
    "detection_rate": 1.0,
    "pixel_auroc": 0.9,
    "au_pro": 0.8,
    "threshold": 0.5,
    "target_fpr": 0.05,
    "promised_fpr": 0.05,
    "n_calibration": 30,
    "training_seconds": 1.5,
    "images_per_second": 100.0,
    "peak_memory_mb": 500.0,
    "notes": [],
}


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def make_category(folder, rng):
    """Noisy gray images of 24 x 24, two of which have a white square."""
    for name in [*(f"train/good/{i}" for i in range(10)), "test/good/0", "test/good/1"]:
        write(folder / f"{name}.png", rng.integers(90, 110, (24, 24), dtype=np.uint8))
    for i in range(2):
        pixels = rng.integers(90, 110, (24, 24), dtype=np.uint8)
        mask = np.zeros((24, 24), dtype=np.uint8)
        pixels[4:12, 8:16] = mask[4:12, 8:16] = 255
        write(folder / f"test/square/{i}.png", pixels)
        write(folder / f"ground_truth/square/{i}_mask.png", mask)


@pytest.fixture
def root(tmp_path):
    for name in ("disc", "ring"):
        make_category(tmp_path / "data" / name, np.random.default_rng(0))
    return tmp_path / "data"


@pytest.fixture
def calls(monkeypatch):
    """Replaces the processes by prepared figures, and lists the runs asked for."""
    calls = []

    def answer(path, seed, parameters):
        calls.append((path.name, seed))
        return dict(FIGURES, notes=[])

    monkeypatch.setattr(_benchmark, "_run_in_a_process", answer)
    return calls


# --- One run ----------------------------------------------------------------------


def test_one_run_measures_everything(root):
    result = run_one(root / "disc", 0, QUICK)
    assert set(result) == set(FIGURES)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    counted = {key: result[key] for key in ("n_train", "n_good", "n_defective")}
    assert counted == {"n_train": 10, "n_good": 2, "n_defective": 2}
    assert result["false_alarm_rate"] == result["false_alarms"] / 2
    assert result["target_fpr"] == QUICK["target_fpr"]
    for key in ("image_auroc", "pixel_auroc", "au_pro", "detection_rate"):
        assert 0 <= result[key] <= 1
    assert result["peak_memory_mb"] > 50  # torch alone takes more


def test_equal_seeds_give_equal_figures(root):
    first, second = (run_one(root / "disc", 3, QUICK) for _ in range(2))
    for key in ("image_auroc", "pixel_auroc", "au_pro", "threshold"):
        assert first[key] == second[key]


def test_without_a_mask_pixel_metrics_are_left_out_with_a_note(root):
    (root / "disc/ground_truth/square/1_mask.png").unlink()
    result = run_one(root / "disc", 0, QUICK)
    assert result["pixel_auroc"] is None
    assert result["au_pro"] is None
    (note,) = result["notes"]
    assert "1 defective image(s) have no mask" in note
    assert note.endswith("square/1.png")


# --- Processes --------------------------------------------------------------------


def test_a_run_has_a_process_of_its_own(root, tmp_path):
    output = tmp_path / "results.json"
    (result,) = run(
        root, categories=["ring"], seeds=[5], parameters=QUICK, output=output
    )
    assert (result["category"], result["seed"]) == ("ring", 5)
    assert result["parameters"] == QUICK
    assert result["skad"] == __version__
    assert 0 <= result["image_auroc"] <= 1
    assert json.loads(output.read_text()) == [result]


def test_an_error_in_a_run_is_told_and_not_stored(root, tmp_path, capsys):
    output = tmp_path / "results.json"
    wrong = {**QUICK, "epochs": -1}
    (result,) = run(
        root,
        categories=["disc"],
        seeds=[0],
        parameters=wrong,
        output=output,
        verbose=1,
    )
    assert "'epochs' parameter" in result["error"]
    assert f"disc, seed 0: error: {result['error']}\n" in capsys.readouterr().err
    assert not output.exists()


def crash(sender, path, seed, parameters):
    os._exit(7)


def test_a_crash_costs_one_run(root, monkeypatch):
    monkeypatch.setattr(_benchmark, "_child", crash)
    results = run(root, seeds=[0])
    assert [result["error"] for result in results] == [
        "the process of the run ended with code 7"
    ] * 2


# --- Many runs --------------------------------------------------------------------


def test_every_category_runs_with_every_seed(root, calls):
    results = run(root)
    expected = [(name, seed) for name in ("disc", "ring") for seed in (0, 1, 2)]
    assert calls == expected
    assert [(result["category"], result["seed"]) for result in results] == expected


def test_chosen_categories_and_seeds_run_once_each(root, calls):
    run(root, categories=["ring", "ring"], seeds=[4, 4])
    assert calls == [("ring", 4)]


def test_an_unknown_category_is_named(root, calls):
    with pytest.raises(ValueError, match=r"no category 'rung'; there are disc, ring"):
        run(root, categories=["rung"])


def test_what_is_stored_is_not_run_again(root, calls, tmp_path):
    output = tmp_path / "results.json"
    first = run(root, seeds=[0], output=output)
    again = run(root, seeds=[0, 1], output=output)
    assert calls == [("disc", 0), ("ring", 0), ("disc", 1), ("ring", 1)]
    assert [result for result in again if result["seed"] == 0] == first
    assert len(json.loads(output.read_text())) == 4


def test_an_interrupted_benchmark_goes_on(root, calls, tmp_path, monkeypatch):
    output = tmp_path / "results.json"
    answer = _benchmark._run_in_a_process

    def stop_at_the_second(*args):
        if calls:
            raise KeyboardInterrupt
        return answer(*args)

    with monkeypatch.context() as patch:
        patch.setattr(_benchmark, "_run_in_a_process", stop_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            run(root, seeds=[0], output=output)
    assert len(json.loads(output.read_text())) == 1
    run(root, seeds=[0], output=output)
    assert calls == [("disc", 0), ("ring", 0)]


@pytest.mark.parametrize("change", ["parameters", "version", "data", "fresh"])
def test_what_differs_is_run_again(root, calls, tmp_path, monkeypatch, change):
    output = tmp_path / "results.json"
    options = {"categories": ["disc"], "seeds": [0], "output": output}
    run(root, **options)
    if change == "parameters":
        options["parameters"] = {"epochs": 2}
    elif change == "version":
        monkeypatch.setattr(_benchmark, "__version__", "99")
    elif change == "data":
        (root / "disc/train/good/9.png").unlink()
    else:
        options["fresh"] = True
    run(root, **options)
    assert calls == [("disc", 0)] * 2
    assert len(json.loads(output.read_text())) == (1 if change == "fresh" else 2)


def test_tuples_among_the_parameters_are_known_again(root, calls, tmp_path):
    for _ in range(2):
        run(
            root,
            categories=["disc"],
            seeds=[0],
            parameters={"patch_size": (8, 20)},
            output=tmp_path / "results.json",
        )
    assert len(calls) == 1


@pytest.mark.parametrize("content", ["no json", '{"a": 1}', "[1]"])
def test_a_file_of_something_else_is_not_overwritten(root, calls, tmp_path, content):
    output = tmp_path / "results.json"
    output.write_text(content)
    with pytest.raises(ValueError, match=r"does not hold results .*--fresh"):
        run(root, output=output)
    assert output.read_text() == content
    assert calls == []


# --- The table --------------------------------------------------------------------


def result(category, seed, **figures):
    return {**FIGURES, "category": category, "seed": seed, **figures}


def cells(text):
    """Cells of the table's rows, by the name in the first column."""
    rows = [line for line in text.splitlines() if line.startswith("|")]
    split = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    return {name: values for name, *values in split}


def test_a_row_is_mean_and_deviation_over_seeds():
    aurocs = [0.9, 0.8, 0.85]
    rows = cells(table([result("a", i, image_auroc=v) for i, v in enumerate(aurocs)]))
    column = rows["category"].index("image AUROC")
    mean, deviation = statistics.fmean(aurocs), statistics.stdev(aurocs)
    assert rows["a"][column] == f"{mean:.3f} ± {deviation:.3f}"


def test_a_single_seed_has_no_deviation():
    assert cells(table([result("a", 0)]))["a"][0] == "0.750"


def test_categories_count_equally_in_the_mean():
    results = [result("a", 0, au_pro=0.4), result("a", 1, au_pro=0.6)]
    results += [result("b", 0, au_pro=0.9)]
    rows = cells(table(results))
    column = rows["category"].index("AU-PRO")
    assert rows["**mean**"][column] == "0.700"


def test_the_pooled_false_alarms_stand_beside_the_promise():
    results = [
        result("a", 0, false_alarms=1, n_good=20),
        result("a", 1, false_alarms=3, n_good=20),
        result("b", 0, false_alarms=0, n_good=60, promised_fpr=0.1),
    ]
    rows = cells(table(results))
    low, high = wilson_interval(4, 100)
    column = rows["category"].index("false alarms")
    assert rows["**pooled**"][column] == f"0.040 [{low:.3f}, {high:.3f}]"
    assert rows["category"][column - 1] == "promised"
    assert rows["a"][column - 1] == "0.050"
    assert rows["**pooled**"][column - 1] == "0.080"  # (40 * 0.05 + 60 * 0.1) / 100


def test_unknown_figures_and_failed_runs_leave_gaps():
    failed = {"category": "b", "seed": 0, "error": "ValueError: no", "notes": []}
    rows = cells(table([result("a", 0, au_pro=None), failed]))
    column = rows["category"].index("AU-PRO")
    assert rows["a"][column] == rows["**mean**"][column] == "-"
    assert "b" not in rows
    assert table([failed]) == "No run has ended.\n"


def test_the_rows_of_the_table_are_equally_long():
    lengths = {len(row) for row in cells(table([result("a", 0)])).values()}
    assert lengths == {len(_benchmark._COLUMNS)}
