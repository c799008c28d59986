import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from benchmark_figures import FIGURES
from PIL import Image

import skad
from skad import __version__
from skad.benchmark import runs as _benchmark
from skad.benchmark.runs import run, run_one

QUICK = {"epochs": 1, "patch_size": 8, "target_fpr": 0.3, "device": "cpu"}


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

    def answer(path, seed, parameters, model):
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
    assert list(result["defects"]) == ["square"]  # there is no other kind
    for key, value in result["defects"]["square"].items():
        assert value == result[key]


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


def crash(sender, path, seed, parameters, model):
    os._exit(7)


def test_a_crash_costs_one_run(root, monkeypatch, capsys):
    monkeypatch.setattr(_benchmark, "_child", crash)
    results = run(root, seeds=[0], verbose=1)
    error = "the process of the run ended with code 7"
    assert [result["error"] for result in results] == [error] * 2
    assert f"ring, seed 0: error: {error}\n" in capsys.readouterr().err


WAIT_IN_THE_CHILD = """
import os, sys, time
from pathlib import Path
from skad.benchmark import runs as _benchmark

def wait(path, seed, parameters, model):
    Path(parameters["told"]).write_text(str(os.getpid()))
    time.sleep(300)

_benchmark.run_one = wait
if __name__ == "__main__":
    _benchmark.run(sys.argv[1], seeds=[0], parameters={"told": sys.argv[2]})
"""


def is_running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_a_killed_benchmark_leaves_no_process_behind(root, tmp_path):
    script, told = tmp_path / "script.py", tmp_path / "pid"
    script.write_text(WAIT_IN_THE_CHILD)
    command = [sys.executable, str(script), str(root / "disc"), str(told)]
    with subprocess.Popen(command) as parent:
        pid = wait_for(lambda: told.exists() and told.read_text())
        parent.kill()
    assert wait_for(lambda: not is_running(pid))


def wait_for(condition, seconds=60):
    """Return what a condition gives as soon as that is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s")


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


def test_detectors_are_stored_where_asked(root, tmp_path):
    folder = tmp_path / "models"
    (result,) = run(
        root, categories=["disc"], seeds=[3], parameters=QUICK, models=folder
    )
    detector = skad.load(folder / "disc-3.safetensors")
    assert detector.pixel_threshold_ == result["threshold"]
    assert detector.random_state == 3


def test_what_is_stored_is_run_again_for_a_detector_that_is_not(root, calls, tmp_path):
    options = {
        "categories": ["disc"],
        "seeds": [0],
        "output": tmp_path / "results.json",
    }
    run(root, **options)
    run(root, **options, models=tmp_path)
    assert calls == [("disc", 0)] * 2
    assert len(json.loads(options["output"].read_text())) == 1
    (tmp_path / "disc-0.safetensors").touch()  # a file, and not its detector
    run(root, **options, models=tmp_path)
    assert calls == [("disc", 0)] * 3
    run(root, **options, models=tmp_path)
    assert calls == [("disc", 0)] * 3


def test_a_detector_of_other_parameters_is_not_that_of_a_stored_result(root, tmp_path):
    def threshold(patch_size):
        (result,) = run(
            root,
            categories=["disc"],
            seeds=[0],
            parameters=QUICK | {"patch_size": patch_size},
            output=tmp_path / "results.json",
            models=tmp_path,
        )
        detector = skad.load(tmp_path / "disc-0.safetensors")
        assert detector.pixel_threshold_ == result["threshold"]
        return result

    first, *_, last = [threshold(patch_size) for patch_size in (4, 8, 4)]
    assert last["threshold"] == first["threshold"]
    assert threshold(4) == last  # not run again: its seconds are the same
    assert len(json.loads((tmp_path / "results.json").read_text())) == 2


def test_a_place_for_detectors_is_looked_at_before_the_first_run(root, calls, tmp_path):
    (tmp_path / "models" / "ring-1.safetensors").mkdir(parents=True)
    with pytest.raises(OSError, match=r"ring-1\.safetensors is a folder"):
        run(root, seeds=[0, 1], models=tmp_path / "models")
    assert calls == []


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
    with pytest.raises(ValueError, match=r"does not hold results .*fresh=True"):
        run(root, output=output)
    assert output.read_text() == content
    assert calls == []
