"""Exported detectors without torch: verdicts of the graph; bad input is refused."""

import csv
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from image_files import ORIENTATION, noise, save
from onnx_models import METADATA, SCORES, map_of, model_of
from optional import optional
from PIL import Image

import skad
from skad import ImageFolder
from skad.detectors.files import inspect_files
from skad.images.resizing import max_pool
from skad.inspection.score_files import score_files
from skad.inspection.verdict import in_frames, judge
from skad.runtime import Inspector
from skad.runtime.__main__ import main
from skad.runtime.metadata import digest_of
from skad.threshold.conformal import conformal_threshold
from skad.threshold.robust import robust_threshold

onnx, onnxruntime = optional("onnx"), optional("onnxruntime")
SIZE = (32, 48)
WITHOUT = {"torch", "sklearn", "skimage", "scipy", "joblib", "safetensors", "tqdm"}
WITHOUT |= {"filelock", "onnx"}


@pytest.fixture
def exported(tmp_path):
    """Return what writes a file whose metadata have some fields."""

    def write(**fields):
        path = tmp_path / "part.onnx"
        path.write_bytes(model_of(**fields).SerializeToString())
        return path

    return write


def spotted(*shape, dtype=np.uint8):
    """Return a good image with an anomalous spot."""
    image = np.full(shape, 110, dtype)
    image[8:12, 20:30] = 150
    return image


def same(result, expected):
    assert result.anomaly_map.dtype == np.float32
    np.testing.assert_array_equal(result.anomaly_map, expected.anomaly_map)
    for name in ("score", "decision", "p_value", "verdict", "regions"):
        assert getattr(result, name) == getattr(expected, name), name


# --- Arrays -----------------------------------------------------------------------


@pytest.mark.parametrize("shape", [SIZE, (*SIZE, 1), (*SIZE, 3)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_results_are_those_of_the_graph(exported, shape, dtype):
    inspector = Inspector(exported(image_shape=shape, dtype=dtype), n_threads=1)
    images = [spotted(*shape, dtype=dtype), np.full(shape, 110, dtype)]
    results = inspector.inspect_batch(images)
    for image, result in zip(images, results, strict=True):
        same(result, judge(map_of(image), -2.5, SCORES))
        same(inspector.inspect(image), result)
    bad, good = results
    assert (bad.verdict, bad.score, bad.p_value) == ("anomalous", -5, 1 / 20)
    assert [region.bbox for region in bad.regions] == [(8, 20, 12, 30)]
    assert (good.verdict, good.regions, good.p_value) == ("good", [], 1)
    swapped = images[0].astype(np.dtype(dtype).newbyteorder(">"))
    same(inspector.inspect(np.asfortranarray(swapped)), bad)
    assert inspector.metadata.image_shape == shape


@pytest.mark.parametrize("frame", [(70, 60), (20, 30, 1), SIZE])
def test_frames_of_any_size_give_maps_and_regions_in_their_pixels(exported, frame):
    image = spotted(*frame)
    result = Inspector(exported(any_size=True)).inspect(image)
    amap = map_of(skad.resize_image(image.reshape(frame[:2]), SIZE))
    same(result, judge(max_pool(amap, frame[:2]), -2.5, SCORES))
    assert result.score == -amap.max()
    assert result.anomaly_map.shape == frame[:2]


def test_threads_share_an_inspector(exported):
    inspector = Inspector(exported())
    images = [np.full(SIZE, 100 + i, np.uint8) for i in range(60)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(inspector.inspect, images))
    for image, result in zip(images, results, strict=True):
        same(result, inspector.inspect(image))


@pytest.mark.parametrize(
    ("fields", "image", "words"),
    [
        ({}, np.zeros(SIZE), r"\(32, 48\) and dtype uint8.*got shape.*of float64"),
        ({}, np.zeros(SIZE, np.uint16), "dtype uint8.* of uint16"),
        ({}, np.zeros((48, 32), np.uint8), r"got shape \(48, 32\)"),
        ({}, np.zeros((*SIZE, 3), np.uint8), r"got shape \(32, 48, 3\)"),
        ({}, np.zeros((1, *SIZE), np.uint8), r"got shape \(1, 32, 48\)"),
        ({"any_size": True}, np.zeros((9, 9, 3), np.uint8), "any height, any width"),
        ({"any_size": True}, np.zeros((0, 9), np.uint8), r"got shape \(0, 9\)"),
        ({"any_size": True}, np.zeros(9, np.uint8), r"got shape \(9,\)"),
        ({"dtype": "float32"}, np.full(SIZE, np.nan), "finite numbers .* got NaN"),
        ({"dtype": "float32"}, np.full(SIZE, -1e99), "finite numbers .* above 3e38"),
        ({"dtype": "float32"}, np.zeros(SIZE, np.uint8), "dtype float32.* of uint8"),
        ({"scale": 0}, np.zeros(SIZE, np.uint8), "map is not finite"),
        ({}, np.ma.masked_less(np.zeros(SIZE, np.uint8), 1), "must have no mask"),
    ],
)
def test_an_image_that_is_none_of_the_detector_is_refused(
    exported, fields, image, words
):
    inspector = Inspector(exported(**fields))
    with pytest.raises(ValueError, match=words):
        inspector.inspect(image)
    with pytest.raises(ValueError, match=f"image 0: .*{words}"):
        inspector.inspect_batch([image])


# --- The threshold ----------------------------------------------------------------


def test_another_threshold_promises_nothing(exported):
    inspector = Inspector(exported(), threshold=5)
    assert inspector.inspect(spotted(*SIZE)).verdict == "good"
    assert np.isnan(inspector.promised_fpr)
    assert inspector.promise.startswith("none")
    for threshold in (float("nan"), "2"):
        with pytest.raises(ValueError, match="threshold must be a number; got"):
            Inspector(exported(), threshold=threshold)
    with pytest.raises(ValueError, match="n_threads must be an int"):
        Inspector(exported(), n_threads=0)


def test_another_rate_sets_the_threshold_that_it_promises(exported):
    inspector = Inspector(exported())
    assert (inspector.threshold, inspector.promised_fpr) == (2.5, 0.05)
    assert inspector.promise.startswith("at most 5 %")
    assert inspector.retarget(0.25) is inspector
    assert inspector.threshold == -conformal_threshold(SCORES, 0.25)
    assert inspector.promised_fpr == 0.25
    with pytest.warns(UserWarning, match="cannot be promised: 19 good images"):
        inspector.retarget(0.01)
    for rate in (0, 1, float("nan"), "0.1"):
        with pytest.raises(ValueError, match=r"target_fpr must lie in \(0, 1\); got"):
            inspector.retarget(rate)
    crossed = Inspector(exported(is_cross=True, promised_fpr=None)).retarget(0.01)
    assert np.isnan(crossed.promised_fpr)
    assert crossed.threshold == -robust_threshold(SCORES, 0.01)


# --- Files ------------------------------------------------------------------------


def write_parts(folder):
    """Write files of several sizes, colours and depths, and one that is no image."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    save(folder / "turned.png", spotted(64, 60), exif=exif)
    save(folder / "colour.jpg", spotted(40, 90, 3))
    save(folder / "inner" / "deep.png", noise(16, 40, dtype=np.uint16))
    save(folder / "good.png", np.full(SIZE, 110, np.uint8))
    (folder / "none.png").write_bytes(b"no image")
    return folder


@pytest.mark.parametrize("shape", [SIZE, (*SIZE, 3)])
@pytest.mark.parametrize("any_size", [False, True])
def test_files_are_read_as_the_training_images_were(
    exported, tmp_path, shape, any_size
):
    inspector = Inspector(exported(image_shape=shape, any_size=any_size))
    folder = write_parts(tmp_path / "parts")
    read = ImageFolder(folder / "turned.png", image_size=SIZE, gray=True)
    result = inspector.inspect_file(folder / "turned.png")
    plain = judge(map_of(read[0]), -2.5, SCORES)
    same(result, in_frames([plain], read.frame_sizes)[0])
    assert result.regions[0].bbox == (20, 52, 30, 56)  # upright: 60 x 64
    with pytest.raises(ValueError, match=r"dtype uint8.* of uint16"):
        inspector.inspect_file(folder / "inner/deep.png")
    with pytest.raises(ValueError, match=r"cannot read the image .*none\.png"):
        inspector.inspect_file(folder / "none.png")
    with pytest.raises(FileNotFoundError, match="no such image file"):
        inspector.inspect_file(folder / "missing.png")


class Detector:
    """Stand-in for the fitted detector that was exported."""

    image_shape_in_ = SIZE
    offset_ = -2.5

    def inspect(self, X):
        if X.dtype != np.uint8:
            raise ValueError("got other numbers")
        return [judge(map_of(one), self.offset_, SCORES) for one in X]


def test_the_command_writes_what_skad_score_writes(exported, tmp_path, capsys):
    folder, out = write_parts(tmp_path / "parts"), tmp_path / "out"
    arguments = ["score", str(exported()), str(folder), "--recursive", "--output"]
    assert main([*arguments, str(out)]) == 1
    said = capsys.readouterr()
    assert "1 good, 2 anomalous, 2 unreadable" in said.out
    assert "at most 5 % of good images are flagged" in said.out
    assert f"unreadable: {folder / 'none.png'}: cannot read" in said.err
    inspect = partial(inspect_files, Detector())
    score_files(inspect, 2.5, [folder], tmp_path / "by_skad", recursive=True)
    files = [path for path in (tmp_path / "by_skad").rglob("*") if path.is_file()]
    assert len(files) == 4
    for file in files:
        written = out / file.relative_to(tmp_path / "by_skad")
        assert written.read_bytes() == file.read_bytes()
    assert main([*arguments, str(out), "--target-fpr", "2"]) == 2
    assert "target_fpr must lie in (0, 1)" in capsys.readouterr().err
    options = ["--threshold", "1e9", "--no-heat-maps", "--n-threads", "1"]
    assert main([*arguments, str(out), *options]) == 1
    assert "promise        none" in capsys.readouterr().out
    with (out / "scores.csv").open() as file:
        verdicts = [row["verdict"] for row in csv.DictReader(file)]
    assert sorted(verdicts) == 3 * ["good"] + 2 * ["unreadable"]
    assert not (out / "heat_maps/good.png.png").exists()


def test_info_tells_what_the_file_is(exported, capsys):
    assert main(["info", str(exported())]) == 0
    said = capsys.readouterr().out
    for words in ("32 x 48, uint8", "n_images=60", "threshold      2.5", "at most 5 %"):
        assert words in said
    assert main(["info", str(Path(__file__).parent)]) == 2
    assert "skad: error" in capsys.readouterr().err


def test_what_the_page_shows_runs(exported, tmp_path, monkeypatch, capsys):
    page = Path(__file__).parents[1] / "docs/runtime.md"
    (snippet,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    exported()
    save(tmp_path / "new.png", spotted(64, 96))
    monkeypatch.chdir(tmp_path)
    exec(snippet, {})
    assert capsys.readouterr().out == "anomalous -4.5 [(8, 20, 12, 30)]\n"


# --- Without torch ----------------------------------------------------------------


def test_nothing_but_numpy_onnxruntime_and_pillow_is_imported(exported, tmp_path):
    save(tmp_path / "a.png", spotted(*SIZE))
    program = f"""
import sys
sys.modules.update(dict.fromkeys({WITHOUT}))
import skad.runtime.__main__ as runtime
code = runtime.main(sys.argv[1:])
print(code, sorted(n for n in {WITHOUT} if sys.modules[n] is not None))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, "score", exported(), tmp_path / "a.png"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(skad.__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines()[-1:] == ["0 []"], done.stderr
    assert "1 anomalous" in done.stdout
    assert (tmp_path / "skad-scores/heat_maps/a.png.png").exists()


def test_without_onnxruntime_the_error_tells_how_to_install_it(exported, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match="pip install onnxruntime"):
        Inspector(exported())


# --- Files that are none of skad --------------------------------------------------


def vouched(model, **fields):
    """Return a model as a file whose metadata have the digest of its graph."""
    del model.metadata_props[:]
    metadata = replace(METADATA, digest=digest_of(model.SerializeToString()), **fields)
    model.metadata_props.add(key="skad", value=metadata.to_json())
    return model.SerializeToString()


def bare(model):
    del model.metadata_props[:]
    return model.SerializeToString()


def newer(model):
    entry = model.metadata_props[0]
    entry.value = entry.value.replace('"format": 1', '"format": 2')
    return model.SerializeToString()


def damaged(model):
    model.graph.initializer[0].raw_data = b"\0\0\0\0"
    return model.SerializeToString()


def unknown(model):
    model.graph.node[1].op_type = "Guess"
    return vouched(model)


def test_a_graph_that_fails_is_reported(tmp_path):
    model, path = model_of(), tmp_path / "part.onnx"
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    path.write_bytes(vouched(model))
    with pytest.raises(RuntimeError, match="onnxruntime cannot run the graph"):
        Inspector(path).inspect(spotted(*SIZE))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda model: b"", "it has no metadata of skad"),
        (lambda model: b"\x89PNG\r\n\x1a\n" + bytes(90), "not an ONNX file, or ends"),
        (lambda model: model.SerializeToString()[:-100], "ends early"),
        (bare, "it has no metadata of skad"),
        (newer, "its format is 2, not 1: update skad"),
        (damaged, "its graph is damaged, or not the exported one"),
        (unknown, "onnxruntime .* refuses it: .*Guess"),
        (partial(vouched, image_shape=(48, 32)), "its graph is another than"),
        (partial(vouched, dtype="uint16"), "its graph is another than"),
    ],
)
def test_a_file_that_is_none_of_skad_is_refused(tmp_path, change, words):
    path = tmp_path / "part.onnx"
    path.write_bytes(change(model_of()))
    with pytest.raises(ValueError, match=rf"part\.onnx cannot be run: .*{words}"):
        Inspector(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.onnx"):
        Inspector(tmp_path / "missing.onnx")
