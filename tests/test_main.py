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
from PIL import Image

import skad
from skad.benchmark import runs as _runs
from skad.cli import command_demo as _command_demo
from skad.cli import main as command_line
from skad.cli.main import main

QUICK = ["--epochs", "1", "--patch-size", "8", "--target-fpr", "0.3", "--device", "cpu"]


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def noise(seed, shape=(24, 24)):
    return np.random.default_rng(seed).integers(90, 110, shape, dtype=np.uint8)


def write_good(folder):
    """Write twelve good images of noise, 24 x 24."""
    for i in range(12):
        write(folder / f"{i}.png", noise(i))
    return folder


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return write_good(tmp_path_factory.mktemp("good"))


@pytest.fixture(scope="module")
def model(good, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "new" / "part.safetensors"
    assert main(["fit", str(good), "--model", str(path), *QUICK]) == 0
    return path


def rows_of(folder):
    with (folder / "scores.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def run_python(*arguments):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=command_line.__file__.rpartition("skad")[0],
        capture_output=True,
        text=True,
        check=True,
    ).stdout


# --- Help and arguments -----------------------------------------------------------


def test_help_names_every_command():
    text = run_python("-m", "skad", "--help")
    modules = Path(command_line.__file__).parent.glob("command_*.py")
    for module in modules:
        assert f"    {module.stem.removeprefix('command_')}" in text


@pytest.mark.parametrize("command", ["help", "info"])
def test_help_and_info_import_nothing_heavy(model, command):
    arguments = ["fit", "--help"] if command == "help" else ["info", str(model)]
    program = (
        "import sys\n"
        "from skad.cli.main import main\n"
        f"try:\n    main({arguments})\nexcept SystemExit:\n    pass\n"
        "print('MODULES', *sys.modules)"
    )
    loaded = run_python("-c", program).partition("MODULES")[2].split()
    assert "skad.cli.main" in loaded
    assert not {"torch", "sklearn", "skimage", "PIL", "tqdm"} & set(loaded)


def test_version(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"skad {skad.__version__}\n"


def test_help_tells_the_defaults_of_the_detector(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["fit", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    defaults = inspect.signature(skad.PatchAutoencoderDetector).parameters
    for name in ("patch_size", "epochs", "batch_size", "target_fpr", "device"):
        option = said.rpartition(f"--{name.replace('_', '-')}")[2]
        assert f"(default: {defaults[name].default})" in option, name


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "arguments are required: COMMAND"),
        (["fit", "folder"], "arguments are required: --model"),
        (["fit", "f", "--model", "m", "--epochs", "x"], "--epochs: invalid int value"),
        (
            ["fit", "f", *QUICK, "--contamination", "0.1"],
            "--contamination: not allowed with argument --target-fpr",
        ),
        (
            ["calibrate", "m", "f", "--labels", "l", "--target-fpr", "0.1"],
            "--target-fpr: not allowed with argument --labels",
        ),
    ],
)
def test_wrong_arguments_end_with_2_and_the_usage(arguments, words, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    said = capsys.readouterr().err
    assert said.startswith("usage: skad")
    assert words in said


# --- demo -------------------------------------------------------------------------


def test_demo_draws_writes_and_tells(tmp_path, capsys):
    plt = pytest.importorskip("matplotlib.pyplot")
    assert main(["demo", "--epochs", "1", "--output", str(tmp_path / "new")]) == 0
    plt.close("all")
    said = capsys.readouterr().out
    for words in ("image AUROC", "pixel AUROC", "AU-PRO", " of 20 ", "images a second"):
        assert words in said
    with Image.open(tmp_path / "new" / "demo.png") as picture:
        assert picture.size[0] > 500
    rows = rows_of(tmp_path / "new")
    assert len(rows) == 40
    flagged = sum((r["kind"], r["verdict"]) == ("good", "anomalous") for r in rows)
    assert f"false alarms   {flagged} of 20 = " in said


# --- fit --------------------------------------------------------------------------


def test_fit_stores_a_model_and_says_what_it_promises(model, good, tmp_path, capsys):
    path = tmp_path / "a.safetensors"
    assert main(["fit", str(good), "--model", str(path), *QUICK]) == 0
    said = capsys.readouterr().out
    detector = skad.load(path)
    assert f"threshold      {detector.pixel_threshold_:.6g}" in said
    assert "at most 30 % of good images" in said
    assert f"calibration    {len(detector.calibration_scores_)} images" in said
    assert detector.patch_size == 8
    assert detector.provenance_["source"] == str(good)
    assert detector.pixel_threshold_ == skad.load(model).pixel_threshold_  # same seed
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def test_fit_passes_its_options_on(good, tmp_path, capsys):
    path = tmp_path / "a.safetensors"
    options = ["--patch-size", "4", "9", "--image-size", "16", "20", "--seed", "3"]
    options += ["--contamination", "0.25", "--epochs", "1", "--batch-size", "5"]
    assert main(["fit", str(good), "--model", str(path), *options]) == 0
    detector = skad.load(path)
    assert tuple(detector.patch_size) == (4, 9)
    assert detector.image_shape_in_ == (16, 20)
    assert detector.contamination == 0.25
    assert detector.batch_size == 5
    assert detector.random_state == 3
    assert "none: contamination, a share of the images" in capsys.readouterr().out


def test_fit_looks_where_a_mask_says(tmp_path):
    inside = np.arange(24) < np.full((24, 1), 12)
    mask = write_good(tmp_path / "parts") / "mask.png"  # among the images
    write(mask, 255 * inside.astype(np.uint8))
    path = tmp_path / "a.safetensors"
    call = ["fit", str(mask.parent), "--model", str(path), "--roi", str(mask), *QUICK]
    assert main([*call, "--image-size", "12"]) == 0
    np.testing.assert_array_equal(skad.load(path).roi, inside[::2, ::2])


def test_subfolders_are_searched_and_what_is_no_image_is_named(model, tmp_path, capsys):
    folder = write_good(tmp_path / "all" / "good")
    (folder / "notes.txt").touch()
    output = tmp_path / "part.safetensors"
    fit = ["fit", str(tmp_path / "all"), "--model", str(output), *QUICK]
    assert main(fit) == 2
    said = capsys.readouterr().err
    assert "but 12 below it" in said
    assert "(option --recursive)" in said
    warnings.simplefilter("default")  # pytest sets it back
    assert main([*fit, "--recursive"]) == 0
    said = capsys.readouterr()
    assert "learning from 12 images" in said.out
    assert "skad: warning: 1 file(s) are no images and not taken: notes.txt" in said.err
    scores = ["--output", str(tmp_path / "scores"), "--no-heat-maps"]
    pattern = str(tmp_path / "a*" / "**" / "1*.png")
    assert main(["score", str(output), pattern, *scores]) == 0
    names = [Path(row["path"]).name for row in rows_of(tmp_path / "scores")]
    assert names == ["1.png", "10.png", "11.png"]


def test_fit_does_not_write_over_an_image_that_it_reads(good, tmp_path, capsys):
    (tmp_path / "link").symlink_to(good)
    before = (good / "3.png").read_bytes()
    model = tmp_path / "link" / "3.png"
    assert main(["fit", str(good), "--model", str(model), *QUICK]) == 2
    assert f"{model} is one of the files that are read" in capsys.readouterr().err
    assert (good / "3.png").read_bytes() == before


# --- score ------------------------------------------------------------------------


def test_score_says_what_the_model_says(model, good, tmp_path, capsys):
    defective = noise(99)
    defective[4:14, 6:18] = 255
    write(tmp_path / "in" / "bad.png", defective)
    (tmp_path / "in" / "broken.png").write_bytes(b"no image")
    out = tmp_path / "out"
    arguments = ["score", str(model), str(good), str(tmp_path / "in")]
    assert main([*arguments, "--output", str(out)]) == 1  # a file is unreadable
    *rows, unreadable = rows_of(out)
    assert unreadable["verdict"] == "unreadable"
    detector = skad.load(model)
    images = skad.ImageReader().transform([row["path"] for row in rows])
    for name in ("score_samples", "decision_function", "p_value"):
        column = {"score_samples": "score", "decision_function": "decision"}
        found = [float(row[column.get(name, name)]) for row in rows]
        assert found == getattr(detector, name)(images).tolist()
    verdicts = [1 if row["verdict"] == "good" else -1 for row in rows]
    assert verdicts == detector.predict(images).tolist()
    for row, regions in zip(rows, detector.anomaly_regions(images), strict=True):
        assert int(row["n_regions"]) == len(regions)
    assert len(list((out / "heat_maps").rglob("*.png"))) == 13
    n = verdicts.count(1)
    assert f"{n} good, {13 - n} anomalous, 1 unread" in capsys.readouterr().out


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
    assert "none: the threshold was set by hand; it flags " in said
    assert rows_of(out)[0]["decision"] == rows_of(out)[0]["score"]


# --- calibrate and info -----------------------------------------------------------


def test_calibrate_sets_the_threshold_from_good_images(model, good, tmp_path, capsys):
    new = tmp_path / "new"
    options = ["--output", str(new), "--target-fpr", "0.4"]
    assert main(["calibrate", str(model), str(good), *options]) == 0
    assert "promise        at most 40 % of good images" in capsys.readouterr().out
    images = skad.ImageFolder(good)
    expected = skad.load(model).set_params(target_fpr=0.4).calibrate(images)
    assert skad.load(new).offset_ == expected.offset_
    assert skad.load(new).target_fpr == 0.4


@pytest.mark.filterwarnings("default")
def test_calibrate_sets_the_best_threshold_for_labels(model, tmp_path, capsys):
    images = tmp_path / "images"
    lines = ["name,LABEL", "broken.png,good"]
    for i in range(6):
        pixels = noise(50 + i)
        pixels[4:14, 6:18] = 255 if i < 3 else pixels[4:14, 6:18]
        write(images / f"{i}.png", pixels)
        lines.append(f"{i}.png,{'anomalous' if i < 3 else '+1'}")
    write(images / "unknown.png", noise(1))
    (images / "broken.png").write_bytes(b"no image")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    new = tmp_path / "m"
    new.write_bytes(model.read_bytes())
    options = ["--labels", str(tmp_path / "labels.csv"), "--metric", "f1"]
    assert main(["calibrate", str(new), str(images), *options]) == 0
    said = capsys.readouterr()
    assert "1 of 8 images have no label" in said.err
    assert "left out, cannot read 1 image file(s):" in said.err
    assert "chosen for     f1, here 1\n" in said.out
    assert "detected       3 of 3 = 100.0 %" in said.out
    assert skad.load(new).labelled_threshold_.metric == "f1"
    assert "none: labels set the threshold" in said.out


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("a,b\n1,2\n", "must have a column path or name, and a column label; it has a"),
        (None, "labels.csv: No such file or directory\n"),
        ("name,label\n0.png,ok\n", "line 2: a label must be +1 or good, -1 or"),
        ("path,label\nno.png,good\n", "line 2: 'no.png' must be one image in "),
        ("path,label\n0.png,1\n0.png,-1\n", "line 3: 0.png has another label above"),
        ("path,label\n0.png,1\n", "must hold both labels, +1 (good) and"),
    ],
)
@pytest.mark.filterwarnings("default:.* have no label")
def test_a_table_that_is_none_of_labels_is_told(
    model, good, tmp_path, capsys, table, words
):
    labels, new = tmp_path / "labels.csv", tmp_path / "m"
    if table is not None:
        labels.write_text(table)
    options = ["--labels", str(labels), "--output", str(new)]
    assert main(["calibrate", str(model), str(good), *options]) == 2
    assert words in capsys.readouterr().err
    assert not new.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--metric", "f1"], "--metric needs labels"),
        (["--cost-miss", "3"], "need --metric cost"),
    ],
)
def test_options_of_calibrate_that_go_unheard_are_refused(options, words, capsys):
    assert main(["calibrate", "absent", "absent", *options]) == 2
    assert words in capsys.readouterr().err


def test_info_says_what_a_model_is(model, tmp_path, capsys):
    assert main(["info", str(model)]) == 0
    said = capsys.readouterr().out
    detector = skad.load(model)
    assert f"threshold      {detector.pixel_threshold_:.6g}\n" in said
    assert "promise        at most 30 % of good images are flagged\n" in said
    assert "images         24 x 24 (height x width), gray, integer\n" in said
    assert "training       1 epoch, loss" in said
    assert "\n               epochs = 1\n" in said
    assert "learned        12 good images" in said
    assert f"versions       skad {skad.__version__}, torch " in said
    (tmp_path / "a").write_bytes(b"no model")
    assert main(["info", str(tmp_path / "a")]) == 2
    assert "a is not a model file of skad: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"roi": np.indices((24, 24))[1] < 18}, "; 75% of each counts (roi)\n"),
        ({"image_size": 24}, "; of any size, resized to this one\n"),
    ],
)
def test_info_says_which_images_a_model_takes(parameters, words, tmp_path, capsys):
    settings = {"epochs": 1, "target_fpr": 0.3, "random_state": 0, **parameters}
    detector = skad.PatchAutoencoderDetector(8, **settings)
    cut = "image_size" in parameters
    skad.save(
        detector.fit([noise(i)[cut * (i % 2) :] for i in range(12)]), tmp_path / "m"
    )
    assert main(["info", str(tmp_path / "m")]) == 0
    assert f"24 x 24 (height x width), gray, integer{words}" in capsys.readouterr().out


# --- benchmark --------------------------------------------------------------------


def test_benchmark_writes_results_and_a_table(tmp_path, capsys, monkeypatch):
    def answer(path, seed, parameters, model):
        if seed:
            return {"error": "no", "notes": ["error: no"]}
        return FIGURES | {"defects": {"dot": FIGURES | {"n_defective": 1}}}

    monkeypatch.setattr(_runs, "_run_in_a_process", answer)
    for name in ("train/good/0", "test/good/0"):
        write(tmp_path / "part" / f"{name}.png", noise(0))
    output, table = tmp_path / "results.json", tmp_path / "table.md"
    command = ["benchmark", str(tmp_path), "--output", str(output), "--defects"]
    command += ["--patch-size", "4", "8", "--image-size", "16", "--table", str(table)]
    assert main([*command, "--seeds", "0"]) == 0
    said = capsys.readouterr()
    assert table.read_text(encoding="utf-8") in said.out
    assert "| part | 0.750 |" in said.out
    assert "| part | dot | 1 | " in said.out
    (result,) = json.loads(output.read_text())
    assert result["parameters"] == {"patch_size": [4, 8], "image_size": 16}
    assert main([*command, "--seeds", "0", "1"]) == 1
    said = capsys.readouterr().err
    assert "part, seed 1: error: no\nskad: 1 of 2 runs failed\n" in said


# --- Errors -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["demo", "--output", "f"], "demo.png is a folder"),
        (["fit", "absent", "--model", "m"], "no such image file or folder: absent"),
        (["fit", ".", "--model", "f"], "f is a folder"),
        (["score", "absent", "."], "absent"),
        (["benchmark", "absent"], "no such folder: absent"),
        (["benchmark", ".", "--output", "a", "--table", "a"], "a is one of the files"),
        (["benchmark", "."], "no category in the folder ."),
        (["fit", "a.png", "--model", "m", "--epochs", "0"], "(option --epochs)"),
        (["fit", "a.png", "--model", "m", "--device", "no"], "(option --device)"),
    ],
)
def test_an_error_is_one_line_and_ends_with_2(
    arguments, words, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f" / "demo.png").mkdir(parents=True)
    write(tmp_path / "a.png", noise(0))
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.err.startswith("skad: error: ")
    assert words in said.err
    assert said.err.count("\n") == 1


def test_errors_of_the_package_name_options(tmp_path, capsys):
    write(tmp_path / "a.png", noise(0))
    write(tmp_path / "b.png", np.stack([noise(0, (30, 20))] * 3, axis=-1))
    assert main(["fit", str(tmp_path), "--model", str(tmp_path / "m")]) == 2
    said = capsys.readouterr().err
    assert "pass image_size=(24, 24) to resize them, or gray=True" in said
    assert said.endswith(" (option --image-size, --gray)\n")


def run_demo_as(monkeypatch, run):
    monkeypatch.setattr(_command_demo, "run", run)
    return main(["demo"])


@pytest.mark.parametrize("kind", [RuntimeError, MemoryError])
def test_no_memory_is_an_error_of_one_line(kind, monkeypatch, capsys):
    def allocate(args):
        raise kind("not enough memory:\n  you tried to allocate 9 bytes")

    assert run_demo_as(monkeypatch, allocate) == 2
    said = "skad: error: not enough memory: you tried to allocate 9 bytes\n"
    assert capsys.readouterr().err == said


def test_debug_shows_where_an_error_comes_from():
    with pytest.raises(FileNotFoundError):
        main(["benchmark", "absent", "--debug"])


def test_a_stop_from_the_keyboard_ends_with_130(monkeypatch, capsys):
    def stop(args):
        raise KeyboardInterrupt

    assert run_demo_as(monkeypatch, stop) == 130
    assert capsys.readouterr().err == "skad: stopped\n"


def test_a_warning_is_one_line_and_warnings_are_left_as_found(monkeypatch, capsys):
    def warn(args):
        warnings.simplefilter("default")
        warnings.warn("first\n  second", UserWarning, stacklevel=1)
        return 0

    before = warnings.showwarning
    assert run_demo_as(monkeypatch, warn) == 0
    assert capsys.readouterr().err == "skad: warning: first second\n"
    assert warnings.showwarning is before


@pytest.mark.skipif(sys.platform != "linux", reason="names are any bytes on Linux")
def test_any_file_name_can_be_printed(model, good, tmp_path, monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "utf-8", "strict"))
    out = tmp_path / os.fsdecode(b"\xff")
    options = ["--output", str(out), "--no-heat-maps"]
    assert main(["score", str(model), str(good / "0.png"), *options]) == 0
    sys.stdout.flush()
    assert rb"\udcff/scores.csv" in written.getvalue()


class Full(io.StringIO):
    def write(self, text):
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("stream", [None, Full()])
def test_fit_does_not_need_its_error_stream(good, tmp_path, monkeypatch, stream):
    monkeypatch.setattr(sys, "stderr", stream)
    model = tmp_path / "a.safetensors"
    assert main(["fit", str(good), "--model", str(model), *QUICK]) == 0
    assert model.exists()


STOP_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
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
