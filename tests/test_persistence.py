"""One file holds a detector whole, survives what goes wrong, and may be hostile."""

import copy
import json
import os
import pickle
import re
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load as arrays_of
from safetensors.numpy import save as to_bytes
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline

from skad import ImageFolder, PatchAutoencoderDetector, __version__, load, save
from skad.images import inputs as _inputs
from skad.model_io import model_file as _persistence
from skad.model_io.header import FORMAT_VERSION
from skad.model_io.model_file import checksum
from skad.network import model as _networks

N_IMAGES = 12
LOADS_QUICKLY = 5.0  # seconds; most of it is for slow machines


def draw(shape, dtype=np.uint8, n=N_IMAGES, seed=0):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(5.0, 2.0, (n, *shape)).astype(dtype)
    return rng.integers(80, 120, (n, *shape)).astype(dtype)


def half(shape):
    roi = np.zeros(shape, bool)
    roi[:, : shape[1] // 2] = True
    return roi


CASES = {
    "gray": ((16, 16), np.uint8, {}),
    "colour": ((16, 20, 3), np.uint8, {"patch_size": (4, 8)}),
    "resized": ((20, 28), np.uint8, {"image_size": (16, 24), "patch_size": [4, 9]}),
    "roi": ((20, 28), np.uint8, {"roi": half((20, 28)), "image_size": 16}),
    "uint16": ((16, 16), np.uint16, {"contamination": 0.2}),
    "int32": ((16, 16), np.int32, {"random_state": np.random.RandomState(0)}),
    "float32": ((16, 16, 1), np.float32, {"learning_rate": np.float64(0.01)}),
    "rows": ((192,), np.uint8, {"image_shape": (np.int64(16), np.int64(12))}),
    "coloured rows": ((192,), np.float64, {"image_shape": [8, 8, 3]}),
    "long rows": ((33,), np.float64, {}),
}


def fit(shape, dtype, parameters):
    settings = {"epochs": 1, "patch_size": 6, "target_fpr": 0.3, "random_state": 0}
    return PatchAutoencoderDetector(**(settings | parameters)).fit(draw(shape, dtype))


def global_numpy_state():
    return np.random.get_state(legacy=False)  # noqa: NPY002


SMALL = (8, 8, 8, 8)


@pytest.fixture(scope="module", autouse=True)
def small_network():
    """Small files, because hundreds of them are written here; gives the real size."""
    real = _networks._WIDTHS
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_networks, "_WIDTHS", SMALL)
        yield real


@pytest.fixture(scope="module", params=CASES)
def case(request):
    """A fitted detector and images for it, of every kind."""
    shape, dtype, parameters = CASES[request.param]
    return fit(shape, dtype, parameters), draw(shape, dtype, seed=1)


@pytest.fixture(scope="module")
def fitted():
    """A fitted detector with everything that a file can hold, apart from names."""
    detector = fit((16, 16), np.uint8, {"roi": half((16, 16))})
    images = draw((16, 16), seed=2)
    images[::3, 4:8, 4:8] = 250
    y = np.where(np.arange(N_IMAGES) % 3 == 0, -1, 1)
    return detector.calibrate(images, y)


@pytest.fixture(scope="module")
def stored(fitted, tmp_path_factory):
    """The bytes of a file."""
    path = tmp_path_factory.mktemp("stored") / "model.safetensors"
    save(fitted, path)
    return path.read_bytes()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def test_a_path_may_start_at_home(fitted, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    save(fitted, "~/new/model.safetensors")
    assert (tmp_path / "new" / "model.safetensors").is_file()
    assert load("~/new/model.safetensors").offset_ == fitted.offset_


def assert_equal(loaded, detector, images):
    for method in ("anomaly_map", "reconstruct", "score_samples", "p_value"):
        found, expected = (getattr(d, method)(images) for d in (loaded, detector))
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    learned = {name for name in dir(detector) if re.fullmatch("[a-z].*_", name)}
    for name in learned - {"network_"}:
        assert hasattr(loaded, name) == hasattr(detector, name)
        if hasattr(detector, name):
            found, expected = getattr(loaded, name), getattr(detector, name)
            assert type(found) is type(expected)
            np.testing.assert_equal(found, expected)


def test_a_loaded_detector_is_the_one_that_was_saved(case, path):
    detector, images = case
    save(detector, path)
    loaded = load(path)
    assert_equal(loaded, detector, images)
    assert os.listdir(path.parent) == [path.name]


def test_parameters_come_back(case, path):
    detector, _ = case
    save(detector, path)
    found, expected = load(path).get_params(), detector.get_params()
    for name, value in expected.items():
        if isinstance(value, list):
            value = tuple(value)
        if isinstance(value, np.random.RandomState):
            value = None
        np.testing.assert_equal(found[name], value)
        if not isinstance(value, np.generic):
            assert type(found[name]) is type(value), name


@pytest.mark.parametrize("shape", [(32, 48), (40, 24, 3)])
def test_the_real_network_comes_back(path, monkeypatch, small_network, shape):
    monkeypatch.setattr(_networks, "_WIDTHS", small_network)
    detector = fit(shape, np.uint8, {})
    save(detector, path)
    assert_equal(load(path), detector, draw(shape, seed=1))


def test_every_kind_of_number_is_among_the_cases():
    kinds = {_inputs._kind_of(np.dtype(dtype)) for _, dtype, _ in CASES.values()}
    assert kinds == set(_inputs._KINDS)


def test_a_labelled_threshold_comes_back(fitted, path):
    save(fitted, path)
    loaded = load(path)
    assert loaded.labelled_threshold_ == fitted.labelled_threshold_
    assert_equal(loaded, fitted, draw((16, 16), seed=3))


def test_provenance_is_told_and_comes_back(path, tmp_path):
    for i, image in enumerate(draw((16, 16))):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    detector = PatchAutoencoderDetector(6, epochs=1, target_fpr=0.3, random_state=0)
    before = datetime.now(UTC).replace(microsecond=0)
    detector.fit(ImageFolder(tmp_path)).calibrate(draw((16, 16), n=3))
    told = dict(detector.provenance_)
    assert before <= datetime.fromisoformat(told.pop("fitted_at")) <= datetime.now(UTC)
    assert told == {
        "n_images": N_IMAGES,
        "n_training": 8,
        "n_calibration": 4,
        "source": str(tmp_path),
        "skad_version": __version__,
        "torch_version": str(torch.__version__),
    }
    save(detector, path)
    assert load(path).provenance_ == detector.provenance_


def test_files_of_the_version_before_load_and_ask_for_calibration(fitted, stored, path):
    """They have parts of the method that are gone: these are left out."""
    arrays, description = opened(stored)
    for name in ("weight", "bias"):
        arrays[f"expectation.{name}"] = arrays.pop(f"context.{name}")
    arrays["expectation.most"] = np.ones(5, np.float32)
    knots = np.arange(7, dtype=np.float32)[:, np.newaxis]
    arrays["view_lines"] = knots + np.zeros((2, 7, 2), np.float32)
    arrays["view_lines"][0, :, 1] *= arrays.pop("scale")
    write(path, arrays, description | {"format_version": 8})
    with pytest.warns(UserWarning, match="calibrate"):
        loaded = load(path)
    images = draw((16, 16), seed=3)
    np.testing.assert_allclose(
        loaded.anomaly_map(images), fitted.anomaly_map(images), rtol=1e-5
    )


def test_names_of_features_come_back(path):
    pandas = pytest.importorskip("pandas")
    names = [f"x{i}" for i in range(30)]
    frame = pandas.DataFrame(draw((30,), np.float64), columns=names)
    detector = PatchAutoencoderDetector(epochs=1, target_fpr=0.3, random_state=0)
    save(detector.fit(frame), path)
    loaded = load(path)
    assert loaded.feature_names_in_.tolist() == names
    assert_equal(loaded, detector, frame)
    with pytest.raises(ValueError, match="feature names"):
        loaded.predict(frame.rename(columns={"x0": "y"}))


def test_nothing_is_lost_by_storing_again(fitted, path):
    save(fitted, path)
    first = path.read_bytes()
    save(fitted, path)
    assert path.read_bytes() == first
    save(load(path), path)
    assert path.read_bytes() == first


def test_a_loaded_detector_goes_on(fitted, path):
    save(fitted, path)
    loaded = load(path).set_params(warm_start=True)
    images = draw((16, 16), seed=4)
    before = loaded.anomaly_map(images)
    np.testing.assert_array_equal(loaded.fitted.trained_on, fitted.fitted.trained_on)
    assert len(loaded.fitted.trained_on)
    loaded.calibrate(images)
    assert not hasattr(loaded, "labelled_threshold_")
    loaded.fit(images)
    assert not np.array_equal(loaded.anomaly_map(images), before)
    clone(loaded)
    pickle.loads(pickle.dumps(loaded)).predict(images)


@pytest.mark.parametrize("name", ["model", "ein Modell für Türen.safetensors", "模型"])
@pytest.mark.parametrize("kind", [str, Path])
def test_names_of_files(fitted, tmp_path, name, kind):
    save(fitted, kind(tmp_path / name))
    assert load(kind(tmp_path / name)).offset_ == fitted.offset_


@pytest.mark.parametrize(
    "device", ["cpu", "auto", "cuda", "cuda:7", "mps", "meta", "nonsense"]
)
def test_any_device_is_loaded_on_a_machine_without_it(fitted, path, device):
    detector = copy.deepcopy(fitted).set_params(device=device)
    save(detector, path)
    loaded = load(path)
    assert loaded.device == device
    if not torch.cuda.is_available():
        assert loaded.fitted.mapper.device.type == "cpu"
        assert_equal(loaded, detector, draw((16, 16)))


def test_a_device_that_is_asked_for_must_be_there(fitted, path):
    save(copy.deepcopy(fitted).set_params(device="cuda:7"), path)
    assert load(path, device="cpu").device == "cpu"
    assert load(path, "auto").device == "auto"
    with pytest.raises(ValueError, match=r"^device='cuda:99', but this machine has"):
        load(path, device="cuda:99")


def test_a_memory_is_not_stored(fitted, path, tmp_path):
    """joblib.Memory unpickles what lies in its folder: a file must not name one."""
    detector = copy.deepcopy(fitted).set_params(memory=str(tmp_path / "cache"))
    save(detector, path)
    assert load(path).memory is None
    assert b"cache" not in path.read_bytes()


def test_global_generators_are_left_alone(fitted, path):
    state, numpy_state = torch.get_rng_state(), global_numpy_state()
    save(fitted, path)
    load(path)
    np.testing.assert_equal(global_numpy_state(), numpy_state)
    assert torch.equal(torch.get_rng_state(), state)


# Saving


def test_what_another_thread_sets_is_stored_whole(fitted, path):
    """Threshold, scores and promise of one calibration, not of two."""
    detector = copy.deepcopy(fitted)
    calibrated = [
        copy.deepcopy(detector.calibrate(draw((16, 16), n=n))).fitted.threshold
        for n in (5, 9)
    ]
    done = threading.Event()

    def keep_setting():
        while not done.is_set():
            for threshold in calibrated:
                detector.fitted = replace(detector.fitted, threshold=threshold)

    thread = threading.Thread(target=keep_setting)
    thread.start()
    try:
        for _ in range(20):
            save(detector, path)
            loaded = load(path).fitted.threshold
            expected = calibrated[len(loaded.calibration_scores) == 9]
            np.testing.assert_equal(asdict(loaded), asdict(expected))
    finally:
        done.set()
        thread.join()


def test_a_fit_and_a_calibration_keep_network_and_threshold_together(fitted):
    detector = copy.deepcopy(fitted).set_params(random_state=1, roi=None)
    images, reached, go_on = draw((16, 16)), threading.Event(), threading.Event()

    def read_slowly(i):
        reached.set()
        go_on.wait()
        return images[i]

    lazy = LazyImages(images, read_slowly)
    thread = threading.Thread(target=detector.calibrate, args=[lazy])
    thread.start()
    reached.wait()
    detector.fit(images)
    go_on.set()
    thread.join()
    scores = detector.score_samples(images)
    assert set(detector.calibration_scores_) <= set(scores)


class LazyImages:
    """A lazy sequence that reads by a function."""

    def __init__(self, images, read):
        self.images, self.read = images, read

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.read(i)


def test_only_fitted_detectors_are_stored(path):
    with pytest.raises(NotFittedError, match="not fitted"):
        save(PatchAutoencoderDetector(), path)
    assert not os.listdir(path.parent)


def test_other_estimators_are_refused(fitted, path):
    with pytest.raises(TypeError, match=r"got Pipeline\. Take it out of its pipeline"):
        save(make_pipeline(fitted), path)


def test_subclasses_are_refused(fitted, path):
    class Mine(PatchAutoencoderDetector):
        pass

    detector = copy.copy(fitted)
    detector.__class__ = Mine
    with pytest.raises(TypeError, match=r"no subclass; got Mine\."):
        save(detector, path)


def test_parameters_that_cannot_be_loaded_are_not_stored(fitted, path):
    path.write_bytes(b"old")
    for wrong in ({"epochs": -1}, {"patch_size": (3, "a")}, {"image_size": (1, 2, 3)}):
        detector = copy.deepcopy(fitted).set_params(**wrong)
        with pytest.raises(ValueError, match=next(iter(wrong))):
            save(detector, path)
    assert path.read_bytes() == b"old"


def fail(error):
    def failing(*args, **kwargs):
        raise error

    return failing


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("os.fsync", OSError(28, "No space left on device")),
        ("pathlib.Path.replace", OSError(5, "Input/output error")),
        ("os.fsync", KeyboardInterrupt()),
    ],
)
def test_an_old_file_survives_failures(fitted, stored, path, monkeypatch, where, error):
    path.write_bytes(stored)
    changed = copy.deepcopy(fitted)
    changed.offset_ = -123.0
    with monkeypatch.context() as patch:
        patch.setattr(where, fail(error))
        with pytest.raises(type(error)) as raised:
            save(changed, path)
    if isinstance(error, OSError):
        assert raised.value.errno == error.errno
        assert error.strerror in str(raised.value)
        assert "not stored. Free some room" in str(raised.value)
        assert str(path) in str(raised.value)
    assert path.read_bytes() == stored
    assert load(path).offset_ == fitted.offset_
    assert os.listdir(path.parent) == [path.name]
    save(changed, path)
    assert load(path).offset_ == -123.0


def test_a_disk_that_fills_up_on_the_way(fitted, stored, path):
    resource = pytest.importorskip("resource")
    path.write_bytes(stored)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(stored) // 2, limits[1]))
    try:
        with pytest.raises(OSError, match="not stored"):
            save(fitted, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == stored
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("where", ["os.fsync", "pathlib.Path.replace"])
def test_an_old_file_survives_a_kill(stored, fitted, path, where):
    path.write_bytes(stored)
    module, _, name = where.rpartition(".")
    code = (
        "import os, pathlib, sys\n"
        "from skad import _networks, load, save\n"
        f"_networks._WIDTHS = {SMALL}\n"
        "detector = load(sys.argv[1])\n"
        "detector.offset_ = -123.0\n"
        f"{module}.{name} = lambda *args: os._exit(9)\n"
        "save(detector, sys.argv[1])\n"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], cwd=root, capture_output=True
    )
    assert done.returncode == 9, done.stderr.decode()
    assert path.read_bytes() == stored
    assert load(path).offset_ == fitted.offset_
    assert len(os.listdir(path.parent)) == 2  # what was being written


def test_folders_that_are_not_there(fitted, tmp_path):
    save(fitted, tmp_path / "made" / "by save" / "model")
    assert load(tmp_path / "made" / "by save" / "model").offset_ == fitted.offset_
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match=r"file/model cannot be written"):
        save(fitted, tmp_path / "file" / "model")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        save(fitted, tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["file", "made"]


# Files that are no model


def refused(path, match=None):
    """Load, see that it is refused as it should be, quickly; return the message."""
    start = time.monotonic()
    with pytest.raises(ValueError, match=match) as raised:
        load(path)
    assert type(raised.value) is ValueError
    assert time.monotonic() - start < LOADS_QUICKLY
    message = str(raised.value)
    assert re.match(rf"{path.name!r}|'.*{path.name}' is not a model file", message)
    assert "Train and store the detector again" in message
    return message


def test_a_missing_file_is_named(tmp_path):
    for missing in (tmp_path / "missing", tmp_path):
        with pytest.raises(FileNotFoundError, match=re.escape(repr(str(missing)))):
            load(missing)


def test_a_file_without_permission_is_named(path, monkeypatch):
    path.touch()

    def refuse(file, *args):
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(PermissionError, match=r"Permission denied: .*model"):
        load(path)


@pytest.mark.parametrize(
    "content", [b"", b"\0", b"a" * 7, b"a" * 8, b"Dear reader,\n" * 99, bytes(10**6)]
)
def test_other_contents(path, content):
    path.write_bytes(content)
    refused(path)


def test_pictures(path):
    Image.fromarray(draw((16, 16))[0]).save(path, format="png")
    refused(path)


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    "dump",
    [
        joblib.dump,
        torch.save,
        lambda trap, path: path.write_bytes(pickle.dumps(trap)),
        lambda trap, path: np.save(path.open("wb"), np.array([trap], object)),
    ],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_pickles_are_refused_and_not_opened(path, tmp_path, dump):
    dump(Trap(tmp_path / "sprung"), path)
    assert "joblib.load" in refused(path)
    assert not (tmp_path / "sprung").exists()


def test_nothing_is_unpickled(stored, path, monkeypatch):
    path.write_bytes(stored)
    for module, name in [
        (pickle, "load"),
        (pickle, "loads"),
        (pickle, "Unpickler"),
        (torch, "load"),
        (np, "load"),
        (joblib, "load"),
    ]:
        monkeypatch.setattr(module, name, fail(AssertionError("unpickled")))
    monkeypatch.setattr("builtins.eval", fail(AssertionError("evaluated")))
    monkeypatch.setattr("builtins.exec", fail(AssertionError("executed")))
    load(path)


def test_every_truncation_is_refused(stored, path):
    n_header = 8 + struct.unpack("<Q", stored[:8])[0]
    rng = np.random.default_rng(0)
    lengths = {
        *range(20),
        *range(n_header - 10, n_header + 10),
        *range(len(stored) - 10, len(stored)),
        *rng.integers(0, n_header, 50).tolist(),
        *rng.integers(0, len(stored), 50).tolist(),
    }
    path.write_bytes(stored)
    for length in sorted(lengths, reverse=True):
        os.truncate(path, length)
        refused(path)


def test_surplus_bytes_are_refused(stored, path):
    path.write_bytes(stored + b"\0")
    refused(path)


# Files that look like a model


def opened(stored):
    """Arrays and description of a file."""
    header = json.loads(stored[8 : 8 + struct.unpack("<Q", stored[:8])[0]])
    arrays = {name: array.copy() for name, array in arrays_of(stored).items()}
    return arrays, json.loads(header["__metadata__"]["skad"])


def write(path, arrays, description):
    description = description | {"checksum": checksum(arrays, description)}
    path.write_bytes(to_bytes(arrays, {"skad": json.dumps(description)}))


def write_text(path, stored, text):
    path.write_bytes(to_bytes(opened(stored)[0], {"skad": text}))


def test_opening_and_writing_again_changes_nothing(stored, path):
    write(path, *opened(stored))
    assert load(path).get_params().keys() == load(path).get_params().keys()


def test_files_of_other_programs(path):
    path.write_bytes(to_bytes({"weight": np.zeros(3, np.float32)}))
    refused(path, "no header of skad, so another program wrote it")
    path.write_bytes(to_bytes({}, {"format": "pt"}))
    refused(path, "no header of skad, so another program wrote it")


@pytest.mark.parametrize(
    "version", [FORMAT_VERSION - 2, FORMAT_VERSION + 1, 0, -1, 10**400]
)
def test_other_versions_are_named(stored, path, version):
    arrays, description = opened(stored)
    write(path, arrays, description | {"format_version": version})
    message = refused(path, "it has format version")
    assert f"this is version {FORMAT_VERSION}" in message
    assert str(version)[:10] in message
    assert len(message) < 1000


@pytest.mark.parametrize("version", [True, 1.0, "1", None, [1], {}])
def test_versions_are_numbers(stored, path, version):
    arrays, description = opened(stored)
    write(path, arrays, description | {"format_version": version})
    refused(path, "no format version")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no JSON",
        "null",
        "[]",
        "1",
        '"text"',
        "{}",
        f"{{'format_version': {FORMAT_VERSION}}}",
        f'{{"format_version": {FORMAT_VERSION}}}',
        "NaN",
        "1" * 5000,
        '{"format_version": ' + "1" * 5000 + "}",
    ],
)
def test_texts_in_place_of_the_header(stored, path, text):
    write_text(path, stored, text)
    refused(path, "its header|in its header")


@pytest.mark.parametrize("depth", [10, 500, 900, 950, 980, 1000, 5000, 10**6])
@pytest.mark.parametrize("brackets", ["[]", ('{"a":', "}")])
def test_deep_nesting(stored, path, depth, brackets):
    left, right = brackets
    nested = left * depth + "1" + right * depth
    write_text(path, stored, nested)
    refused(path)
    arrays, description = opened(stored)
    for name in ("history", "std", "format_version", "parameters", "format"):
        text = json.dumps(description | {name: "HERE"}).replace('"HERE"', nested)
        path.write_bytes(to_bytes(arrays, {"skad": text}))
        refused(path)
    parameters = description["parameters"] | {"patch_size": "HERE"}
    text = json.dumps(description | {"parameters": parameters})
    path.write_bytes(to_bytes(arrays, {"skad": text.replace('"HERE"', nested)}))
    refused(path)


NO_NUMBERS = [
    None,
    True,
    "1",
    [1.0],
    {},
    float("nan"),
    float("inf"),
    10**400,
    -(10**400),
]
NO_SIZES = [
    None,
    16,
    "16",
    {},
    [],
    [16],
    [16, 16, 16, 16],
    [0, 16],
    [-16, 16],
    [16.0, 16],
    [True, 16],
    [None, 16],
    ["16", 16],
    [[16], 16],
    [10**400, 16],
    [2**63, 16],
    [2**62, 2**62],
    [2**31 - 1, 2**31 - 1],
    [1, 2**31 - 1],
    [float("nan"), 16],
    [32, 16],
]
WRONG = {
    "std": [*NO_NUMBERS, 0, -1.0],
    "offset": NO_NUMBERS,
    "mean_map": NO_NUMBERS,
    "working_size": NO_SIZES,
    "format": [None, [], {}, {"shape": [16, 16]}, "x"],
    "format.shape": [*NO_SIZES, [255], [16, 16, 3], [8, 32]],
    "format.image_shape": [*NO_SIZES, [16, 16], [16, 16, 2**31 - 1], [8, 32, 1]],
    "format.kind": [None, 1, "complex", ["float"], {}],
    "feature_names": ["abc", [1], {}, 5],
    "provenance": [None, [], "x", {"source": []}, {"source": {}}, {"n_images": True}],
    "history": [None, {}, 1, [1], [{}], [{"epoch": 1}], [{"epoch": 1, "loss": "x"}]],
    "labelled_threshold": [[], {}, "x", 1, {"offset": 1}],
    "labelled_threshold.offset": NO_NUMBERS,
    "labelled_threshold.value": NO_NUMBERS,
    "labelled_threshold.metric": [None, 1, ["f1"]],
    "labelled_threshold.detection_interval": [None, 1, [1], [1, 2, 3], [1, "2"], {}],
    "labelled_threshold.surplus": [1],
    "parameters": [None, [], {}, "x"],
    "parameters.surplus": [1],
    "parameters.memory": ["/cache"],
    "parameters.roi": [None],
    "parameters.epochs": [None, 0, -1, 1.5, "1", [1], {}, float("nan"), 10**400],
    "parameters.patch_size": [None, 1, -3, [], [1], [3, "a"], [[3]], {}, "40", [3.5]],
    "parameters.image_size": [0, -1, [16], [16, 16, 16], [0, 1], "16", [16.5, 1]],
    "parameters.image_shape": [16, "16", {}, [None], ["a"]],
    "parameters.learning_rate": [0, -1, float("inf"), float("nan"), "1", None],
    "parameters.validation_fraction": [0, 1, 2, "x", None],
    "parameters.target_fpr": [0, 1, -1, None],
    "parameters.contamination": [0, 0.7, "all", None, [0.1]],
    "parameters.device": [None, 0, ["cpu"], {}],
    "parameters.warm_start": [2, "yes", None],
    "parameters.random_state": [-1, 1.5, "0", [0], {}],
    "parameters.verbose": ["x", -1, None],
}


def put(description, name, value):
    """Set one value of a description, deep down if the name has a dot."""
    *parents, last = name.split(".")
    changed = copy.deepcopy(description)
    place = changed
    for parent in parents:
        place = place[parent]
    place[last] = value
    return changed


@pytest.mark.parametrize("name", WRONG)
def test_wrong_values(stored, path, name):
    arrays, description = opened(stored)
    tracemalloc.start()
    try:
        for value in WRONG[name]:
            write(path, arrays, put(description, name, value))
            tracemalloc.reset_peak()
            message = refused(path)
            assert len(message) < 2000
            assert tracemalloc.get_traced_memory()[1] < 10**8  # bytes
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "name", [name for name in WRONG if "." not in name and name != "provenance"]
)
def test_missing_values_are_named(stored, path, name):
    arrays, description = opened(stored)
    del description[name]
    write(path, arrays, description)
    refused(path, f"{name} is missing in its header")


def test_missing_parameters(stored, path):
    arrays, description = opened(stored)
    for name in description["parameters"]:
        changed = copy.deepcopy(description)
        del changed["parameters"][name]
        write(path, arrays, changed)
        refused(path, "parameters in its header")


def test_a_training_that_ran_away_can_be_loaded(stored, path):
    arrays, description = opened(stored)
    history = [{"epoch": 1, "loss": float("inf")}, {"epoch": 2, "loss": float("nan")}]
    write(path, arrays, description | {"history": history})
    np.testing.assert_equal(load(path).history_, history)


def test_missing_arrays_are_named(stored, path):
    arrays, description = opened(stored)
    for name in arrays.keys() - {"roi"}:
        rest = {k: v for k, v in arrays.items() if k != name}
        write(path, rest, description)
        refused(
            path, re.escape(f"{name} is ") if "score" in name else f"{name} is miss"
        )


NO_LABELS = {"labelled_threshold": None}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        (NO_LABELS | {"promised_fpr": 1e-9}, "does not promise promised_fpr=1e-09"),
        (NO_LABELS | {"promised_fpr": 0.3, "offset": 5.0}, "offset=5.0 does not prom"),
        ({"offset": 5.0}, "contradict the labelled_threshold"),
        ({"promised_fpr": 0.3}, "contradict the labelled_threshold"),
        ({"labelled_threshold.metric": "accuracy"}, "metric must be one of"),
        ({"labelled_threshold.detection_rate": 1.5}, "detection_rate=1.5 between"),
        ({"labelled_threshold.false_alarm_interval": [0.9, 0.1]}, "false_alarm_rate"),
        ({"mean_map": -1.0}, "mean_map=-1.0 cannot be"),
        ({"mean_map": 1e6}, "mean_map=1000000.0 cannot be"),
        ({"parameters.image_size": 7}, r"image_size=7 means .*\(7, 7\).*\(16, 16\)"),
        ({"working_size": [15, 16]}, r"image_size=None means .* \(16, 16\)"),
        ({"format.any_size": True}, "need an image_size and no roi"),
        ({"format.shape": [256]}, r"are images of shape \(1, 256, 1\)"),
        ({"feature_names": ["a", "b"]}, "2 feature names are not for"),
        ({"history": [{"epoch": 3, "loss": 1.0}]}, "history has epoch 3 as number 1"),
    ],
)
def test_fields_that_contradict_others(stored, path, changes, match):
    arrays, description = opened(stored)
    for name, value in changes.items():
        description = put(description, name, value)
    write(path, arrays, description)
    refused(path, match)


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("calibration_scores", 1.0, "must be <= 0"),
        ("roi", 0.5, "roi has values other than 0 and 1"),
        ("network.down2.0.0.weight", 1e30, r"has values above 1e\+06, as no"),
        ("network.down2.0.1.running_mean", 1e38, r"above 1e\+12, as"),
        ("gaussians4.whitening", 1e38, r"above 1e\+12, as"),
    ],
)
def test_numbers_that_lead_nowhere(stored, path, name, value, match):
    arrays, description = opened(stored)
    write(path, arrays | {name: np.full_like(arrays[name], value)}, description)
    refused(path, match)


def test_weights_that_lead_nowhere_at_large_images(path, monkeypatch):
    monkeypatch.setattr("skad.model_io.agreement._MOST_PIXELS", 0)
    detector = fit((16, 16), np.uint8, {})
    save(detector, path)
    load(path)
    with torch.no_grad():
        for weights in detector.network_.parameters():
            weights.fill_(1e6)
    save(detector, path)
    refused(path, "no finite numbers")


def test_what_is_set_after_the_fit_and_contradicts_it_is_not_stored(fitted, path):
    detector = copy.deepcopy(fitted).set_params(image_size=7)
    with pytest.raises(ValueError, match=r"image_size=7 .* Set it back, or fit again"):
        save(detector, path)


def test_an_offset_of_ones_own_is_kept_and_promises_nothing(fitted, path):
    detector = copy.deepcopy(fitted)
    detector.offset_ = -0.25
    save(detector, path)
    loaded = load(path)
    assert loaded.offset_ == -0.25
    assert np.isnan(loaded.promised_fpr_)
    assert not hasattr(loaded, "labelled_threshold_")


@pytest.mark.parametrize("offset", [np.inf, -np.inf, 1e301])
def test_an_offset_that_could_not_be_loaded_is_not_stored(fitted, path, offset):
    detector = copy.deepcopy(fitted)
    detector.offset_ = offset
    with pytest.raises(ValueError, match=r"cannot be stored: offset .* is -?(inf|1e)"):
        save(detector, path)
    assert not path.exists()


def test_an_offset_is_a_number(fitted):
    with pytest.raises(ValueError, match="offset_ must be a number; got nan"):
        copy.deepcopy(fitted).offset_ = np.nan


@pytest.mark.parametrize("name", ["surplus", "network.surplus", "gaussians4.", "", "é"])
def test_surplus_arrays_are_named(stored, path, name):
    arrays, description = opened(stored)
    write(path, arrays | {name: np.zeros(3, np.float32)}, description)
    refused(path, f"{name} is .* where nothing belongs")


def test_wrong_shapes_are_named(stored, path):
    arrays, description = opened(stored)
    for name, array in arrays.items():
        for wrong in (array[None], np.resize(array, array.size + 1)):
            write(path, arrays | {name: wrong}, description)
            refused(path, name)


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16", "I32", "I64", "BOOL"])
def test_wrong_types_are_named(stored, path, dtype):
    sizes = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I32": 4, "I64": 8, "BOOL": 1}
    n_header = struct.unpack("<Q", stored[:8])[0]
    header = json.loads(stored[8 : 8 + n_header])
    names = ("tails", "mean", "gaussians4.mean", "roi", "calibration_scores")
    for name in (*names, "trained_on", "network.down2.0.1.num_batches_tracked"):
        if header[name]["dtype"] == dtype:
            continue
        arrays, description = opened(stored)
        path.write_bytes(retyped(arrays, description, name, dtype, sizes[dtype]))
        refused(path, f"{name} is .*{dtype}.* where .* belongs")


def retyped(arrays, description, name, dtype, itemsize):
    """A file in which one array, with zeros in it, is of another type."""
    header = {"__metadata__": {"skad": json.dumps(description)}}
    data = b""
    for key, array in arrays.items():
        content = bytes(itemsize * array.size) if key == name else array.tobytes()
        kind = {"f4": "F32", "f8": "F64", "i8": "I64", "u8": "U64"}[array.dtype.str[1:]]
        header[key] = {
            "dtype": dtype if key == name else kind,
            "shape": list(array.shape),
            "data_offsets": [len(data), len(data) + len(content)],
        }
        data += content
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_arrays_hold_finite_numbers(stored, path, value):
    arrays, description = opened(stored)
    for name, array in arrays.items():
        if array.dtype.kind == "f":
            wrong = array.copy()
            wrong.flat[-1] = value
            write(path, arrays | {name: wrong}, description)
            refused(path, f"{name} has values that are not finite")


@pytest.mark.parametrize(
    ("name", "change", "match"),
    [
        ("network.down2.0.1.running_var", lambda a: -a - 1, "negative"),
        ("tails", lambda a: 0 * a, "tails has values that do not rise"),
        ("tails", lambda a: a[:, ::-1], "tails has values that do not rise"),
        ("calibration_scores", lambda a: a[::-1] * np.arange(len(a)), "sorted"),
        ("calibration_scores", lambda a: a[:0], "sorted list"),
        ("calibration_scores", lambda a: a[:, None], "where .* belongs"),
        ("trained_on", lambda a: a[::-1], "sorted list"),
        ("trained_on", lambda a: a[:, None], "where .* belongs"),
        ("roi", lambda a: a * 0, "nothing to look at"),
        ("roi", lambda a: a[:, :-1], "where .* belongs"),
    ],
)
def test_arrays_hold_sensible_numbers(stored, path, name, change, match):
    arrays, description = opened(stored)
    changed = np.ascontiguousarray(change(arrays[name]))
    write(path, arrays | {name: changed}, description)
    refused(path, match)


def test_a_file_can_do_without_roi(stored, path):
    arrays, description = opened(stored)
    del arrays["roi"]
    write(path, arrays, description)
    assert load(path).roi is None


# Headers that lie


def with_header(stored, header, length=None):
    n_header = struct.unpack("<Q", stored[:8])[0]
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    n = len(text) if length is None else length
    return struct.pack("<Q", n) + text + stored[8 + n_header :]


@pytest.mark.parametrize("length", [0, 1, 2**20, 2**31, 2**32, 2**63, 2**64 - 1])
def test_lengths_of_the_header_that_lie(stored, path, length):
    n_header = struct.unpack("<Q", stored[:8])[0]
    path.write_bytes(with_header(stored, stored[8 : 8 + n_header], length))
    refused(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data_offsets", [0, 4]),
        ("data_offsets", [4, 0]),
        ("data_offsets", [-8, 8]),
        ("data_offsets", [2**62, 2**62 + 16]),
        ("data_offsets", [2**64 - 16, 2**64]),
        ("data_offsets", [0]),
        ("data_offsets", None),
        ("data_offsets", ["0", "16"]),
        ("shape", [2**32, 2**32]),
        ("shape", [2**63, 0]),
        ("shape", [0]),
        ("shape", [-2, -2]),
        ("shape", [2.0, 2.0]),
        ("shape", None),
        ("shape", []),
        ("dtype", "F128"),
        ("dtype", "object"),
        ("dtype", None),
        ("dtype", 4),
    ],
)
def test_entries_of_the_header_that_lie(stored, path, key, value):
    n_header = struct.unpack("<Q", stored[:8])[0]
    header = json.loads(stored[8 : 8 + n_header])
    for name in ("tails", "mean", "calibration_scores"):
        entry = header[name] | {key: value}
        path.write_bytes(with_header(stored, header | {name: entry}))
        refused(path)


@pytest.mark.parametrize("metadata", [None, [], 1, "x", {"skad": 1}, {"skad": None}])
def test_metadata_of_other_kinds(stored, path, metadata):
    n_header = struct.unpack("<Q", stored[:8])[0]
    header = json.loads(stored[8 : 8 + n_header])
    path.write_bytes(with_header(stored, header | {"__metadata__": metadata}))
    refused(path)


@pytest.mark.parametrize("header", [b"[" * 10**5, b'{"a":' * 10**5, b"\xff" * 100])
def test_headers_that_are_no_headers(stored, path, header):
    path.write_bytes(with_header(stored, header))
    refused(path)


# Fuzzing: a file is refused, or it is a detector that works.


def load_or_refuse(path):
    """Return the detector, which works, or None if the file was refused."""
    start = time.monotonic()
    try:
        loaded = load(path)
    except ValueError as error:
        assert "is not a model file that skad" in str(error)
        loaded = None
    assert time.monotonic() - start < LOADS_QUICKLY
    if loaded is not None:
        assert verdicts(loaded).shape == (1,)
    return loaded


def verdicts(detector):
    dtype = {"integer": np.uint8, "unscaled integer": np.int64, "float": np.float32}
    shape = (1, *detector.image_shape_in_)
    image = (
        np.arange(np.prod(shape))
        .reshape(shape)
        .astype(dtype[detector.fitted.format.kind])
    )
    assert detector.anomaly_map(image).shape[0] == 1
    assert detector.predict(image) in (-1, 1)
    return detector.decision_function(image) + detector.p_value(image)


def test_a_damaged_bit_is_found(fitted, stored, path):
    rng = np.random.default_rng(0)
    n_header = 8 + struct.unpack("<Q", stored[:8])[0]
    places = [*rng.integers(0, n_header, 60), *rng.integers(n_header, len(stored), 60)]
    for place in places:
        changed = bytearray(stored)
        changed[place] ^= 1 << rng.integers(8)
        path.write_bytes(changed)
        loaded = load_or_refuse(path)
        assert loaded is None or verdicts(loaded) == verdicts(fitted)
        assert loaded is None or place < n_header
    arrays, description = opened(stored)
    other = description | {"offset": description["offset"] + 1e-9}
    path.write_bytes(to_bytes(arrays, {"skad": json.dumps(other)}))
    refused(path, "its checksum is another, so some of it was changed or damaged")


def test_random_bytes_in_the_header(monkeypatch, stored, path):
    monkeypatch.setattr(  # which would refuse nearly all of them
        _persistence, "checksum", lambda _, description: description["checksum"]
    )
    n_header = 8 + struct.unpack("<Q", stored[:8])[0]
    rng = np.random.default_rng(0)
    path.write_bytes(stored)
    start = stored.index(b"__metadata__")
    refusals = 0
    for i in range(400):
        changed = bytearray(stored[:n_header])
        low = start if i % 2 else 0
        high = min(start + 1500, n_header) if i % 2 else n_header
        for place in rng.integers(low, high, rng.integers(1, 4)):
            changed[place] = rng.integers(256) if i % 3 else changed[place] ^ 1
        with path.open("r+b") as file:
            file.write(changed)
        refusals += load_or_refuse(path) is None
    assert 200 < refusals < 400  # some are to go deep


def leaves(description, name=""):
    for key, value in description.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{name}{key}.")
        yield f"{name}{key}"


@pytest.mark.parametrize("labelled", [True, False])
def test_random_values_in_the_header(fitted, path, labelled):
    """One wrong value is refused, or it changes no verdict."""
    detector = copy.deepcopy(fitted)
    if not labelled:
        detector.calibrate(draw((16, 16), n=9))
    save(detector, path)
    arrays, description = opened(path.read_bytes())
    expected = verdicts(detector)
    names = list(leaves(description))
    values = [
        *NO_NUMBERS,
        *NO_SIZES,
        0,
        1,
        -1,
        2.5,
        1e-300,
        1e300,
        False,
        "cpu",
        "x" * 99,
    ]
    rng = np.random.default_rng(0)
    refusals = 0
    for _ in range(300):
        name = names[rng.integers(len(names))]
        value = values[rng.integers(len(values))]
        write(path, arrays, put(description, name, value))
        loaded = load_or_refuse(path)
        refusals += loaded is None
        if loaded is not None and name != "std":
            assert verdicts(loaded) == expected, (name, value)
    assert 150 < refusals < 300
