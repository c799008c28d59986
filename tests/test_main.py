"""The command line as a user meets it: arguments, output, files, exit codes."""

import csv
import inspect
import io
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from benchmark_figures import FIGURES
from image_files import save as write

import skad
from skad.benchmark import runs as _runs
from skad.cli import command_demo as _command_demo
from skad.cli import main as command_line
from skad.cli.main import main
from skad.encoders.efficientnet_lite import NAMES

QUICK = ["--epochs", "1", "--patch-size", "8", "--target-fpr", "0.3", "--device", "cpu"]


def noise(seed, shape=(24, 24)):
    return np.random.default_rng(seed).integers(90, 110, shape, dtype=np.uint8)


def write_good(folder, first_seed=0):
    """Write twelve good images of noise, 24 x 24."""
    for i in range(12):
        write(folder / f"{i}.png", noise(first_seed + i))
    return folder


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return write_good(tmp_path_factory.mktemp("good"))


@pytest.fixture(scope="module")
def fitted(good, tmp_path_factory):
    """A stored model, and what `skad fit` has written on stdout."""
    path = tmp_path_factory.mktemp("model") / "new" / "part.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", io.StringIO())
        assert main(["fit", str(good), "--model", str(path), *QUICK]) == 0
        return path, sys.stdout.getvalue()


@pytest.fixture(scope="module")
def model(fitted):
    return fitted[0]


def rows_of(folder):
    with (folder / "scores.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# --- Help and arguments -----------------------------------------------------------


def test_help_imports_nothing_heavy():
    program = (
        "import sys\n"
        "from skad.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print('MODULES', *sys.modules)"
    )
    root = command_line.__file__.rpartition("skad")[0]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True
    )
    said, _, loaded = done.stdout.partition("MODULES")
    heavy = {"torch", "scipy", "sklearn", "skimage", "PIL", "tqdm", "pandas"}
    assert "skad.cli.main" in loaded
    assert not heavy & set(loaded.split())
    for module in Path(command_line.__file__).parent.glob("command_*.py"):
        assert f"    {module.stem.removeprefix('command_')}" in said


def test_help_tells_the_defaults_of_the_detector(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["fit", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    defaults = inspect.signature(skad.PatchAutoencoderDetector).parameters
    for name in ("patch_size", "epochs", "batch_size", "target_fpr", "device"):
        option = said.rpartition(f"--{name.replace('_', '-')}")[2]
        assert f"(default: {defaults[name].default})" in option, name
    assert f"--encoder {{{','.join(NAMES)}}}" in said


# --- fit --------------------------------------------------------------------------


def test_fit_stores_a_model_and_says_what_it_promises(fitted, good):
    model, said = fitted
    detector = skad.load(model)
    assert f"threshold      {detector.pixel_threshold_:.6g}" in said
    assert "at most 30 % of good images" in said
    assert f"calibration    {len(detector.calibration_scores_)} held-out images" in said
    assert detector.patch_size == 8
    assert detector.provenance_["source"] == str(good)
    assert [file.name for file in model.parent.iterdir()] == [model.name]


def test_fit_passes_its_options_on(tmp_path, capsys):
    mask = write_good(tmp_path / "parts") / "mask.png"  # among the images
    write(mask, np.uint8(255) * (np.indices((24, 24))[0] < 12))
    path = tmp_path / "a.safetensors"
    options = ["--patch-size", "4", "9", "--image-size", "12", "16", "--seed", "3"]
    options += ["--contamination", "0.25", "--epochs", "1", "--batch-size", "5"]
    call = ["fit", str(mask.parent), "--model", str(path), "--roi", str(mask)]
    assert main([*call, *options]) == 0
    detector = skad.load(path)
    assert tuple(detector.patch_size) == (4, 9)
    assert detector.image_shape_in_ == (12, 16)
    assert detector.contamination == 0.25
    assert detector.batch_size == 5
    assert detector.random_state == 3
    assert detector.roi[:6].all() and not detector.roi[6:].any()
    assert "none, as target_fpr did not set it" in capsys.readouterr().out
    assert main(["info", str(path)]) == 0
    assert "images         12 x 16, integer, with a roi\n" in capsys.readouterr().out


def test_fit_with_an_encoder_needs_no_training(good, tmp_path, capsys):
    path = tmp_path / "a.safetensors"
    options = ["--encoder", NAMES[0], "--epochs", "0", "--calibration", "cross"]
    assert main(["fit", str(good), "--model", str(path), *options]) == 0
    said = capsys.readouterr()
    assert "none, as target_fpr did not set it on held-out images" in said.out
    assert "calibration    12 cross-fitted images" in said.out
    assert said.err == ""  # no bar, and no warning of what is not promised anyway
    assert skad.load(path).network_ is None
    assert main(["info", str(path)]) == 0
    said = capsys.readouterr().out
    assert "training       none, as epochs=0\n" in said
    assert f"encoder        {NAMES[0]}, pretrained\n" in said


def test_subfolders_are_searched_and_what_is_no_image_is_named(model, tmp_path, capsys):
    folder = write_good(tmp_path / "all" / "good", first_seed=20)
    (folder / "notes.txt").touch()
    options = [str(tmp_path / "all"), "--output", str(tmp_path / "m")]
    call = ["calibrate", str(model), *options]
    assert main(call) == 2
    assert "(option --recursive)" in capsys.readouterr().err
    warnings.simplefilter("default")  # pytest sets it back
    assert main([*call, "--recursive"]) == 0
    said = capsys.readouterr()
    assert "calibration    12 good images" in said.out
    assert "skad: warning: 1 file(s) are no images and not taken: notes.txt" in said.err


# --- score ------------------------------------------------------------------------


def test_score_says_what_the_model_says(model, good, tmp_path, capsys):
    defective = noise(99)
    defective[4:14, 6:18] = 255
    write(tmp_path / "in" / "bad.png", defective)
    (tmp_path / "in" / "broken.png").write_bytes(b"no image")
    out = tmp_path / "out"
    named = [str(good / f"{i}.png") for i in (1, 10, 11)]
    arguments = ["score", str(model), *named, str(tmp_path / "in")]
    assert main([*arguments, "--output", str(out)]) == 1  # a file is unreadable
    *rows, unreadable = rows_of(out)
    assert unreadable["verdict"] == "unreadable"
    detector = skad.load(model)
    images = skad.ImageReader().transform([row["path"] for row in rows])
    for row, found in zip(rows, detector.inspect(images), strict=True):
        values = (found.score, found.decision, found.p_value)
        columns = ("score", "decision", "p_value")
        assert [float(row[name]) for name in columns] == list(values)
        assert row["verdict"] == found.verdict
    assert len(list((out / "heat_maps").rglob("*.png"))) == 4
    assert ", 1 unreadable" in capsys.readouterr().out


def test_score_moves_the_threshold_and_says_what_holds(model, good, tmp_path, capsys):
    scores = skad.load(model).calibration_scores_
    arguments = ["score", str(model), str(good), "--no-heat-maps", "--output"]
    least = 1 / (len(scores) + 1)
    out = tmp_path / "rate"
    assert main([*arguments, str(out), "--target-fpr", f"{least + 1e-6}"]) == 0
    assert "promise        at most " in capsys.readouterr().out
    row = rows_of(out)[0]
    assert float(row["decision"]) == float(row["score"]) - scores[0]
    out = tmp_path / "hand"
    options = ["--threshold", "0", "--device", "cpu"]
    assert main([*arguments, str(out), *options]) == 0
    said = capsys.readouterr().out
    assert "0 good, 12 anomalous" in said
    assert "did not set it on held-out images; it flags 4 of 4 good images" in said
    assert rows_of(out)[0]["decision"] == rows_of(out)[0]["score"]


# --- calibrate and info -----------------------------------------------------------


def test_calibrate_sets_the_threshold_from_good_images(model, tmp_path, capsys):
    new, good = tmp_path / "new", write_good(tmp_path / "good", first_seed=20)
    options = ["--output", str(new), "--target-fpr", "0.4"]
    assert main(["calibrate", str(model), str(good), *options]) == 0
    assert "promise        at most 40 % of good images" in capsys.readouterr().out
    images = skad.ImageFolder(good)
    expected = skad.load(model).set_params(target_fpr=0.4).calibrate(images)
    assert skad.load(new).offset_ == expected.offset_
    assert skad.load(new).target_fpr == 0.4


@pytest.mark.filterwarnings("default")
def test_calibrate_tells_anomalous_images_best_from_good_ones(model, tmp_path, capsys):
    good = write_good(tmp_path / "images", first_seed=50)
    for i in range(3):
        pixels = noise(70 + i)
        pixels[4:14, 6:18] = 255
        write(good / "bad" / f"{i}.png", pixels)
    (good / "bad" / "broken.png").write_bytes(b"no image")
    new = tmp_path / "m"
    new.write_bytes(model.read_bytes())
    options = ["--anomalous", str(good / "bad"), "--metric", "f1", "--recursive"]
    assert main(["calibrate", str(new), str(good), *options]) == 0
    said = capsys.readouterr()
    assert "1 image file(s) left out:" in said.err
    assert "chosen for     f1, here 1\n" in said.out
    assert "detected       3 of 3 = 100.0 %" in said.out
    assert "false alarms   0 of 12 = " in said.out
    assert skad.load(new).labelled_threshold_.metric == "f1"
    assert "none, as target_fpr did not set it" in said.out


def test_info_says_what_a_model_is(model, good, tmp_path, capsys):
    assert main(["info", str(model)]) == 0
    said = capsys.readouterr().out
    detector = skad.load(model)
    assert f"threshold      {detector.pixel_threshold_:.6g}\n" in said
    assert "promise        at most 30 % of good images are flagged\n" in said
    assert "images         24 x 24, integer\n" in said
    assert "training       1 epochs, loss" in said
    assert ", epochs=1, " in said
    assert f"n_images=12, n_training=8, n_calibration=4, source='{good}'" in said
    (tmp_path / "a").write_bytes(b"no model")
    assert main(["info", str(tmp_path / "a")]) == 2
    assert "is not a model file that skad" in capsys.readouterr().err


# --- benchmark --------------------------------------------------------------------


def test_benchmark_writes_results_and_prints_a_table(tmp_path, capsys, monkeypatch):
    def answer(call, path, seed, parameters, model):
        if seed:
            raise ValueError("no")
        return FIGURES

    monkeypatch.setattr(_runs, "in_a_process", answer)
    for name in ("train/good/0", "test/good/0"):
        write(tmp_path / "part" / f"{name}.png", noise(0))
    output = tmp_path / "results.json"
    command = ["benchmark", str(tmp_path), "--output", str(output)]
    command += ["--patch-size", "4", "8", "--image-size", "16", "--seeds", "0", "1"]
    command += ["--encoder", NAMES[0], "--epochs", "0"]
    assert main(command) == 1
    said = capsys.readouterr()
    assert "|part|0.750|" in "".join(said.out.split())
    assert said.err.endswith(
        "part, seed 1: error: ValueError: no\nskad: 1 of 2 runs failed\n"
    )
    (result,) = json.loads(output.read_text())
    expected = {"patch_size": [4, 8], "image_size": 16}
    assert result["parameters"] == expected | {"encoder": NAMES[0], "epochs": 0}


# --- Errors -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["demo", "--output", "f"], "demo.png is a folder"),
        (["fit", "absent", "--model", "m"], "no such image file or folder: absent"),
        (["fit", ".", "--model", "f"], "f is a folder"),
        (["fit", "link", "--model", "a.png"], "a.png is one of the files that are"),
        (["benchmark", "absent"], "no such folder: absent"),
        (["benchmark", ".", "--output", "a.png"], "a.png is one of the files"),
        (["benchmark", ".", "--seeds", "-1"], "'random_state' parameter"),
        (["benchmark", ".", "--patch-size", "1"], "(option --patch-size)"),
        (["fit", "a.png", "--model", "m", "--epochs", "0"], "--epochs, --encoder)"),
        (["calibrate", "absent", ".", "--metric", "f1"], "--metric needs anomalous"),
        (["calibrate", "absent", ".", "--cost-miss", "3"], "need --metric cost"),
    ],
)
def test_an_error_is_one_line_and_ends_with_2(
    arguments, words, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f" / "demo.png").mkdir(parents=True)
    write(tmp_path / "a.png", noise(0))
    (tmp_path / "link").symlink_to(tmp_path)
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.err.startswith("skad: error: ")
    assert words in said.err
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (RuntimeError("no memory:\n  9 bytes"), 2, "error: no memory: 9 bytes\n"),
        (MemoryError("no memory"), 2, "error: no memory\n"),
        (KeyboardInterrupt(), 130, "stopped\n"),
    ],
)
def test_what_ends_a_command_is_one_line(monkeypatch, capsys, error, code, said):
    def fail(args):
        raise error

    monkeypatch.setattr(_command_demo, "run", fail)
    assert main(["demo"]) == code
    assert capsys.readouterr().err == f"skad: {said}"
    if isinstance(error, RuntimeError):
        with pytest.raises(RuntimeError):
            main(["demo", "--debug"])


def test_a_warning_is_one_line_and_warnings_are_left_as_found(monkeypatch, capsys):
    def warn(args):
        warnings.simplefilter("default")
        warnings.warn("first\n  second", UserWarning, stacklevel=1)
        return 0

    before = warnings.showwarning
    monkeypatch.setattr(_command_demo, "run", warn)
    assert main(["demo"]) == 0
    assert capsys.readouterr().err == "skad: warning: first second\n"
    assert warnings.showwarning is before


class Full(io.StringIO):
    def write(self, text):
        raise OSError(28, "No space left on device")


@pytest.mark.skipif(sys.platform != "linux", reason="names are any bytes on Linux")
@pytest.mark.parametrize("stream", [None, Full()])
def test_neither_file_names_nor_full_streams_stop_a_command(
    model, good, tmp_path, monkeypatch, stream
):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "utf-8", "strict"))
    monkeypatch.setattr(sys, "stderr", stream)
    (tmp_path / "broken.png").touch()  # to be named on stderr
    out = tmp_path / os.fsdecode(b"\xff")
    files = [str(good / "0.png"), str(tmp_path / "broken.png")]
    options = ["--output", str(out), "--no-heat-maps"]
    assert main(["score", str(model), *files, *options]) == 1
    sys.stdout.flush()
    assert rb"\udcff/scores.csv" in written.getvalue()


STOP_WHILE_WRITING = """
import os, signal, sys
from skad.cli import command_info, main
from skad.common.files import write_atomically

def write(args):
    os.fsync = lambda number: signal.raise_signal(signal.SIGTERM)
    write_atomically(args.model, "text")

command_info.run = write
main.main(["info", sys.argv[1]])
"""


def test_a_termination_ends_with_143_and_leaves_nothing_half_written(tmp_path):
    command = [sys.executable, "-c", STOP_WHILE_WRITING, str(tmp_path / "a")]
    assert subprocess.run(command, check=False).returncode == 143
    assert list(tmp_path.iterdir()) == []
