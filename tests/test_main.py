import csv
import inspect
import io
import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

import skad
from skad.benchmark import runs as _benchmark
from skad.cli import command_demo as _command_demo
from skad.cli import command_fit as _command_fit
from skad.cli import main as command_line
from skad.cli.arguments import make_parser
from skad.cli.main import main
from skad.datasets import SURFACES

QUICK = ["--epochs", "1", "--patch-size", "8", "--target-fpr", "0.3", "--device", "cpu"]


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def noise(seed, shape=(24, 24)):
    return np.random.default_rng(seed).integers(90, 110, shape, dtype=np.uint8)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Twelve good images of noise, 24 x 24."""
    folder = tmp_path_factory.mktemp("good")
    for i in range(12):
        write(folder / f"{i}.png", noise(i))
    return folder


@pytest.fixture(scope="module")
def model(good, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "new" / "part.safetensors"
    assert main(["fit", str(good), "--model", str(path), *QUICK]) == 0
    return path


def size_of(path):
    with Image.open(path) as image:
        return image.size


def rows_of(folder):
    with (folder / "scores.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def commands():
    """Names of the commands that the parser takes."""
    (action,) = (a for a in make_parser()._actions if a.dest == "command")
    return set(action.choices)


def run_python(*arguments):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=command_line.__file__.rpartition("skad")[0],
        capture_output=True,
        text=True,
        check=True,
    ).stdout


# --- Help and arguments -----------------------------------------------------------


def test_help_names_the_commands():
    text = run_python("-m", "skad", "--help")
    for command in commands():
        assert f"    {command}" in text


def test_help_imports_nothing_heavy():
    program = (
        "import sys\n"
        "from skad.cli.main import main\n"
        "try:\n    main(['fit', '--help'])\n"
        "except SystemExit:\n    print('MODULES', *sys.modules)"
    )
    loaded = run_python("-c", program).partition("MODULES")[2].split()
    assert "skad.cli.main" in loaded
    assert not {"torch", "sklearn", "skimage", "numpy", "PIL", "tqdm"} & set(loaded)


def test_version(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"skad {skad.__version__}\n"


def test_every_command_of_the_parser_can_be_run():
    modules = Path(command_line.__file__).parent.glob("_command_*.py")
    assert {f"_command_{name}" for name in commands()} == {m.stem for m in modules}


def test_defaults_are_those_of_the_detector():
    args = make_parser().parse_args(["fit", "folder", "--model", "file"])
    defaults = inspect.signature(skad.PatchAutoencoderDetector).parameters
    for name in ("epochs", "target_fpr", "contamination", "device"):
        assert getattr(args, name) == defaults[name].default, name
    assert args.patch_size == [defaults["patch_size"].default]
    demo = make_parser().parse_args(["demo"])
    assert demo.epochs == defaults["epochs"].default


@pytest.mark.parametrize("surface", SURFACES)
def test_every_surface_can_be_asked_for(surface):
    args = make_parser().parse_args(["demo", "--surface", surface])
    assert args.surface == surface


@pytest.mark.parametrize("arguments", [[], ["nope"], ["fit", "folder"], ["score", "m"]])
def test_wrong_arguments_end_with_2_and_the_usage(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert "usage: skad" in capsys.readouterr().err


# --- demo -------------------------------------------------------------------------


def test_demo_draws_writes_and_tells(tmp_path, capsys):
    plt = pytest.importorskip("matplotlib.pyplot")
    assert main(["demo", "--epochs", "1", "--output", str(tmp_path / "new")]) == 0
    plt.close("all")
    said = capsys.readouterr().out
    for words in ("image AUROC", "pixel AUROC", "AU-PRO", " of 20 ", "images a second"):
        assert words in said
    assert f"picture        {tmp_path / 'new' / 'demo.png'}" in said
    assert size_of(tmp_path / "new" / "demo.png")[0] > 500
    rows = rows_of(tmp_path / "new")
    assert len(rows) == 40
    assert {row["verdict"] for row in rows} <= {"good", "anomalous"}
    flagged = sum(
        row["verdict"] == "anomalous" for row in rows if row["kind"] == "good"
    )
    assert f"false alarms   {flagged} of 20 = " in said


@pytest.mark.parametrize("name", ["demo.png", "scores.csv"])
def test_demo_looks_at_its_files_places_before_it_learns(tmp_path, capsys, name):
    (tmp_path / name).mkdir()
    assert main(["demo", "--output", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert f"{name} is a folder" in said.err
    assert said.out == ""


# --- fit --------------------------------------------------------------------------


def test_fit_stores_a_model_and_says_what_it_promises(model, good, tmp_path, capsys):
    path = tmp_path / "a.safetensors"
    assert main(["fit", str(good), "--model", str(path), *QUICK]) == 0
    said = capsys.readouterr().out
    detector = skad.load(path)
    n = len(detector.calibration_scores_)
    assert f"threshold      {detector.pixel_threshold_:.6g}" in said
    assert "at most 30 % of good images" in said
    assert f"calibration    {n} images" in said
    assert detector.patch_size == 8
    assert detector.pixel_threshold_ == skad.load(model).pixel_threshold_  # same seed


def test_fit_passes_its_options_on(good, tmp_path, capsys):
    path = tmp_path / "a.safetensors"
    options = ["--patch-size", "4", "9", "--image-size", "16", "20", "--seed", "3"]
    options += ["--contamination", "0.25", "--target-fpr", "0.3", "--epochs", "1"]
    options += ["--batch-size", "5"]
    assert main(["fit", str(good), "--model", str(path), *options]) == 0
    detector = skad.load(path)
    assert tuple(detector.patch_size) == (4, 9)
    assert detector.image_shape_in_ == (16, 20)
    assert detector.contamination == 0.25
    assert detector.target_fpr == 0.3
    assert detector.batch_size == 5
    assert detector.random_state == 3
    assert (
        "none: contamination, a share of the images, set the threshold"
        in capsys.readouterr().out
    )


def test_fit_looks_where_a_mask_says(good, tmp_path):
    for file in good.iterdir():
        write(tmp_path / "parts" / file.name, np.asarray(Image.open(file)))
    inside = np.arange(24) < np.full((24, 1), 12)
    mask = tmp_path / "parts" / "mask.png"  # among the images, and none of them
    write(mask, 255 * inside.astype(np.uint8))
    path = tmp_path / "a.safetensors"
    call = ["fit", str(mask.parent), "--model", str(path), "--roi", str(mask), *QUICK]
    assert main([*call, "--image-size", "12"]) == 0
    np.testing.assert_array_equal(skad.load(path).roi, inside[::2, ::2])


def test_fit_says_the_least_promise_that_few_images_allow(good, tmp_path, capsys):
    path = tmp_path / "a.safetensors"
    options = ["--epochs", "1", "--patch-size", "8", "--target-fpr", "0.001"]
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main(["fit", str(good), "--model", str(path), *options]) == 0
    said = capsys.readouterr()
    n = len(skad.load(path).calibration_scores_)
    assert f"at most {100 / (n + 1):.3g} % of good images" in said.out
    assert "skad: warning: --target-fpr 0.001 cannot be promised: " in said.err
    assert f"{n} good images can promise {100 / (n + 1):.3g} % at best" in said.err
    assert "or raise --target-fpr.\n" in said.err


def test_fit_learns_the_same_from_images_that_do_not_fit_into_memory(
    model, good, tmp_path, monkeypatch
):
    monkeypatch.setattr(_command_fit, "_BYTES_IN_MEMORY", 0)
    path = tmp_path / "a.safetensors"
    assert main(["fit", str(good), "--model", str(path), *QUICK]) == 0
    np.testing.assert_equal(load_file(path), load_file(model))


def test_fit_and_score_search_folders_in_folders_and_name_what_is_no_image(
    good, tmp_path, monkeypatch, capsys
):
    for file in sorted(good.iterdir()):
        write(tmp_path / "all" / "good" / file.name, np.asarray(Image.open(file)))
    Image.fromarray(np.full((24, 24), np.nan, np.float32)).save(
        tmp_path / "all" / "good" / "lost.tif"
    )
    for name in ("notes.txt", "._0.png", "Thumbs.db"):
        (tmp_path / "all" / "good" / name).touch()
    output = tmp_path / "part.safetensors"
    fit = ["fit", str(tmp_path / "all"), "--model", str(output), *QUICK]
    assert main(fit) == 2
    assert "but 13 in" in (text := capsys.readouterr().err)
    assert "--recursive" in text
    in_memory = _command_fit.ImageFolder.in_memory

    def vanish(images):
        images.paths[3].unlink()
        return in_memory(images)

    monkeypatch.setattr(_command_fit.ImageFolder, "in_memory", vanish)
    warnings.simplefilter("default")  # pytest sets it back
    assert main([*fit, "--recursive"]) == 0
    said = capsys.readouterr()
    assert "learning from 12 images" in said.out
    assert "1 file is no image and not taken: notes.txt" in said.err
    assert "lost.tif: pixels must be finite numbers" in said.err
    assert "11.png: no such image file" in said.err
    scores = ["--output", str(tmp_path / "scores"), "--no-heat-maps"]
    pattern = str(tmp_path / "a*" / "**" / "1*.png")
    assert main(["score", str(output), pattern, *scores]) == 0
    assert [Path(row["path"]).name for row in rows_of(tmp_path / "scores")] == [
        "1.png",
        "10.png",
    ]
    assert main(["score", str(output), str(tmp_path), "--recursive", *scores]) == 1
    assert len(rows_of(tmp_path / "scores")) == 12
    assert capsys.readouterr().err.count("notes.txt") == 1


def test_fit_looks_at_the_models_place_before_it_learns(good, tmp_path, capsys):
    assert main(["fit", str(good), "--model", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("skad: error: ")
    assert "is a folder" in said.err
    assert said.out == ""


def test_fit_does_not_write_over_an_image_that_it_reads(good, tmp_path, capsys):
    (tmp_path / "link").symlink_to(good)
    before = (good / "3.png").read_bytes()
    model = tmp_path / "link" / "3.png"
    assert main(["fit", str(good), "--model", str(model), *QUICK]) == 2
    said = capsys.readouterr()
    assert f"{model} is one of the files that are read" in said.err
    assert said.out == ""
    assert (good / "3.png").read_bytes() == before


# --- score ------------------------------------------------------------------------


def test_score_says_what_the_model_says(model, good, tmp_path, capsys):
    defective = noise(99)
    defective[4:14, 6:18] = 255
    write(tmp_path / "in" / "bad.png", defective)
    out = tmp_path / "out"
    arguments = ["score", str(model), str(good), str(tmp_path / "in")]
    assert main([*arguments, "--output", str(out)]) == 0
    rows = rows_of(out)
    detector, paths = skad.load(model), [row["path"] for row in rows]
    images = skad.ImageReader().transform(paths)
    scores = [float(row["score"]) for row in rows]
    assert scores == detector.score_samples(images).tolist()
    decisions = [float(row["decision"]) for row in rows]
    assert decisions == detector.decision_function(images).tolist()
    p_values = [float(row["p_value"]) for row in rows]
    assert p_values == detector.p_value(images).tolist()
    verdicts = [1 if row["verdict"] == "good" else -1 for row in rows]
    assert verdicts == detector.predict(images).tolist()
    for row, regions in zip(rows, detector.anomaly_regions(images), strict=True):
        assert int(row["n_regions"]) == len(regions)
        assert int(row["largest_area"]) == max((r.area for r in regions), default=0)
    assert len(list((out / "heat_maps").rglob("*.png"))) == 13
    n_good = verdicts.count(1)
    assert (
        f"{n_good} good, {13 - n_good} anomalous, 0 unread" in capsys.readouterr().out
    )


def test_score_reads_files_as_the_model_was_fitted(model, tmp_path):
    colour = np.stack([noise(0, (48, 60))] * 3, axis=-1)
    write(tmp_path / "in" / "large.png", colour)
    out = tmp_path / "out"
    assert main(["score", str(model), str(tmp_path / "in"), "--output", str(out)]) == 0
    assert size_of(out / "heat_maps" / "large.png") == (60, 48)  # as the file


def test_score_ends_with_1_where_a_file_is_unreadable(model, good, tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(b"no image")
    paths = [str(tmp_path / "broken.png"), str(good / "0.png")]
    options = ["--output", str(tmp_path / "out"), "--no-heat-maps"]
    assert main(["score", str(model), *paths, *options]) == 1
    said = capsys.readouterr()
    assert "skad: unreadable: " in said.err
    assert "1 unreadable" in said.out
    assert [row["verdict"] == "unreadable" for row in rows_of(tmp_path / "out")] == [
        True,
        False,
    ]
    assert not (tmp_path / "out" / "heat_maps").exists()


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
    found = skad.load(new)
    assert found.offset_ == expected.offset_
    assert found.target_fpr == 0.4


@pytest.mark.filterwarnings("default")
def test_calibrate_sets_the_best_threshold_for_labels(model, good, tmp_path, capsys):
    images = tmp_path / "images"
    lines = ["name,LABEL"]
    for i in range(6):
        pixels = noise(50 + i)
        pixels[4:14, 6:18] = 255 if i < 3 else pixels[4:14, 6:18]
        write(images / f"{i}.png", pixels)
        lines.append(f"{i}.png,{'anomalous' if i < 3 else '+1'}")
    write(images / "unknown.png", noise(1))
    (images / "broken.png").write_bytes(b"no image")
    lines.append("broken.png,good")
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
        (
            "a,b\n1,2\n",
            "must have a column path or name, and a column label; it has a, b",
        ),
        (None, "labels.csv: No such file or directory\n"),
        ("name,label\n0.png,ok\n", "line 2: a label must be +1 or good, -1 or"),
        ("path,label\nno.png,good\n", "line 2: there is no image 'no.png' in "),
        ("path,label\n0.png,1\n0.png,-1\n", "line 3: 0.png has another label above"),
        ("path,label\n0.png,1\n", "--labels must hold both labels, +1 (good) and"),
    ],
)
@pytest.mark.filterwarnings("default:.* have no label")
def test_a_table_that_is_none_of_labels_is_told(
    model, good, tmp_path, capsys, table, words
):
    if table is not None:
        (tmp_path / "labels.csv").write_text(table)
    options = [
        "--labels",
        str(tmp_path / "labels.csv"),
        "--output",
        str(tmp_path / "m"),
    ]
    assert main(["calibrate", str(model), str(good), *options]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--metric", "f1"], "--metric needs labels"),
        (["--cost-miss", "3"], "need --metric cost"),
        (["--labels", "l", "--target-fpr", "0.1"], "either --labels or --target-fpr"),
    ],
)
def test_options_of_calibrate_that_go_unheard_are_refused(options, words, capsys):
    assert main(["calibrate", "absent", "absent", *options]) == 2
    assert words in capsys.readouterr().err


def test_info_says_what_a_model_is(model, capsys):
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


def test_info_says_how_much_of_an_image_counts(tmp_path, capsys):
    roi = np.zeros((24, 24), bool)
    roi[:, :18] = True
    detector = skad.PatchAutoencoderDetector(
        8, epochs=1, target_fpr=0.3, roi=roi, random_state=0
    ).fit([noise(i) for i in range(12)])
    skad.save(detector, tmp_path / "m")
    assert main(["info", str(tmp_path / "m")]) == 0
    assert "gray, integer; 75% of each counts (roi)\n" in capsys.readouterr().out


def test_info_says_that_images_may_have_any_size(tmp_path, capsys):
    detector = skad.PatchAutoencoderDetector(
        8, epochs=1, image_size=24, target_fpr=0.3, random_state=0
    ).fit([noise(i)[: 20 + i % 2] for i in range(12)])
    skad.save(detector, tmp_path / "m")
    assert main(["info", str(tmp_path / "m")]) == 0
    said = capsys.readouterr().out
    assert "24 x 24 (height x width), gray, integer; of any size, resized" in said


def test_info_loads_nothing_heavy(model):
    program = (
        f"import sys; from skad.cli.main import main; main(['info', {str(model)!r}])"
    )
    loaded = run_python("-c", f"{program}; print('MODULES', *sys.modules)")
    modules = loaded.partition("MODULES")[2].split()
    assert not {"torch", "sklearn", "skimage", "scipy", "PIL", "tqdm"} & set(modules)


def test_what_is_no_model_has_no_info(tmp_path, capsys):
    (tmp_path / "a").write_bytes(b"no model")
    assert main(["info", str(tmp_path / "a")]) == 2
    assert "a is not a model file of skad: " in capsys.readouterr().err


# --- benchmark --------------------------------------------------------------------


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "data" / "part"
    for name in [*(f"train/good/{i}" for i in range(10)), "test/good/0", "test/dot/0"]:
        write(folder / f"{name}.png", noise(0))
    return tmp_path / "data"


def test_benchmark_writes_results_and_a_table(root, tmp_path, capsys):
    output, table = tmp_path / "results.json", tmp_path / "table.md"
    options = ["--seeds", "0", "--epochs", "1", "--device", "cpu", "--defects"]
    options += ["--patch-size", "4", "8", "--image-size", "16"]
    files = ["--output", str(output), "--table", str(table)]
    assert main(["benchmark", str(root), *options, *files]) == 0
    said = capsys.readouterr()
    assert table.read_text(encoding="utf-8") in said.out
    assert "| part | " in said.out
    assert "| part | dot | 1 | " in said.out
    assert "at most target_fpr = 0.05" in said.out
    assert "no pixel metrics: 1 defective image(s) have no mask" in said.err
    (result,) = json.loads(output.read_text())
    assert result["parameters"] == {
        "patch_size": [4, 8],
        "image_size": 16,
        "epochs": 1,
        "device": "cpu",
    }


def test_benchmark_ends_with_1_where_a_run_failed(root, tmp_path, capsys, monkeypatch):
    failed = {"error": "ValueError: no", "notes": []}
    monkeypatch.setattr(_benchmark, "_run_in_a_process", lambda *args: dict(failed))
    output = tmp_path / "results.json"
    assert main(["benchmark", str(root), "--output", str(output)]) == 1
    assert "skad: 3 of 3 runs failed" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--output", "--table", "--models"])
def test_benchmark_looks_at_its_places_before_it_runs(
    root, tmp_path, monkeypatch, capsys, option
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_benchmark, "_run_in_a_process", None)
    (tmp_path / "file").touch()
    assert main(["benchmark", str(root), option, "file/part"]) == 2
    assert "name a file in a folder that you may write to" in capsys.readouterr().err


# --- Errors -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fit", "absent", "--model", "m"], "no such image file or folder: absent"),
        (["fit", ".", "--model", "m"], "no image in the folder ."),
        (["score", "absent", "."], "absent"),
        (["benchmark", "absent"], "no such folder: absent"),
        (["benchmark", ".", "--output", "a", "--table", "a"], "a is one of the files"),
        (["benchmark", "."], "no category in the folder ."),
    ],
)
def test_an_error_is_one_line_and_ends_with_2(
    arguments, words, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.err.startswith("skad: error: ")
    assert words in said.err
    assert said.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "rule"),
    [
        ("--epochs 0", "must be a whole number of at least 1; got 0"),
        ("--patch-size 8 x", "must be a whole number of at least 2; got x"),
        ("--image-size 8 9 10", "takes N, or HEIGHT WIDTH; got 3 numbers"),
        ("--target-fpr 5", "must be a number above 0 and below 1, 0.05 for 5 %; got 5"),
        ("--contamination x", "must be auto or a number above 0 and up to 0.5; got x"),
    ],
)
def test_a_wrong_value_of_an_option_is_told_before_anything_is_read(
    option, rule, capsys
):
    with pytest.raises(SystemExit, match="2"):
        main(["fit", "absent", "--model", "a", *option.split()])
    assert f"argument {option.split()[0]}: {rule}\n" in capsys.readouterr().err


def test_errors_of_the_package_name_options(good, tmp_path, capsys):
    write(tmp_path / "a.png", noise(0))
    write(tmp_path / "b.png", np.stack([noise(0, (30, 20))] * 3, axis=-1))
    model = str(tmp_path / "m")
    assert main(["fit", str(tmp_path), "--model", model]) == 2
    remedies = "pass --image-size 24 24 to resize them, pass --gray to read all as gray"
    assert remedies in capsys.readouterr().err
    assert main(["fit", str(good), "--model", model, "--device", "abacus"]) == 2
    assert '--device must be "auto", "cpu", ' in capsys.readouterr().err


@pytest.mark.parametrize("kind", [RuntimeError, MemoryError])
def test_no_memory_is_an_error_of_one_line(kind, monkeypatch, capsys):
    def allocate(args):
        raise kind("not enough memory:\n  you tried to allocate 9 bytes")

    monkeypatch.setattr(_command_demo, "run", allocate)
    assert main(["demo"]) == 2
    said = "skad: error: not enough memory: you tried to allocate 9 bytes\n"
    assert capsys.readouterr().err == said


def test_debug_shows_where_an_error_comes_from():
    with pytest.raises(FileNotFoundError):
        main(["benchmark", "absent", "--debug"])


def test_a_stop_from_the_keyboard_ends_with_130(monkeypatch, capsys):
    def stop(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(_command_demo, "run", stop)
    assert main(["demo"]) == 130
    assert capsys.readouterr().err == "skad: stopped\n"


@pytest.mark.skipif(sys.platform != "linux", reason="names are any bytes on Linux")
def test_any_file_name_can_be_printed(model, good, tmp_path, monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "utf-8", "strict"))
    out = tmp_path / os.fsdecode(b"\xff")
    options = ["--output", str(out), "--no-heat-maps"]
    assert main(["score", str(model), str(good / "0.png"), *options]) == 0
    sys.stdout.flush()
    assert rb"\udcff/scores.csv" in written.getvalue()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no such device")
@pytest.mark.parametrize("where", ["/dev/full", None])
def test_a_training_survives_its_progress_bar(good, tmp_path, where):
    model = tmp_path / "a.safetensors"
    command = [sys.executable, "-m", "skad", "fit", str(good), "--model", str(model)]
    shell = 'exec 2>&-; exec "$@"' if where is None else f'exec "$@" 2>{where}'
    done = subprocess.run(["sh", "-c", shell, "sh", *command, *QUICK], check=False)
    assert done.returncode == 0
    assert model.exists()


STOP_WHILE_WRITING = """
import os, signal, sys
from skad.cli import main as __main__
from skad.cli import command_demo as _command_demo
from skad.common import files as _files

def write(args):
    os.fsync = lambda number: signal.raise_signal(signal.SIGTERM)
    _files.write_atomically(args.output / "a", "text")

_command_demo.run = write
__main__.main(["demo", "--output", sys.argv[1]])
"""


def test_a_termination_ends_with_143_and_leaves_nothing_half_written(tmp_path):
    command = [sys.executable, "-c", STOP_WHILE_WRITING, str(tmp_path)]
    assert subprocess.run(command, check=False).returncode == 143
    assert list(tmp_path.iterdir()) == []


def test_signals_and_output_are_left_as_found(model, good, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "utf-8"))
    handler = signal.getsignal(signal.SIGTERM)
    options = ["--output", str(tmp_path), "--no-heat-maps"]
    assert main(["score", str(model), str(good / "0.png"), *options]) == 0
    assert signal.getsignal(signal.SIGTERM) is handler
    assert sys.stdout.errors == "strict"


def test_a_warning_is_one_line_and_warnings_are_left_as_found(monkeypatch, capsys):
    before = warnings.showwarning

    def warn(args):
        warnings.simplefilter("default")
        warnings.warn("first\n  second", UserWarning, stacklevel=1)
        return 0

    monkeypatch.setattr(_command_demo, "run", warn)
    assert main(["demo"]) == 0
    assert capsys.readouterr().err == "skad: warning: first second\n"
    assert warnings.showwarning is before
