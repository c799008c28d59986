"""The old script's calls: what they promise, and that its known faults are gone."""

import inspect
import io
import os
import random
import runpy
import shutil
import sys
import threading
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import grey_dilation
from sklearn.exceptions import NotFittedError

mpl.use("Agg")

import matplotlib.pyplot as plt

from skad import AD, PatchAutoencoderDetector, read_image, save
from skad.legacy import Result
from skad.network.checkpoint import _MAGIC, Checkpoint
from skad.overlays.overlays import VERMILION

SIZE = (32, 32)
EXAMPLE = Path(__file__).parents[1] / "examples" / "old_script.py"


def good_image(i):
    """A tile with a soft pattern in one place, and noise; (32, 32) uint8."""
    rng = np.random.default_rng(i)
    rows, cols = np.mgrid[:32, :32] / 31
    pattern = 110 + 50 * np.sin(5 * rows) + 30 * cols
    return np.clip(pattern + rng.normal(0, 3, SIZE), 0, 255).astype(np.uint8)


def defective_image(i, level):
    image = good_image(i)
    image[8:16, 16:24] = level
    return image


def write(image, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


def new_model(folder, name="AD1", **options):
    options = {"img_size": SIZE, "patch_size": 8} | options
    return AD(name, folder / "Train", save_path=folder / "Models", **options)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with Train (80 good images), Test (7 images) and a trained model."""
    root = tmp_path_factory.mktemp("root")
    for i in range(80):
        write(good_image(i), root / "Train" / f"{i:02}.png")
    for i in range(4):
        write(good_image(100 + i), root / "Test" / f"good{i}.png")
    for i, level in enumerate((0, 255, 0)):
        write(defective_image(200 + i, level), root / "Test" / f"bad{i}.png")
    new_model(root).train(25)
    return root


@pytest.fixture
def ad(root):
    return AD(root / "Models" / "model")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Run in an empty folder, where the default folders would be made."""
    monkeypatch.chdir(tmp_path)
    yield
    plt.close("all")


def read_pictures(folder):
    return {path.name: np.array(Image.open(path)) for path in folder.iterdir()}


# --- The contract ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "signature"),
    [
        (
            AD,
            "(model_name='AD1', train_path='Dataset/', gray_scale=True, "
            "save_path='Models/', img_size=(200, 200), patch_size=40)",
        ),
        (AD.load_data, "(self, path=None)"),
        (AD.train, "(self, epochs=75)"),
        (AD.test_img, "(self, path_to_img)"),
        (
            AD.predict,
            "(self, path, save_path='Output/', show=False, save=True, patch_size=0, "
            "thresh=0.8, hardcore=False)",
        ),
    ],
)
def test_signatures_are_the_old_ones(call, signature):
    found = inspect.signature(call)
    bare = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in found.parameters.values()
    ]
    assert str(inspect.Signature(bare)) == signature


# --- Names, and what they stand for ---------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "img_size", "gray_scale"),
    [
        ("AD0", {}, (200, 200), False),
        ("AD1", {}, (200, 200), True),
        ("AD2", {}, (256, 256), True),
        ("AD0", {"gray_scale": True}, (200, 200), False),
        ("AD1", {"gray_scale": False}, (200, 200), False),
        ("AD2", {"gray_scale": False}, (256, 256), False),
        ("AD2", {"img_size": (200, 200)}, (256, 256), True),
        ("AD2", {"img_size": (48, 64)}, (48, 64), True),
        ("AD0", {"img_size": [100, 50]}, (100, 50), False),
    ],
)
def test_names_fix_what_is_left_at_its_default(name, options, img_size, gray_scale):
    ad = AD(name, **options)
    assert (ad.img_size, ad.gray_scale, ad.patch_size) == (img_size, gray_scale, 40)


def test_the_patch_size_goes_to_the_detector():
    assert AD("AD1", patch_size=(8, 40)).detector.patch_size == (8, 40)


@pytest.mark.parametrize("name", ["AD7", "bottle_v1.2"])
def test_another_name_warns_and_is_ad1(name):
    with pytest.warns(UserWarning, match=f"Unknown model name '{name}'.*using AD1"):
        ad = AD(name)
    assert (ad.img_size, ad.gray_scale) == ((200, 200), True)


@pytest.mark.parametrize("name", ["Models/model", "model.safetensors", "Models\\model"])
def test_a_missing_path_is_an_error_that_names_what_was_looked_for(name):
    with pytest.raises(FileNotFoundError, match="No stored model") as caught:
        AD(name)
    assert f"looked for {name} and {name}.safetensors" in str(caught.value)


@pytest.mark.parametrize("name", ["Models/model", "Models/model.h5", "old"])
@pytest.mark.parametrize("suffix", [".h5", ".json"])
def test_half_a_model_of_the_old_script_is_named_as_such(tmp_path, name, suffix):
    (tmp_path / "Models").mkdir()
    path = tmp_path / name
    path = path if path.suffix else path.with_suffix(suffix)
    path.write_bytes(b"not read")
    with pytest.raises(ValueError, match=r"two files of one name; .* Copy that, too"):
        AD(name)


@pytest.mark.parametrize(
    ("option", "value", "rule"),
    [
        ("gray_scale", "no", "True or False"),
        ("img_size", (200,), "height, width"),
        ("img_size", 200, "height, width"),
        ("img_size", (200, 0), "whole pixels"),
        ("img_size", (200.0, 200), "whole pixels"),
        ("img_size", "ab", "height, width"),
        ("patch_size", 0, "each from 2 to"),
        ("patch_size", "x", "int or a tuple"),
        ("patch_size", (8, 2.5), "int or a tuple"),
        ("patch_size", None, "int or a tuple"),
        ("save_path", None, "a path"),
    ],
)
def test_wrong_parameters(option, value, rule):
    with pytest.raises(ValueError, match=f"{option} must be .*{rule}") as caught:
        AD("AD1", **{option: value})
    assert f"got {value!r}" in str(caught.value)


# --- load_data ------------------------------------------------------------------


def test_all_four_kinds_in_any_case_are_read_in_order(tmp_path, capsys):
    names = ["d.JPEG", "b.png", "a.Bmp", "c.jpg", "10.PNG"]
    for level, name in enumerate(sorted(names)):
        write(np.full((40, 50), 10 * level, np.uint8), tmp_path / "data" / name)
    write(good_image(0), tmp_path / "data" / "deeper" / "not_read.png")
    write(good_image(0), tmp_path / "data" / "not_read.tif")
    (tmp_path / "data" / "notes.txt").write_text("not read")
    ad = AD("AD1", img_size=(16, 24))
    with pytest.warns(UserWarning) as caught:
        ad.load_data("data/")
    named = [str(warning.message) for warning in caught]
    assert "not taken: notes.txt" in named[0]
    assert "left out 1 image file(s), " in named[1]
    assert "not_read.tif" in named[1]
    assert ad.images.shape == (5, 16, 24)
    assert ad.images.dtype == np.uint8
    np.testing.assert_array_equal(ad.images[:, 0, 0], [0, 10, 20, 30, 40])
    assert capsys.readouterr().out == "Loaded 5 images from data/\n"


def test_colour_models_read_gray_files_as_colour(tmp_path):
    colour = np.stack([good_image(i) for i in range(3)], axis=2)
    write(colour, tmp_path / "data" / "a.png")
    write(good_image(3), tmp_path / "data" / "b.png")
    ad = AD("AD0", img_size=SIZE)
    ad.load_data("data")
    np.testing.assert_array_equal(ad.images[0], colour)
    for channel in range(3):
        np.testing.assert_array_equal(ad.images[1, :, :, channel], good_image(3))


def test_16_bits_stay_16_bits(tmp_path):
    deep = np.zeros(SIZE, np.uint16)
    deep[0, :3] = [256, 385, 65535]
    write(good_image(1), tmp_path / "data" / "a.png")
    write(deep, tmp_path / "data" / "b.png")
    write(good_image(2), tmp_path / "data" / "c.png")
    ad = AD("AD1", img_size=SIZE)
    ad.load_data("data")
    expected = [257 * good_image(1).astype(int), deep, 257 * good_image(2).astype(int)]
    np.testing.assert_array_equal(ad.images, expected)


def test_files_of_16_bits_are_judged_as_those_of_8(root, ad, tmp_path):
    """Also where a folder holds both."""
    for i in range(3):
        image = np.array(Image.open(root / "Test" / f"bad{i}.png"))
        write(image.astype(np.uint16) * 257, tmp_path / "in" / f"{i}.png")
        write(image, tmp_path / "in" / f"{i}_8.png")
    found = ad.predict(tmp_path / "in")
    for deep, plain in zip(found[::2], found[1::2], strict=True):
        assert deep.is_anomaly
        np.testing.assert_allclose(deep.score, plain.score, rtol=1e-4)


def test_cameras_of_12_bits_are_seen_in_full(tmp_path):
    """Pictures are as bright as those of the same in 8 bits, whatever is in them."""
    for i in range(70):
        write(good_image(i).astype(np.uint16) * 16, tmp_path / "Train" / f"{i}.png")
    ad = new_model(tmp_path)
    ad.train(1)
    for i, share in enumerate((1.0, 0.3)):
        image = (share * good_image(50 + i)).astype(np.uint8)
        write(image.astype(np.uint16) * 16, tmp_path / "in" / f"{i}.png")
    ad.predict(tmp_path / "in", save_path="pictures", thresh=1e6)
    pictures = read_pictures(tmp_path / "pictures")
    for i, share in enumerate((1.0, 0.3)):
        expected = share * good_image(50 + i).mean()
        assert abs(pictures[f"{i}.png"].mean() - expected) < 2


def test_what_is_no_image_is_named_and_left_out(tmp_path, capsys):
    write(good_image(1), tmp_path / "data" / "a.png")
    (tmp_path / "data" / "b.jpg").write_text("no image at all")
    write(good_image(2), tmp_path / "data" / "c.png")
    ad = AD("AD1", img_size=SIZE)
    with pytest.warns(UserWarning, match=r"left out.*b\.jpg") as caught:
        ad.load_data("data")
    assert caught[0].filename == __file__
    np.testing.assert_array_equal(ad.images, [good_image(1), good_image(2)])
    assert "Loaded 2 images" in capsys.readouterr().out


def test_floating_point_numbers_are_no_pixels(tmp_path):
    path = write(np.zeros(SIZE, np.float32), tmp_path / "data" / "a.tif")
    path.rename(tmp_path / "data" / "a.png")
    with pytest.raises(ValueError, match=r"a\.png holds floating-point numbers"):
        AD().load_data("data")


def test_no_image_at_all_is_an_error(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no image.*empty"):
        AD().load_data("empty")
    write(good_image(0), tmp_path / "tiff" / "a.tif")
    with pytest.raises(ValueError, match=r"No image in tiff: looked for \*\.jpg"):
        AD().load_data("tiff")
    write(good_image(0), tmp_path / "bad" / "a.png").write_text("no image")
    with pytest.raises(ValueError, match=r"a\.png"):
        AD().load_data("bad")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        AD().load_data("nowhere")


# --- train ----------------------------------------------------------------------


def test_an_absent_train_path_is_no_error_until_train():
    ad = AD("AD1", train_path="nowhere/")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        ad.train(1)


@pytest.mark.parametrize("epochs", [0, -1, 2.5, "75", True])
def test_wrong_epochs(root, epochs):
    with pytest.raises(ValueError, match="epochs must be an int of at least 1"):
        new_model(root).train(epochs)


def test_a_folder_that_cannot_be_written_to_is_found_out_before_training(
    root, tmp_path, monkeypatch
):
    (tmp_path / "taken").write_text("a file, not a folder")
    ad = AD("AD1", root / "Train", save_path="taken", img_size=SIZE)
    monkeypatch.setattr(type(ad.detector), "fit", lambda *_: pytest.fail("trained"))
    with pytest.raises(OSError, match="taken"):
        ad.train(1)


def test_the_stored_model_is_the_trained_one(root, tmp_path, capsys):
    ad = AD("AD1", root / "Train", True, "made/here/", SIZE, 8)
    ad.train(2)
    out = capsys.readouterr().out
    assert "Loaded 80 images" in out
    assert str(Path("made/here/model.safetensors")) in out
    assert os.listdir("made/here") == ["model.safetensors"]
    for name in ("made/here/model", Path("made/here/model.safetensors")):
        again = AD(name)
        assert (again.img_size, again.gray_scale, again.patch_size) == (SIZE, True, 8)
        assert again.predict(root / "Test") == ad.predict(root / "Test")


def test_what_a_stored_model_was_trained_with_holds(root):
    with pytest.warns(UserWarning, match=r"img_size=\(64, 64\) is ignored.*\(32, 32\)"):
        ad = AD(root / "Models" / "model", img_size=(64, 64))
    assert ad.img_size == SIZE
    with pytest.warns(UserWarning, match="patch_size=20 is ignored.*patch_size=8"):
        assert AD(root / "Models" / "model", patch_size=20).patch_size == 8
    with pytest.warns(UserWarning, match="gray_scale=False is ignored"):
        assert AD(root / "Models" / "model", gray_scale=False).gray_scale


@pytest.mark.parametrize(
    ("shape", "kind"),
    [((64,), "integer"), ((32, 32, 2), "integer"), ((32, 32), "float")],
)
def test_models_of_other_images_are_refused(tmp_path, monkeypatch, shape, kind):
    format = SimpleNamespace(kind=kind)
    stored = SimpleNamespace(image_shape_in_=shape, patch_size=8, _format=format)
    monkeypatch.setattr("skad.model_io.model_file.load", lambda path: stored)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ValueError, match=r"AD needs .* \(H, W\) or .*skad\.load"):
        AD("model")


def test_models_of_gray_images_with_an_axis_of_channels_will_do(tmp_path):
    images = np.stack([good_image(i) for i in range(12)])[..., np.newaxis]
    options = {"epochs": 1, "target_fpr": 0.3, "random_state": 0}
    detector = PatchAutoencoderDetector(8, **options).fit(images)
    save(detector, tmp_path / "model.safetensors")
    write(images[0, ..., 0], tmp_path / "parts" / "0.png")
    ad = AD(str(tmp_path / "model"))
    assert (ad.gray_scale, ad.img_size) == (True, SIZE)
    (result,) = ad.predict(tmp_path / "parts", save=False)
    assert result.score == pytest.approx(detector.score_samples(images[:1])[0])
    assert ad.test_img(tmp_path / "parts" / "0.png").shape == (32, 64)


def test_a_training_that_was_stopped_goes_on(root, tmp_path, monkeypatch, ad):
    monkeypatch.setattr("skad.network.checkpoint._SECONDS", 0.0)
    keep, calls = Checkpoint.keep, []

    def stop(self):
        keep(self)
        calls.append(self)
        if len(calls) == 3:
            raise KeyboardInterrupt

    stopped = new_model(root)
    stopped.save_path = tmp_path / "New"
    monkeypatch.setattr(Checkpoint, "keep", stop)
    with pytest.raises(KeyboardInterrupt):
        stopped.train(2)
    assert sorted(os.listdir(tmp_path / "New")) == [
        "model.safetensors.unfinished",
        "model.safetensors.unfinished.previous",
    ]
    steps = []
    monkeypatch.setattr(Checkpoint, "keep", lambda self: steps.append(keep(self)))
    again, whole = new_model(root), new_model(root)
    again.save_path, whole.save_path = tmp_path / "New", tmp_path / "Whole"
    again.train(2)
    n_left = len(steps)
    whole.train(2)
    assert n_left + 3 == len(steps) - n_left  # the three before the stop are not made
    scores = [m.detector.score_samples(whole.images) for m in (again, whole)]
    np.testing.assert_array_equal(*scores)
    assert os.listdir(tmp_path / "New") == ["model.safetensors"]


def test_an_unfinished_training_of_others_is_replaced(root, tmp_path):
    shutil.copytree(root / "Train", tmp_path / "Train")
    other = tmp_path / "Models" / "model.safetensors.unfinished"
    other.parent.mkdir()
    training = {"parameters": {"epochs": 7}, "digests": {}}
    state = io.BytesIO()
    torch.save({"training": training}, state)
    digest = sha256(state.getvalue()).digest()
    other.write_bytes(_MAGIC + digest + state.getvalue())
    ad = new_model(tmp_path)
    with pytest.warns(UserWarning, match="unfinished training with epochs=7.*is repl"):
        ad.train(1)
    assert os.listdir(other.parent) == ["model.safetensors"]


def test_callbacks_of_scikit_learn_are_told_of_the_end(root, tmp_path):
    callback = pytest.importorskip("sklearn.callback")
    ad = new_model(root)
    ad.save_path = tmp_path / "New"
    ad.detector.set_callbacks(callback.ProgressBar())
    before = {*threading.enumerate()}
    ad.train(1)
    left = [thread for thread in threading.enumerate() if thread not in before]
    assert all(thread.daemon for thread in left), left


def test_a_loaded_model_goes_on_training(root, ad):
    fresh = new_model(root)
    for model in (fresh, ad):
        model.save_path = "Models"
        model.load_data(root / "Train")
        model.train(1)
    assert ad.detector.history_[-1]["loss"] < fresh.detector.history_[-1]["loss"]


def test_colour_models_work_as_well(tmp_path):
    for i in range(70):
        image = np.stack([good_image(3 * i + c) for c in range(3)], axis=2)
        write(image, tmp_path / "Train" / f"{i:02}.png")
    ad = new_model(tmp_path, "AD0")
    ad.train(1)
    pair = ad.test_img("Train/00.png")
    assert (pair.shape, pair.dtype) == ((32, 64, 3), np.uint8)
    assert len(AD("Models/model").predict("Train")) == 70
    assert not AD("Models/model").gray_scale


# --- test_img -------------------------------------------------------------------


def test_the_image_is_left_and_its_reconstruction_right(root, ad):
    path = root / "Train" / "03.png"
    pair = ad.test_img(str(path))
    assert (pair.shape, pair.dtype) == ((32, 64), np.uint8)
    np.testing.assert_array_equal(pair[:, :32], good_image(3))
    rebuilt = ad.detector.reconstruct(good_image(3)[None])[0]
    np.testing.assert_array_equal(pair[:, 32:], rebuilt)


def test_pictures_are_shown_where_there_is_a_screen(root, ad, monkeypatch):
    shown = []
    monkeypatch.setattr(plt, "show", lambda **_: shown.append(plt.gcf().axes[0]))
    monkeypatch.setattr(plt, "get_backend", lambda: "Agg")
    ad.test_img(root / "Test" / "bad0.png")
    ad.predict(root / "Test", show=True)
    assert shown == []
    monkeypatch.setattr(plt, "get_backend", lambda: "TkAgg")
    pair = ad.test_img(root / "Test" / "bad0.png")
    np.testing.assert_array_equal(shown[0].images[0].get_array()[:, :, 0], pair)
    ad.predict(root / "Test", show=True, save=False)
    names = sorted(os.listdir(root / "Test"))
    assert [axes.get_title() for axes in shown] == ["bad0.png", *names]
    assert plt.get_fignums() == []


def test_without_matplotlib_nothing_is_shown(root, ad, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    assert ad.test_img(root / "Test" / "bad0.png").shape == (32, 64)


# --- predict: results -----------------------------------------------------------


def test_results_are_those_of_the_detector(root, ad):
    results = ad.predict(root / "Test")
    paths = sorted((root / "Test").iterdir())
    images = np.stack([read_image(path) for path in paths])
    assert all(isinstance(result, Result) for result in results)
    assert [result.path for result in results] == paths
    assert [r.score for r in results] == ad.detector.score_samples(images).tolist()
    flagged = ad.detector.predict(images) == -1
    assert [r.is_anomaly for r in results] == flagged.tolist()
    for result, regions in zip(
        results, ad.detector.anomaly_regions(images), strict=True
    ):
        assert [r.bbox for r in result.regions] == [r.bbox for r in regions]
        assert [r.peak for r in result.regions] == [r.peak for r in regions]
        assert bool(result.regions) == result.is_anomaly


def test_defects_of_any_lightness_are_found_where_they_are(root, ad):
    for result in ad.predict(root / "Test")[:3]:  # bad0 dark, bad1 bright, bad2 dark
        assert result.is_anomaly
        row, col = max(result.regions, key=lambda region: region.peak).centroid
        assert 6 <= row <= 18
        assert 14 <= col <= 26


def test_the_threshold_does_not_depend_on_the_other_images(root, ad):
    together = ad.predict(root / "Test")
    alone = [ad.predict(result.path)[0] for result in together]
    assert alone == together


def test_training_and_prediction_see_the_same_pixels(root, ad):
    ad.load_data(root / "Train")
    scores = [result.score for result in ad.predict(root / "Train")]
    assert scores == ad.detector.score_samples(ad.images).tolist()


@pytest.mark.parametrize("thresh", [0, 0.3, 0.8, 1.0, 2])
def test_thresh_moves_the_threshold_by_the_rule(root, ad, thresh):
    t, m = ad.detector.pixel_threshold_, ad.detector.mean_map_
    threshold = m + thresh / 0.8 * (t - m)
    for result in ad.predict(root / "Test", thresh=thresh):
        values = ad.detector.anomaly_map(read_image(result.path)[None])[0]
        over = values.astype(float) > threshold
        assert result.is_anomaly == over.any()
        assert sum(region.area for region in result.regions) == over.sum()


@pytest.mark.parametrize("thresh", [-0.1, np.nan, np.inf, "0.8", None])
def test_wrong_thresh(root, ad, thresh):
    with pytest.raises(ValueError, match="thresh must be at least 0"):
        ad.predict(root / "Test", thresh=thresh)


@pytest.mark.parametrize("patch_size", [-1, 2.5, "8", None])
def test_wrong_box_size(root, ad, patch_size):
    with pytest.raises(ValueError, match="patch_size must be an int of at least 0"):
        ad.predict(root / "Test", patch_size=patch_size)


def test_an_untrained_model_says_what_to_do(root):
    for call in (AD().predict, AD().test_img):
        with pytest.raises(
            NotFittedError, match="Not trained yet: call load_data and train"
        ):
            call(root / "Test" / "bad0.png")


# --- predict: pictures ----------------------------------------------------------


def test_heat_lies_exactly_on_what_deviates(root, ad):
    results = ad.predict(root / "Test", "Output/")
    pictures = read_pictures(Path("Output"))
    assert sorted(pictures) == [result.path.name for result in results]
    for result in results:
        image = read_image(result.path)
        values = ad.detector.anomaly_map(image[None])[0]
        changed = (pictures[result.path.name] != image[:, :, None]).any(axis=2)
        found = values > ad.detector.pixel_threshold_
        outline = grey_dilation(found, 3) & ~found
        np.testing.assert_array_equal(changed, found | outline)
        assert (pictures[result.path.name][outline] == VERMILION).all()


@pytest.mark.parametrize(("patch_size", "side"), [(0, 8), (10, 10), (100, 32)])
def test_hardcore_boxes_every_anomalous_patch(root, ad, patch_size, side):
    results = ad.predict(root / "Test", hardcore=True, patch_size=patch_size)
    pictures = read_pictures(Path("Output"))
    for result in results:
        image = read_image(result.path)
        values = ad.detector.anomaly_map(image[None])[0]
        expected = np.repeat(image[:, :, None], 3, axis=2)
        for row in range(0, 32, side):
            for col in range(0, 32, side):
                patch = np.s_[row : row + side, col : col + side]
                if values[patch].max() > ad.detector.pixel_threshold_:
                    inside = expected[patch][2:-2, 2:-2].copy()
                    expected[patch] = (255, 0, 0)
                    expected[patch][2:-2, 2:-2] = inside
        np.testing.assert_array_equal(pictures[result.path.name], expected)


@pytest.mark.parametrize(
    ("name", "kind"), [("a.jpg", "JPEG"), ("b.JPEG", "JPEG"), ("c.bmp", "BMP")]
)
def test_pictures_keep_name_and_kind(tmp_path, ad, name, kind):
    write(np.tile(defective_image(1, 0), (2, 3)), tmp_path / "in" / name)
    ad.predict("in", "out/deeper")
    assert os.listdir("out/deeper") == [name]
    with Image.open(Path("out/deeper") / name) as picture:
        assert (picture.format, picture.size, picture.mode) == (kind, (96, 64), "RGB")


@pytest.mark.parametrize("hardcore", [False, True])
def test_regions_and_pictures_are_in_pixels_of_the_file(tmp_path, ad, hardcore):
    pixels = np.kron(defective_image(1, 0), np.ones((5, 7), np.uint8))
    path = write(pixels, tmp_path / "a.png")
    (result,) = ad.predict(path, hardcore=hardcore)
    assert result.is_anomaly
    (seen,) = ad.detector.anomaly_regions(read_image(path, SIZE)[None])
    for region, other in zip(result.regions, seen, strict=True):
        assert region.bbox == tuple(np.multiply(other.bbox, (5, 7, 5, 7)))
        assert region.area == 35 * other.area
    picture = read_pictures(Path("Output"))["a.png"]
    assert picture.shape == (160, 224, 3)
    found = (picture != pixels[:, :, None]).any(axis=2)
    patch = (8 * 5, 8 * 7)
    boxes = np.array([region.bbox for region in result.regions])
    for axis, side in enumerate(patch):
        at = np.flatnonzero(found.any(axis=1 - axis))
        assert abs(at[0] - boxes[:, axis].min()) < side
        assert abs(at[-1] + 1 - boxes[:, axis + 2].max()) < side


@pytest.mark.skipif(os.sep == "\\", reason="a backslash separates folders here")
def test_a_backslash_in_a_name_separates_nothing(tmp_path, ad):
    write(good_image(0), tmp_path / "in" / "left\\right.png")
    ad.predict("in/left\\right.png")
    assert os.listdir("Output") == ["left\\right.png"]


def test_nothing_is_written_if_not_asked_for(root, ad, tmp_path):
    ad.predict(root / "Test", save=False)
    assert os.listdir(tmp_path) == []


def test_an_output_folder_that_cannot_be_is_found_out_before_scoring(
    root, ad, tmp_path, monkeypatch
):
    (tmp_path / "taken").write_text("a file, not a folder")
    monkeypatch.setattr(
        type(ad.detector), "anomaly_map", lambda *_: pytest.fail("scored")
    )
    with pytest.raises(OSError, match="taken"):
        ad.predict(root / "Test", "taken/")


def test_images_are_never_overwritten_by_pictures(tmp_path, ad):
    path = write(defective_image(1, 0), tmp_path / "in" / "a.png")
    for source in ("in", path):
        with pytest.raises(ValueError, match="save_path must not be the folder of"):
            ad.predict(source, "in/../in/")
    np.testing.assert_array_equal(read_image(path), defective_image(1, 0))


def test_images_behind_links_are_never_overwritten_by_pictures(tmp_path, ad):
    original = write(defective_image(1, 0), tmp_path / "kept" / "1.png")
    for folder, name in (("links", "1.png"), ("renamed", "other.png")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).symlink_to(original)
    write(good_image(0), tmp_path / "renamed" / "1.png")
    for source, output in (("links", "kept"), ("kept", "links"), ("renamed", "kept")):
        with pytest.raises(ValueError, match="they would be overwritten"):
            ad.predict(source, output)
    np.testing.assert_array_equal(read_image(original), defective_image(1, 0))
    assert (tmp_path / "links" / "1.png").is_symlink()
    ad.predict("links", "elsewhere")
    assert os.listdir("elsewhere") == ["1.png"]


def test_bad_files_of_a_folder_are_named_and_left_out(tmp_path, ad):
    for i in range(40):  # more than are scored at a time
        write(good_image(i), tmp_path / "in" / f"{i:02}.png")
    for name in ("07.png", "20.png"):
        (tmp_path / "in" / name).write_bytes(b"\x89PNG\r\n\x1a\ncut off")
    with pytest.warns(UserWarning, match="left out") as caught:
        results = ad.predict("in")
    assert len(results) == len(os.listdir("Output")) == 38
    assert len(caught) == 2
    assert "07.png" in str(caught[0].message)
    assert "20.png" in str(caught[1].message)


def test_a_bad_single_file_is_an_error(tmp_path, ad):
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(ValueError, match=r"a\.png"):
        ad.predict("a.png")
    with pytest.raises(FileNotFoundError, match=r"b\.png"):
        ad.predict("b.png")


# --- The same again -------------------------------------------------------------


def test_two_trainings_give_equal_scores_and_touch_no_global_generator(root):
    def state():
        legacy = np.random.get_state()[1].tolist()  # noqa: NPY002
        return random.getstate(), legacy, torch.get_rng_state().tolist()

    results, before = [], state()
    for folder in ("one", "two"):
        ad = AD("AD1", root / "Train", save_path=folder, img_size=SIZE, patch_size=8)
        ad.train(1)
        results.append(ad.predict(root / "Test"))
    assert results[0] == results[1]
    assert state() == before


@pytest.mark.filterwarnings("ignore:target_fpr=0.05 cannot be promised")
def test_the_example_runs(tmp_path, monkeypatch, capsys):
    for i in range(12):
        write(good_image(i), tmp_path / "Train" / f"{i}.jpg")
    write(defective_image(12, 0), tmp_path / "Test" / "0.jpg")
    write(good_image(13), tmp_path / "Test" / "1.jpg")
    monkeypatch.setattr(sys, "argv", ["old_script.py", ".", "--epochs", "1"])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert capsys.readouterr().out.count(", score ") == 2
    assert sorted(os.listdir("Output")) == ["0.jpg", "1.jpg", "hardcore"]
    assert os.listdir("Output/hardcore") == ["0.jpg"]
    assert AD("Models/model").img_size == (200, 200)
