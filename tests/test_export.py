"""Exported graphs: they say what their detectors say, and broken ones are refused."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from old_models import write_model
from optional import optional
from own_encoders import Pyramid, own_encoder
from PIL import Image
from sklearn.exceptions import NotFittedError
from torch.nn.functional import avg_pool2d

import skad
from skad import DenseAutoencoderDetector, PatchAutoencoderDetector
from skad.cli.main import main
from skad.export import onnx_file
from skad.export.graph import tail_polynomial, to_onnx
from skad.export.parity import LIMIT, certify, parity_in_words
from skad.images.inputs import as_images
from skad.images.resizing import resize
from skad.runtime import Inspector
from skad.runtime.metadata import digest_of
from skad.scoring.anomaly_map import Mapper
from skad.scoring.tiles import in_tiles

ROOT = Path(__file__).parents[1]

onnx = optional("onnx")
onnxruntime = optional("onnxruntime")
optional("onnxscript")


def draw(n, shape, dtype=np.uint8, seed=0):
    """Smooth images with noise; the last one has a bright square."""
    rng = np.random.default_rng(seed)
    rows, cols, *_ = np.indices(shape)
    images = 0.4 + 0.1 * np.sin(rows / 5 + cols / 7) + rng.normal(0, 0.03, (n, *shape))
    images[-1, 8:16, 8:16] += 0.4
    if np.dtype(dtype).kind == "f":
        return (30 * images - 7).astype(dtype)
    return np.rint(images.clip(0, 1) * np.iinfo(dtype).max).astype(dtype)


def fit(X, **parameters):
    defaults = {"epochs": 1, "target_fpr": 0.3, "random_state": 0, "device": "cpu"}
    detector = PatchAutoencoderDetector(8, **defaults | parameters)
    return detector.fit(X[:-1], groups=range(len(X) - 1))  # they look nearly the same


def session_of(path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        path, options, providers=["CPUExecutionProvider"]
    )


def without_metadata(path):
    model = onnx.load(path)
    del model.metadata_props[:]
    return model


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("exported")


@pytest.fixture(scope="session")
def gray(folder):
    """By the command, with images; resized inside, padded, with a roi."""
    X, roi = draw(14, (40, 60)), np.zeros((40, 60), bool)
    roi[4:, 6:54] = True
    detector = fit(X, image_size=(26, 36), roi=roi)
    skad.save(detector, folder / "gray.safetensors")
    for i, image in enumerate(X):
        (folder / "images").mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / "images" / f"{i}.png")
    path = folder / "gray.onnx"
    model, images = str(folder / "gray.safetensors"), str(folder / "images")
    assert main(["export", model, "-o", str(path), "--images", images]) == 0
    return detector, path, X


@pytest.fixture(scope="session")
def deep(folder):
    """Five channels of 16 bits."""
    X = draw(14, (32, 32, 5), np.uint16)
    detector = fit(X)
    skad.export_onnx(detector, folder / "deep.onnx", dtype="uint16")
    return detector, folder / "deep.onnx", X


@pytest.fixture(scope="session")
def several(folder):
    """A network and an encoder; images of several sizes."""
    size = (32, 48)
    X = [*draw(7, (40, 50, 3), seed=1), *draw(8, (32, 48, 3))]
    detector = fit(X, image_size=size, encoder=own_encoder())
    skad.export_onnx(detector, folder / "several.onnx")
    return detector, folder / "several.onnx", np.stack([resize(x, size) for x in X])


@pytest.fixture(scope="session")
def untrained(folder):
    """An encoder alone, on floats, compared on given images."""
    X = draw(14, (32, 32), np.float32)
    detector = fit(X, epochs=0, encoder=own_encoder(), calibration="cross")
    skad.export_onnx(detector, folder / "untrained.onnx", images=X[-3:])
    return detector, folder / "untrained.onnx", X


@pytest.fixture(scope="session")
def dense(folder):
    """The old script's network; images are resized for it."""
    optional("h5py")
    X = draw(14, (20, 30))
    detector = DenseAutoencoderDetector(write_model(folder / "model"), target_fpr=0.3)
    detector.fit(X[:-1], groups=range(13))
    skad.export_onnx(detector, folder / "dense.onnx")
    return detector, folder / "dense.onnx", X


@pytest.fixture(params=["gray", "deep", "several", "untrained", "dense"])
def exported(request):
    return request.getfixturevalue(request.param)


# --- The graph ----------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 3])
def test_maps_and_peaks_are_those_of_the_detector(exported, n):
    detector, path, X = exported
    expected = np.stack(list(detector.anomaly_map(list(X[-n:]))))
    maps, peaks = session_of(path).run(None, {"images": X[-n:]})
    assert (maps.shape, maps.dtype) == (X[-n:].shape[:3], np.float32)
    assert (maps >= 0).all()
    scale = np.maximum(expected, detector.pixel_threshold_)
    assert (np.abs(maps - expected) <= LIMIT * scale).all()
    np.testing.assert_array_equal(peaks, maps.max((1, 2)))
    assert expected.max() > 0  # there is something to compare


def test_the_roi_is_in_the_graph(gray):
    detector, path, X = gray
    (before,), _ = session_of(path).run(None, {"images": X[:1]})
    outside = ~detector.fitted.mapper.roi
    assert not before[outside].any()
    changed = X[:1].copy()
    changed[:, outside] = 255
    (after,), _ = session_of(path).run(None, {"images": changed})
    np.testing.assert_array_equal(before, after)


def test_tiles_are_unrolled(monkeypatch):
    class Tiled(Mapper):
        def maps_of(self, batch):
            x = batch[..., 0].float()[:, None] / 255  # n, 1, H, W
            return in_tiles(lambda x, *_: avg_pool2d(x, 2)[:, 0], x, 2, 16)

    monkeypatch.setattr("skad.scoring.tiles.TILE", 32)
    X = draw(3, (80, 48))
    model = to_onnx(Tiled(), X.shape[1:], "uint8")
    maps, _ = session_of(model.SerializeToString()).run(None, {"images": X})
    means = X.reshape(3, 40, 2, 24, 2).mean((2, 4)) / 255
    np.testing.assert_allclose(maps, means, atol=1e-6)


def test_the_tail_of_the_normal_distribution_is_that_of_scipy():
    from scipy.special import log_ndtr

    z = np.concatenate([np.linspace(0, 40, 4001), np.logspace(2, 6, 41)])
    t = 2 / (2 + z)
    found = np.log(t) + np.polynomial.Polynomial(tail_polynomial())(t) - z**2 / 2
    np.testing.assert_allclose(found, log_ndtr(-z), rtol=1e-7)


# --- The file -----------------------------------------------------------------------


def test_metadata_are_what_the_detector_says(exported):
    detector, path, _ = exported
    metadata = Inspector(path).metadata
    assert metadata.threshold == detector.pixel_threshold_
    assert metadata.calibration_scores == tuple(detector.calibration_scores_)
    assert metadata.promised_fpr == (
        None if np.isnan(detector.promised_fpr_) else detector.promised_fpr_
    )
    assert metadata.is_cross == detector.is_cross_fitted_
    assert metadata.any_size == detector.fitted.format.any_size
    assert metadata.image_shape == detector.image_shape_in_
    assert metadata.provenance == detector.provenance_
    assert (metadata.roi is None) == (detector.fitted.mapper.roi is None)
    assert metadata.digest == digest_of(path.read_bytes())
    assert metadata.digest == digest_of(without_metadata(path).SerializeToString())
    (given,) = session_of(path).get_inputs()
    assert metadata.dtype in given.type.replace("(float)", "(float32)")
    assert not isinstance(given.shape[0], int)


def test_parity_is_what_was_measured(gray, deep, untrained):
    assert Inspector(gray[1]).metadata.parity["n_images"] == len(gray[2])
    assert Inspector(untrained[1]).metadata.parity["n_images"] == 3
    parity = Inspector(deep[1]).metadata.parity
    assert parity["n_images"] == 8
    assert "noise" in parity["images"]
    assert 0 < parity["map_difference"] <= parity["limit"] == LIMIT
    assert parity["n_other_verdicts"] == 0


def test_no_line_of_code_and_no_path_is_in_the_file(deep):
    content = deep[1].read_bytes()
    assert b"skad/" not in content
    assert b"/home" not in content


def test_a_threshold_needs_no_new_graph(deep, folder, monkeypatch):
    """Only metadata differ."""
    detector, path, X = deep
    monkeypatch.setattr(onnx_file, "to_onnx", lambda *_: without_metadata(path))
    other = skad.PatchAutoencoderDetector(8).set_params(**detector.get_params())
    other.fitted = detector.fitted
    other.offset_ = -1.25
    changed = skad.export_onnx(other, folder / "other.onnx", images=X[:2])
    assert (changed.threshold, changed.digest) == (
        1.25,
        Inspector(path).metadata.digest,
    )
    assert changed.promised_fpr is None


def test_the_runtime_says_what_the_detector_says(exported):
    detector, path, X = exported
    found = Inspector(path, n_threads=1).inspect(X[-1])
    (expected,) = detector.inspect(list(X[-1:]))
    assert (found.verdict, found.p_value) == (expected.verdict, expected.p_value)
    assert [r.bbox for r in found.regions] == [r.bbox for r in expected.regions]
    assert found.score == pytest.approx(expected.score, rel=LIMIT)


def test_the_page_runs(gray, tmp_path, monkeypatch):
    """But for the export itself, which takes long."""
    detector, path, X = gray
    page = (ROOT / "docs/export.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(onnx_file, "to_onnx", lambda *_: without_metadata(path))
    skad.save(detector, "part.safetensors")
    names = {"frames": X}
    for snippet in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(snippet, names)
    expected = [result.is_anomaly for result in Inspector(path).inspect_batch(X)]
    assert names["anomalous"].tolist() == expected
    assert 0 < sum(expected) < len(X)


def test_the_example_in_cpp_runs(gray, tmp_path):
    """The command in its head, and its verdicts; PyPI and Debian 12 have no headers."""
    home = os.environ.get("ONNXRUNTIME_DIR")
    if home is None or shutil.which("g++") is None:
        pytest.skip("needs g++, and ONNXRUNTIME_DIR with include/ and lib/")
    detector, path, X = gray
    source = ROOT / "examples/cpp/inspect.cpp"
    shutil.copy(source, tmp_path)
    head = re.findall(r"^//     (.*)", source.read_text(encoding="utf-8"), re.MULTILINE)
    command = " ".join(head[:2])
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    for i, verdict in ((0, "good"), (-1, "anomalous")):
        Image.fromarray(X[i]).save(tmp_path / "frame.pgm")
        found = subprocess.run(
            [tmp_path / "inspect", path, "frame.pgm"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert found.returncode == (verdict == "anomalous"), found.stderr
        assert found.stdout.endswith(f"{verdict}\n")
        score = float(re.findall(r"score (\S+),", found.stdout)[0])
        assert score == pytest.approx(detector.score_samples(X[i][None])[0], rel=1e-4)


# --- Refusals -----------------------------------------------------------------------


def broken(path, factor):
    """The model of a file, with the kernels of its network a little off."""
    model = without_metadata(path)
    for kernel in (t for t in model.graph.initializer if len(t.dims) == 4):
        values = onnx.numpy_helper.to_array(kernel) * np.float32(factor)
        kernel.CopyFrom(onnx.numpy_helper.from_array(values, kernel.name))
    return model


def test_a_broken_graph_is_refused_and_nothing_is_written(gray, tmp_path, monkeypatch):
    detector, path, X = gray
    monkeypatch.setattr(onnx_file, "to_onnx", lambda *_: broken(path, 1.01))
    (tmp_path / "old.onnx").write_text("old")
    for images in (None, X):
        with pytest.raises(ValueError, match=r"does not agree .* not written"):
            skad.export_onnx(detector, tmp_path / "old.onnx", images=images)
    assert (tmp_path / "old.onnx").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_the_certificate_counts_verdicts_that_differ(gray, monkeypatch):
    """A threshold between both peaks; the limit lets the difference pass."""
    detector, path, X = gray
    mapper = detector.fitted.mapper
    model = broken(path, 1.001).SerializeToString()
    images = as_images(X[-1:], None, detector.fitted.format)
    (peak,) = session_of(model).run(["peak"], {"images": X[-1:]})[0]
    threshold = (peak + mapper(X[-1:, ..., None]).max()) / 2
    monkeypatch.setattr("skad.export.parity.LIMIT", 1.0)
    found = certify(mapper, threshold, model, images, "one")
    assert found["n_other_verdicts"] == 1
    assert 0 < found["score_difference"] < 0.1
    assert "0 of 1 verdicts are equal, the rest nearer" in parity_in_words(found)


def test_a_network_that_torch_cannot_export_is_named(tmp_path):
    class Branching(Pyramid):
        def forward(self, x):
            return super().forward(x if x.mean() > 0 else -x)

    X = draw(14, (32, 32))
    encoder = skad.FrozenEncoder(Branching())
    detector = fit(X, epochs=0, encoder=encoder)
    with pytest.raises(ValueError, match=r"network of your FrozenEncoder .* branch"):
        skad.export_onnx(detector, tmp_path / "part.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("dtype", "images", "words"),
    [
        ("float32", None, "uint8 or uint16"),
        ("int8", None, "uint8 or uint16"),
        ("uint16", np.zeros((1, 40, 60), np.uint8), "images are uint8; got 'uint16'"),
        (None, np.zeros((1, 40, 61), np.uint8), "shape"),
    ],
)
def test_what_does_not_suit_the_detector_is_refused(
    gray, tmp_path, dtype, images, words
):
    with pytest.raises(ValueError, match=words):
        skad.export_onnx(gray[0], tmp_path / "a.onnx", dtype=dtype, images=images)


def test_images_of_too_many_tiles_are_refused(gray, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "TILE", 16)  # 2 x 3 of them
    with pytest.raises(ValueError, match=r"32 x 48 pixels are too large .* image_size"):
        skad.export_onnx(gray[0], tmp_path / "a.onnx")


def test_only_detectors_with_a_threshold_are_exported(tmp_path):
    with pytest.raises(TypeError, match="got dict"):
        skad.export_onnx({}, tmp_path / "a.onnx")
    with pytest.raises(NotFittedError):
        skad.export_onnx(PatchAutoencoderDetector(), tmp_path / "a.onnx")


def test_a_missing_package_is_named(gray, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r'pip install "skad\[onnx\]"'):
        skad.export_onnx(gray[0], tmp_path / "a.onnx")
