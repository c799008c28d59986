"""The scripts behind the figures in docs: all can be imported, some are run small."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from imported_names import imported_names
from PIL import Image

import skad

SCRIPTS = sorted((Path(__file__).parents[1] / "docs" / "benchmarks").glob("*.py"))


@pytest.fixture
def script(monkeypatch):
    """Import a script by its name, as running it does; others like it are found."""
    monkeypatch.syspath_prepend(SCRIPTS[0].parent)
    yield importlib.import_module
    for path in SCRIPTS:
        sys.modules.pop(path.stem, None)


@pytest.fixture
def root(tmp_path):
    """A category of noisy gray images of 48 x 48, two with a white square."""
    folder, rng = tmp_path / "data" / "part", np.random.default_rng(0)
    goods = [*(f"train/good/{i}" for i in range(8)), "test/good/0", "test/good/1"]
    bads = ["test/square/0", "test/square/1"]
    for name in goods + bads:
        pixels = rng.integers(90, 111, (48, 48), dtype=np.uint8)
        mask = np.zeros_like(pixels)
        if name in bads:
            pixels[10:30, 15:25] = mask[10:30, 15:25] = 255
            write(folder / f"{name.replace('test', 'ground_truth')}_mask.png", mask)
        write(folder / f"{name}.png", pixels)
    return tmp_path / "data"


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


PUBLIC = {"skad", *(f"skad.{name}" for name in skad._SUBMODULES)}
# What they measure is not public.
LOOK_INSIDE = {"ablation", "leave_one_set_out", "near_copies"}
LOOK_INSIDE |= {"monitor_bets", "monitor_false_alarms", "onnx_parity"}
LOOK_INSIDE |= {"report_size", "serve_speed"}


def private_imports(source):
    """Return what a source imports from skad, wherever in it, that is not public."""
    return [name for name in imported_names(source) if not is_public(name)]


def is_public(name):
    """Tell whether a name is a public module of skad, or one exports it."""
    module, _, last = name.rpartition(".")
    exports = importlib.import_module(module).__all__ if module in PUBLIC else ()
    return name in PUBLIC or last in exports


def test_scripts_import_only_public_names():
    found = {path.stem: private_imports(path.read_text()) for path in SCRIPTS}
    assert {name for name, private in found.items() if private} == LOOK_INSIDE


@pytest.mark.parametrize(
    ("source", "private"),
    [
        ("import skad.metrics\nfrom skad import load, images", []),
        ("import skad.network.model", ["skad.network.model"]),
        ("from skad import scoring", ["skad.scoring"]),
        (
            "def f():\n    from skad.benchmark.runs import run",
            ["skad.benchmark.runs.run"],
        ),
    ],
)
def test_a_private_import_is_found(source, private):
    assert private_imports(source) == private


@pytest.mark.parametrize("name", [path.stem for path in SCRIPTS])
def test_every_script_can_be_imported(name, script):
    assert callable(script(name).main)


@pytest.mark.parametrize(
    ("encoder", "epochs", "n_parts"),
    [(None, 1, 8), ("efficientnet-lite0", 1, 10), ("efficientnet-lite0", 0, 5)],
)
def test_the_ablation_takes_stored_detectors_and_knows_their_parts(
    script, root, tmp_path, monkeypatch, capsys, encoder, epochs, n_parts
):
    ablation = script("ablation")
    train = ablation.load_category(root / "part").train
    detector = ablation.skad.PatchAutoencoderDetector(
        encoder=encoder,
        epochs=epochs,
        image_size=32,
        device="cpu",
        target_fpr=0.5,
        random_state=0,
    )
    path = tmp_path / "part-0.safetensors"
    ablation.skad.save(detector.fit(train), path)
    arguments = [str(root), "--models", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["ablation.py", *arguments])
    ablation.main()
    _, _, method, *parts = capsys.readouterr().out.splitlines()
    assert "the method" in method
    assert len(parts) == n_parts
    figures = [part.split("|")[2] for part in (method, *parts)]
    assert len(set(figures)) > 1
