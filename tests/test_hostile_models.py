"""Model files that are damaged or lie: refused, or a detector that works."""

import copy
import json
import struct
import tracemalloc

import joblib
import numpy as np
import pytest
import torch
from model_files import opened, write
from old_models import SHAPE, write_model
from safetensors.numpy import save as to_bytes

from skad import DenseAutoencoderDetector, PatchAutoencoderDetector, load, save
from skad.model_io.header import FORMAT_VERSION


def draw(shape, n=12):
    return np.random.default_rng(0).integers(80, 120, (n, *shape), dtype=np.uint8)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """The bytes of a file of each kind of detector, by a short name."""
    folder = tmp_path_factory.mktemp("stored")
    dense = DenseAutoencoderDetector(write_model(folder / "model"), target_fpr=0.3)
    roi = np.tri(16, dtype=bool)
    patch = PatchAutoencoderDetector(6, epochs=1, target_fpr=0.3, roi=roi)
    patch.fit(draw((16, 16)))
    labelled = copy.copy(patch).calibrate(draw((16, 16)), [1] * 6 + [-1] * 6)
    encoder = {"encoder": "efficientnet-lite0", "epochs": 0, "calibration": "cross"}
    encoding = PatchAutoencoderDetector(6, target_fpr=0.3, **encoder)
    detectors = {"patch": patch, "labelled": labelled, "dense": dense.fit(draw(SHAPE))}
    detectors["encoding"] = encoding.fit(draw((16, 16)))
    for name, detector in detectors.items():
        save(detector, folder / name)
    return {name: (folder / name).read_bytes() for name in detectors}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def refused(path, words=None):
    with pytest.raises(ValueError, match=words) as raised:
        load(path)
    message = str(raised.value)
    assert message.startswith(f"{str(path)!r} is not a model file that skad")
    assert len(message) < 2000, message


def put(header, name, value):
    """Set one value, deep down if the name has a dot."""
    changed = place = copy.deepcopy(header)
    *parents, last = name.split(".")
    for parent in parents:
        place = place[parent]
    place[last] = value
    return changed


# Files of other programs, and broken ones


class Trap:
    """Ends the program when it is unpickled."""

    def __reduce__(self):
        return (exec, ("raise SystemExit",))


@pytest.mark.parametrize("dump", [joblib.dump, torch.save])
def test_pickles_are_refused_and_not_opened(path, dump):
    dump(Trap(), path)
    refused(path, r"joblib\.load")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"Dear reader,\n" * 99,
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 10**5) + b"[" * 10**5,
        to_bytes({"weight": np.zeros(3, np.float32)}, {"format": "pt"}),
        to_bytes({}, {"skad": "[" * 10**6}),
        to_bytes({}, {"skad": f'{{"format_version": {FORMAT_VERSION}}}'}),
    ],
)
def test_other_contents_are_refused(path, content):
    path.write_bytes(content)
    refused(path)


@pytest.mark.parametrize(
    ("version", "words"),
    [
        (FORMAT_VERSION + 1, "format version .*: update skad"),
        (7, "format version 7 is not 9: it is too old"),
        (None, "no format version"),
    ],
)
def test_other_versions_are_named(stored, path, version, words):
    header, arrays = opened(stored["patch"])
    write(path, header | {"format_version": version}, arrays)
    refused(path, words)


def test_a_damaged_bit_is_found(stored, path):
    rng = np.random.default_rng(0)
    content = stored["patch"]
    n_header = 8 + struct.unpack("<Q", content[:8])[0]
    expected = verdict(content, path)
    for i in range(40):
        damaged = bytearray(content)
        place = rng.integers(*((0, n_header) if i % 2 else (n_header, len(content))))
        damaged[place] ^= 1 << rng.integers(8)
        found = verdict(bytes(damaged), path)
        assert found is None or (found == expected and place < n_header)


def verdict(content, path):
    """Decision value and p-value of an image, or None if the file is refused."""
    path.write_bytes(content)
    try:
        detector = load(path)
    except ValueError as error:
        assert "is not a model file that skad" in str(error)
        return None
    image = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    return detector.decision_function(image).item(), detector.p_value(image).item()


# Headers

NO_NUMBERS = [True, "1", [1.0], {}, float("nan"), float("inf"), 10**400]
NO_SIZES = [
    *(None, 16, "16", {}, [], [16], [16, 16, 16, 16], [0, 16], [-16, 16], [16.0, 16]),
    *([True, 16], [10**400, 16], [2**62, 2**62], [32, 16], [float("nan"), 16]),
]
DEEP = json.loads("[" * 900 + "]" * 900)
WRONG = {  # by the file and the field
    "patch kind": [None, [], "os", "DenseAutoencoderDetector", "x" * 10**4],
    "patch std": [None, *NO_NUMBERS, 0, -1.0, DEEP],
    "patch offset": [None, *NO_NUMBERS, -1e-3],
    "patch mean_map": [None, *NO_NUMBERS, -1.0],
    "patch promised_fpr": [*NO_NUMBERS, 0, 1, 1e-9, 0.9],
    "patch working_size": [*NO_SIZES, [15, 16], DEEP],
    "patch format": [None, [], {}, {"shape": [16, 16]}],
    "patch format.shape": [*NO_SIZES, [255], [256], [16, 16, 3], [8, 32]],
    "patch format.image_shape": [*NO_SIZES, [16, 16], [16, 16, 2**31 - 1], [8, 32, 1]],
    "patch format.kind": [None, "complex", ["float"]],
    "patch provenance": [None, []],
    "patch history": [None, {}, [1], [{}], [{"loss": ""}]],
    "patch parameters": [None, [], {}],
    "patch parameters.memory": ["/cache"],
    "patch parameters.epochs": [None, 0, 1.5, "1", [1], {}, float("nan"), 10**400],
    "patch parameters.patch_size": [None, 1, [], [3, "a"], [[3]], {}, "40", DEEP],
    "patch parameters.image_size": [0, 7, [16], "16", [16.5, 1]],
    "patch parameters.encoder": ["efficientnet-lite0", 1, True, "resnet18"],
    "patch parameters.calibration": [None, "cross", "", 1],
    "patch has_network": [None, 0, False],
    "patch encoder": [1, {}, {"name": "efficientnet-lite0"}],
    "patch is_cross": [None, 1],
    "encoding has_network": [None, True],
    "encoding encoder": [None, [], {}, DEEP],
    "encoding encoder.name": [None, "", "efficientnet-lite2", ["efficientnet-lite0"]],
    "encoding encoder.digest": ["0" * 64, 1, []],
    "encoding encoder.n_neighbours": [None, 0, -1, True, 1.5, 2**31 - 1, 10**400],
    "encoding parameters.encoder": [None, "efficientnet-lite2"],
    "encoding format.image_shape": [[16, 16, 2], [16, 16, 3], [16, 16, 2**31 - 1]],
    "labelled offset": [5.0],
    "labelled promised_fpr": [0.3],
    "labelled labelled_threshold": [[], {}, {"offset": 1}],
    "labelled labelled_threshold.metric": [None, ["f1"], "accuracy"],
    "labelled labelled_threshold.detection_interval": [None, [1], [1, "2"]],
    "dense kind": ["PatchAutoencoderDetector"],
    "dense network_shape": [
        *(None, [16, 24], [16, 24, 3], [16, 20, 1], [0, 24, 1], [16.0, 24, 1]),
        *([10**400, 24, 1], [4096, 4096, 1], [2**31 - 8, 2**31 - 8, 1]),
    ],
    "dense format.image_shape": [[16, 24, 3], [8, 24, 1], [16, 24]],
    "dense parameters.model": ["/etc/passwd", None],
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_value_is_refused_in_little_memory(stored, path, case):
    which, name = case.split()
    header, arrays = opened(stored[which])
    tracemalloc.start()
    try:
        for value in WRONG[case]:
            write(path, put(header, name, value), arrays)
            tracemalloc.reset_peak()
            refused(path)
            assert tracemalloc.get_traced_memory()[1] < 5e7  # bytes
    finally:
        tracemalloc.stop()


def test_giant_images_take_no_memory(stored, path):
    header, arrays = opened(stored["patch"])
    shape = [2**31 - 1, 2**31 - 1]
    header["format"] |= {"shape": shape, "image_shape": [*shape, 1]}
    write(path, header | {"working_size": shape}, arrays)
    refused(path, "the array .* should be")


def test_a_missing_field_is_named(stored, path):
    header, arrays = opened(stored["labelled"])
    for name in header.keys() - {"checksum", "format_version"}:
        write(path, {k: v for k, v in header.items() if k != name}, arrays)
        refused(path, f"{name} is missing in its header")


# Arrays


@pytest.mark.parametrize(
    ("which", "step"), [("patch", 3), ("dense", 3), ("encoding", 40)]
)
def test_missing_surplus_and_misshapen_arrays_are_named(stored, path, which, step):
    header, arrays = opened(stored[which])
    for name in sorted(arrays.keys() - {"roi", "statistics"})[::step]:
        rest = {k: v for k, v in arrays.items() if k != name}
        write(path, header, rest)
        refused(path, f"the array {name} is missing|calibration_scores")
        write(path, header, rest | {name: arrays[name][None]})
        refused(path, f"the array {name} is .* should be")
    for name in ("surplus", "network.surplus", "é", "roi"):
        write(path, header, arrays | {name: np.zeros((16, 3), np.float32)})
        refused(path, f"the array {name} is .* should be")


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("mean", lambda a: a.astype(np.float32), "'F32'.* should be .*'F64'"),
        ("tails", lambda a: a.astype(np.int32), "'I32'.* should be .*'F32'"),
        ("tails", lambda a: 0 * a, "tails has values that do not rise"),
        ("tails", lambda a: a[:, ::-1], "tails has values that do not rise"),
        ("gaussians8.mean", lambda a: a - np.inf, "values that are not finite"),
        ("calibration_scores", lambda a: a[::-1], "sorted"),
        ("calibration_scores", lambda a: -a[::-1], "<= 0"),
        ("roi", lambda a: a * 0.5, "other values than 0 and 1"),
    ],
)
def test_arrays_hold_sensible_numbers(stored, path, name, change, words):
    header, arrays = opened(stored["patch"])
    changed = np.ascontiguousarray(change(arrays[name]))
    write(path, header, arrays | {name: changed})
    refused(path, words)
