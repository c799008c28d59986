"""The old script's calls: what they promise, and that its known faults are gone."""

import inspect
import os
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import grey_dilation
from sklearn.exceptions import NotFittedError

mpl.use("Agg")

import matplotlib.pyplot as plt

from skad import AD, PatchAutoencoderDetector, read_image, save
from skad.legacy import Result
from skad.overlays import RED, VERMILION

SIZE = (32, 32)
NAME = "efficientnet-lite0"


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


def new_model(folder, name="AD1", save_path="Models"):
    return AD(name, folder / "Train", save_path=save_path, img_size=SIZE, patch_size=8)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with Train (70 good images), Test (7 images) and a trained model."""
    root = tmp_path_factory.mktemp("root")
    for i in range(70):
        write(good_image(i), root / "Train" / f"{i:02}.png")
    for i in range(4):
        write(good_image(100 + i), root / "Test" / f"good{i}.png")
    for i, level in enumerate((0, 255, 0)):
        write(defective_image(200 + i, level), root / "Test" / f"bad{i}.png")
    new_model(root, save_path=root / "Models").train(10)
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


def read_pictures(folder="Output"):
    return {path.name: np.array(Image.open(path)) for path in Path(folder).iterdir()}


SIGNATURES = {
    AD: "(model_name='AD1', train_path='Dataset/', gray_scale=True, "
    "save_path='Models/', img_size=(200, 200), patch_size=40, *, encoder=None)",
    AD.load_data: "(self, path=None)",
    AD.train: "(self, epochs=75)",
    AD.test_img: "(self, path_to_img)",
    AD.predict: "(self, path, save_path='Output/', show=False, save=True, "
    "patch_size=0, thresh=0.8, hardcore=False)",
}


def test_signatures_are_the_old_ones():
    for call, signature in SIGNATURES.items():
        parameters = inspect.signature(call).parameters.values()
        bare = [p.replace(annotation=inspect.Parameter.empty) for p in parameters]
        assert str(inspect.Signature(bare)) == signature


# --- Names, and what they stand for ---------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "img_size", "gray_scale"),
    [
        ("AD0", {}, (200, 200), False),
        ("AD0", {"gray_scale": True, "img_size": [100, 50]}, (100, 50), False),
        ("AD2", {"gray_scale": False, "img_size": (48, 64)}, (48, 64), False),
    ],
)
def test_names_fix_what_is_left_at_its_default(name, options, img_size, gray_scale):
    ad = AD(name, **options)
    assert (ad.img_size, ad.gray_scale, ad.patch_size) == (img_size, gray_scale, 40)
    with pytest.warns(UserWarning, match=r"Unknown model name 'bottle_v1.2'.*AD1"):
        other = AD("bottle_v1.2", patch_size=(8, 40))
    assert (other.img_size, other.gray_scale) == ((200, 200), True)
    assert other.detector.patch_size == (8, 40)


def test_a_missing_path_is_an_error_that_names_what_was_looked_for():
    for name in ("Models/model", "model.safetensors", "Models\\model"):
        with pytest.raises(FileNotFoundError, match="No stored model") as caught:
            AD(name)
        assert f"looked for {name} and {name}.safetensors" in str(caught.value)


def test_wrong_options_are_named(root, ad):
    for option, value in (("gray_scale", 2), ("patch_size", "x"), ("encoder", "x")):
        with pytest.raises(ValueError, match=f"{option} must be .*got {value!r}"):
            AD("AD1", **{option: value})
    for option, value in (("thresh", -0.1), ("thresh", "0.8"), ("patch_size", 2.5)):
        with pytest.raises(ValueError, match=f"{option} must be .*; got {value!r}"):
            ad.predict(root / "Test", **{option: value})
    with pytest.raises(ValueError, match="epochs must be an int of at least 1"):
        ad.train(2.5)
    Path("taken").write_text("a file, not a folder")
    with pytest.raises(OSError, match="taken"):
        AD("AD1", "nowhere", save_path="taken").train(1)
    with pytest.raises(OSError, match="taken"):
        ad.predict(root / "Test", "taken/")


# --- load_data ------------------------------------------------------------------


def test_four_formats_in_any_case_are_read_in_order(tmp_path, capsys):
    names = ["10.PNG", "a.Bmp", "b.png", "c.jpg", "d.JPEG"]
    for level, name in enumerate(names):
        write(np.full((40, 50), 10 * level, np.uint8), tmp_path / "data" / name)
    write(good_image(0), tmp_path / "data" / "deeper" / "not_read.png")
    write(good_image(0), tmp_path / "data" / "not_read.tif")
    ad = AD("AD1", img_size=(16, 24))
    with pytest.warns(UserWarning, match=r"left out 1 image files in data/: AD reads"):
        ad.load_data("data/")
    assert (ad.images.shape, ad.images.dtype) == ((5, 16, 24), np.uint8)
    np.testing.assert_array_equal(ad.images[:, 0, 0], [0, 10, 20, 30, 40])
    assert capsys.readouterr().out == "Loaded 5 images from data/\n"


def test_gray_files_become_colour_and_16_bits_stay(tmp_path):
    colour = np.stack([good_image(i) for i in range(3)], axis=2)
    write(colour, tmp_path / "colour" / "a.png")
    write(good_image(3), tmp_path / "colour" / "b.png")
    ad = AD("AD0", img_size=SIZE)
    ad.load_data("colour")
    gray = np.stack([good_image(3)] * 3, axis=2)
    np.testing.assert_array_equal(ad.images, [colour, gray])
    deep = np.full(SIZE, 385, np.uint16)
    write(deep, tmp_path / "deep" / "a.png")
    ad = AD("AD1", img_size=SIZE)
    ad.load_data("deep")
    np.testing.assert_array_equal(ad.images, [deep])
    write(good_image(1), tmp_path / "deep" / "b.png")
    with pytest.raises(ValueError, match="convert the files to one bit depth"):
        ad.load_data("deep")


def test_what_is_no_image_is_named_and_left_out(tmp_path, ad):
    for i in range(20):  # more than are scored at a time
        write(good_image(i), tmp_path / "in" / f"{i:02}.png")
    (tmp_path / "in" / "07.png").write_bytes(b"\x89PNG\r\n\x1a\ncut off")
    with pytest.warns(UserWarning, match=r"(?s)left out.*07\.png") as caught:
        ad.load_data("in")
    assert caught[0].filename == __file__
    assert len(ad.images) == 19
    with pytest.warns(UserWarning, match=r"left out.*07\.png"):
        assert len(ad.predict("in")) == len(os.listdir("Output")) == 19
    for call in (ad.load_data, ad.predict):
        with pytest.raises(ValueError, match=r"07\.png"):
            call("in/07.png")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        AD("AD1", train_path="nowhere").train(1)


# --- train ----------------------------------------------------------------------


def test_a_loaded_model_goes_on_training_and_is_stored(root, capsys):
    ad = AD(root / "Models" / "model", root / "Train", save_path="made/here/")
    loss = ad.detector.history_[0]["loss"]
    ad.train(1)
    assert ad.detector.history_[-1]["loss"] < loss
    out = capsys.readouterr().out
    assert "Loaded 70 images" in out
    assert str(Path("made/here/model.safetensors")) in out
    assert os.listdir("made/here") == ["model.safetensors"]
    again = AD("made/here/model")
    assert (again.img_size, again.gray_scale, again.patch_size) == (SIZE, True, 8)
    results = ad.predict(root / "Test", save=False)
    assert AD(Path("made/here/model.safetensors")).predict(root / "Test") == results


def test_an_encoder_finds_defects_without_training(root):
    options = {"img_size": SIZE, "patch_size": 8, "encoder": NAME}
    AD("AD1", root / "Train", **options).train(0)
    assert list(Path("Models").iterdir()) == [Path("Models/model.safetensors")]
    ad = AD("Models/model", root / "Train")
    assert ad.encoder == NAME
    (result,) = ad.predict(root / "Test/bad0.png", save=False)
    assert result.is_anomaly
    with pytest.raises(ValueError, match=r"fitted with epochs=0.*autoencoder"):
        ad.test_img(root / "Test/bad0.png")
    ad.train(1)
    assert ad.test_img(root / "Test/bad0.png").shape == (32, 64)


@pytest.mark.filterwarnings("ignore:target_fpr=0.05 cannot be promised")
def test_a_model_in_colour_is_trained_and_used_as_those_in_gray(tmp_path):
    for i in range(6):
        image = np.stack([good_image(3 * i + c) for c in range(3)], axis=2)
        write(image, tmp_path / "Train" / f"{i}.png")
    unfinished = Path("Models/model.safetensors.unfinished")
    unfinished.parent.mkdir()
    unfinished.write_bytes(b"of another program")
    with pytest.raises(ValueError, match="unfinished is damaged, or no unfinished"):
        new_model(tmp_path, "AD0").train(1)
    unfinished.unlink()
    new_model(tmp_path, "AD0").train(1)
    assert os.listdir("Models") == ["model.safetensors"]
    ad = AD("Models/model")
    assert not ad.gray_scale
    pair = ad.test_img("Train/0.png")
    assert (pair.shape, pair.dtype) == ((32, 64, 3), np.uint8)
    assert len(ad.predict("Train")) == 6


def test_what_a_stored_model_was_trained_with_holds(root):
    path = root / "Models" / "model"
    for options, words in (
        ({"img_size": (64, 64)}, r"img_size=\(64, 64\) is ignored.*\(32, 32\)"),
        ({"patch_size": 20}, "patch_size=20 is ignored.*patch_size=8"),
        ({"gray_scale": False}, "gray_scale=False is ignored"),
        ({"encoder": NAME}, f"encoder={NAME} is ignored.*encoder=None"),
    ):
        with pytest.warns(UserWarning, match=words):
            ad = AD(path, **options)
        assert (ad.img_size, ad.patch_size, ad.gray_scale) == (SIZE, 8, True)


def test_an_untrained_model_says_what_to_do(root):
    for call in (AD().predict, AD().test_img):
        with pytest.raises(NotFittedError, match="Not trained yet: call load_data and"):
            call(root / "Test" / "bad0.png")


def test_models_of_one_channel_will_do_and_of_two_are_refused(tmp_path):
    images = np.stack([good_image(i) for i in range(6)])[..., np.newaxis]
    detector = PatchAutoencoderDetector(8, epochs=1, target_fpr=0.4).fit(images)
    save(detector, "one.safetensors")
    (result,) = AD("one").predict(write(images[0, ..., 0], tmp_path / "0.png"))
    assert result.score == pytest.approx(detector.score_samples(images[:1])[0])
    save(detector.fit(np.concatenate([images, images], axis=3)), "two.safetensors")
    with pytest.raises(ValueError, match=r"files are gray .*skad\.load"):
        AD("two")


# --- test_img and pictures on screen --------------------------------------------


def test_pictures_are_shown_where_there_is_a_screen(root, ad, monkeypatch):
    shown, path = [], root / "Test" / "bad0.png"
    monkeypatch.setattr(plt, "show", lambda **_: shown.append(plt.gcf().axes[0]))
    ad.test_img(path)
    ad.predict(root / "Test", show=True)
    assert shown == []
    monkeypatch.setattr(plt, "get_backend", lambda: "TkAgg")
    pair, image = ad.test_img(path), read_image(path)
    rebuilt = ad.detector.reconstruct(image[None])[0]
    np.testing.assert_array_equal(pair, np.hstack([image, rebuilt]))
    np.testing.assert_array_equal(shown[0].images[0].get_array()[:, :, 0], pair)
    ad.predict(root / "Test", show=True, save=False)
    names = sorted(os.listdir(root / "Test"))
    assert [axes.get_title() for axes in shown] == ["bad0.png", *names]
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    assert ad.test_img(path).shape == (32, 64)


# --- predict: results -----------------------------------------------------------


def test_results_are_those_of_the_detector(root, ad):
    results = ad.predict(root / "Test")
    paths = sorted((root / "Test").iterdir())
    images = np.stack([read_image(path) for path in paths])
    found = ad.detector.inspect(images)
    for result, path, one in zip(results, paths, found, strict=True):
        assert isinstance(result, Result)
        assert result[:3] == (path, one.is_anomaly, one.score)
        boxes, expected = ([r.bbox for r in x.regions] for x in (result, one))
        assert boxes == expected
        assert ad.predict(path)[0] == result  # whatever else is in the folder
    for result in results[:3]:  # bad0 dark, bad1 bright, bad2 dark
        row, col = result.regions[0].centroid
        assert 6 <= row <= 18 and 14 <= col <= 26


@pytest.mark.parametrize("thresh", [0.3, 2])
def test_thresh_moves_the_threshold_by_the_rule(root, ad, thresh):
    t, m = ad.detector.pixel_threshold_, ad.detector.mean_map_
    threshold = m + thresh / 0.8 * (t - m)
    for result in ad.predict(root / "Test", thresh=thresh, save=False):
        values = ad.detector.anomaly_map(read_image(result.path)[None])[0]
        over = values.astype(float) > threshold
        assert result.is_anomaly == over.any()
        assert sum(region.area for region in result.regions) == over.sum()
    assert ad.detector.pixel_threshold_ == t


# --- predict: pictures ----------------------------------------------------------


def test_heat_lies_exactly_on_what_deviates(root, ad):
    results = ad.predict(root / "Test")
    pictures = read_pictures()
    assert sorted(pictures) == [result.path.name for result in results]
    for result in results:
        image = read_image(result.path)
        values = ad.detector.anomaly_map(image[None])[0]
        changed = (pictures[result.path.name] != image[:, :, None]).any(axis=2)
        found = values > ad.detector.pixel_threshold_
        outline = grey_dilation(found, 3) & ~found
        np.testing.assert_array_equal(changed, found | outline)
        assert (pictures[result.path.name][outline] == VERMILION).all()


def test_hardcore_boxes_every_anomalous_patch(root, ad):
    ad.predict(root / "Test", hardcore=True, patch_size=10)
    for name, picture in read_pictures().items():
        image = read_image(root / "Test" / name)
        values = ad.detector.anomaly_map(image[None])[0]
        expected = np.repeat(image[:, :, None], 3, axis=2)
        for row, col in np.ndindex(4, 4):
            patch = np.s_[10 * row : 10 * row + 10, 10 * col : 10 * col + 10]
            if values[patch].max() > ad.detector.pixel_threshold_:
                inside = expected[patch][2:-2, 2:-2].copy()
                expected[patch] = RED
                expected[patch][2:-2, 2:-2] = inside
        np.testing.assert_array_equal(picture, expected)


def test_regions_and_pictures_are_in_pixels_of_the_file(tmp_path, ad):
    pixels = np.kron(defective_image(1, 0), np.ones((5, 7), np.uint8))
    path = write(pixels, tmp_path / "a.png")
    (result,) = ad.predict(path)
    (found,) = ad.detector.anomaly_regions(read_image(path, SIZE)[None])
    for region, other in zip(result.regions, found, strict=True):
        assert region.bbox == tuple(np.multiply(other.bbox, (5, 7, 5, 7)))
        assert region.area == 35 * other.area
    assert read_pictures()["a.png"].shape == (160, 224, 3)


def test_pictures_keep_name_and_format_and_bits_do_not_matter(tmp_path, ad):
    formats = {"a.jpg": "JPEG", "b.JPEG": "JPEG", "c.bmp": "BMP", "d\\e.png": "PNG"}
    image = np.tile(defective_image(1, 0), (2, 3))
    for name in formats:
        write(image, tmp_path / "in" / name)
    write(image.astype(np.uint16) * 257, tmp_path / "in" / "f.png")
    *_, plain, deep = ad.predict("in", "out/deeper")
    formats["f.png"] = "PNG"
    assert sorted(os.listdir("out/deeper")) == list(formats)
    for name, kind in formats.items():
        with Image.open(Path("out/deeper") / name) as picture:
            assert (picture.format, picture.size) == (kind, (96, 64))
            assert picture.mode == "RGB"
    np.testing.assert_allclose(deep.score, plain.score, rtol=1e-3)
    pictures = read_pictures("out/deeper")
    np.testing.assert_allclose(pictures["f.png"], pictures["d\\e.png"], atol=1)


def test_images_are_never_overwritten_by_pictures(tmp_path, ad):
    original = write(defective_image(1, 0), tmp_path / "kept" / "1.png")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "1.png").symlink_to(original)
    for source, output in ((original, "kept/../kept/"), ("links", "kept")):
        with pytest.raises(ValueError, match="they would be overwritten"):
            ad.predict(source, output)
    np.testing.assert_array_equal(read_image(original), defective_image(1, 0))
    ad.predict("kept", "never made", save=False)
    assert not Path("never made").exists()
