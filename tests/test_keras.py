"""The old script's files: read to the last bit, or refused with the reason."""

import copy
import json
import os
import pickle
import shutil
import subprocess
import sys
import tracemalloc
import zipfile

import h5py
import numpy as np
import pytest
from old_models import (
    SHAPE,
    description,
    random_weights,
    shapes,
    write_model,
)

from skad.network.keras import Pair, find_pair, read_pair


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """The common path of a pair that no test changes."""
    return write_model(tmp_path_factory.mktemp("stored") / "model")


@pytest.fixture
def stem(stored, tmp_path):
    """The common path of a copy of that pair."""
    for suffix in (".json", ".h5"):
        shutil.copy(f"{stored}{suffix}", tmp_path / f"model{suffix}")
    return tmp_path / "model"


def read(stem):
    return read_pair(find_pair(stem))


def refused(stem, match):
    """See that a pair is refused as it should be, and return the message."""
    with pytest.raises(ValueError, match=match) as raised:
        read(stem)
    message = str(raised.value)
    assert type(raised.value) is ValueError
    assert message.startswith((f"{stem}.json ", f"{stem}.h5 "))
    assert len(message) < 700
    return message


def write_json(stem, told):
    (stem.with_suffix(".json")).write_text(json.dumps(told), encoding="utf-8")


def opened(stem):
    return h5py.File(f"{stem}.h5", "r+")


# --- Pairs that are right ---------------------------------------------------------


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("shape", [SHAPE, (8, 8, 3)])
def test_both_layouts_give_the_weights_that_were_stored(tmp_path, shape, whole):
    model = read(write_model(tmp_path / "model", shape, seed=1, whole=whole))
    assert model.input_shape == shape
    expected = [
        array for pair in random_weights(shape, seed=1).values() for array in pair
    ]
    assert len(model.weights) == len(expected) == 26
    for found, right in zip(model.weights, expected, strict=True):
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, right)


@pytest.mark.parametrize("name", ["model", "model.json", "model.h5"])
@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_any_name_of_a_pair_finds_both_halves(stem, name, kind):
    pair = Pair(stem.with_suffix(".json"), stem.with_suffix(".h5"))
    assert find_pair(kind(stem.with_name(name))) == pair


def test_names_with_dots(tmp_path):
    stem = write_model(tmp_path / "Models.old" / "part.v2")
    assert find_pair(stem) == Pair(
        *(stem.with_name(f"part.v2{s}") for s in (".json", ".h5"))
    )


def test_nothing_there_is_no_pair(tmp_path):
    for name in ("model", "model.json", "model.h5", "model.keras", "x.weights.h5"):
        assert find_pair(tmp_path / name) is None


def test_the_second_model_of_a_session_has_other_names(tmp_path):
    """Keras numbers layers on: conv2d_7 and so on."""
    stem = write_model(tmp_path / "model")
    text = stem.with_suffix(".json").read_text(encoding="utf-8")
    for i in reversed(range(7)):
        old = "conv2d" if i == 0 else f"conv2d_{i}"
        text = text.replace(f'"{old}"', f'"conv2d_{i + 7}"')
        with opened(stem) as file:
            file.move(f"{old}/{old}", f"{old}/conv2d_{i + 7}")
            file.move(old, f"conv2d_{i + 7}")
    stem.with_suffix(".json").write_text(text, encoding="utf-8")
    expected = random_weights()["conv2d_6"][0]
    np.testing.assert_array_equal(read(stem).weights[-2], expected)


def test_older_versions_say_less(stem):
    told = description()
    told["class_name"] = "Model"
    for layer in told["config"]["layers"]:
        for name in ("groups", "interpolation", "dilation_rate"):
            layer["config"].pop(name, None)
    write_json(stem, told)
    assert read(stem).input_shape == SHAPE


def test_nothing_is_run(stem, monkeypatch):
    def fail(*args, **options):
        raise AssertionError("run")

    for module, name in [(pickle, "loads"), (pickle, "load"), (np, "load")]:
        monkeypatch.setattr(module, name, fail)
    monkeypatch.setattr("builtins.eval", fail)
    monkeypatch.setattr("builtins.exec", fail)
    read(stem)


def test_without_h5py_the_error_says_how_to_install_it(stem, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match="pip install h5py"):
        read(stem)


# --- Halves, and Keras 3 ----------------------------------------------------------


@pytest.mark.parametrize("name", ["model", "model.json", "model.h5"])
@pytest.mark.parametrize("half", [".json", ".h5"])
def test_a_half_alone_names_the_other(stem, name, half):
    os.remove(f"{stem}{half}")
    with pytest.raises(ValueError, match="two files of one name") as raised:
        find_pair(stem.with_name(name))
    assert f"{stem}{half} is missing" in str(raised.value)


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
@pytest.mark.parametrize("with_suffix", [True, False])
def test_files_of_keras_3_are_named_as_such(tmp_path, suffix, with_suffix):
    path = tmp_path / f"model{suffix}"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(
        ValueError, match=r"is a file of Keras 3.*TF_USE_LEGACY"
    ) as error:
        find_pair(path if with_suffix else tmp_path / "model")
    assert str(error.value).startswith(str(path))


def test_a_pair_comes_before_a_file_of_keras_3(stem):
    stem.with_suffix(".keras").touch()
    assert find_pair(stem) is not None


def test_a_description_of_keras_3(stem):
    write_json(stem, description() | {"keras_version": "3.4.1"})
    assert ".json is a file of Keras 3" in refused(stem, "Keras 3")


def test_weights_of_keras_3_under_the_old_name(stem):
    with h5py.File(f"{stem}.h5", "w") as file:
        file.create_group("layers/conv2d/vars").create_dataset(
            "0", data=np.zeros(10**6)
        )
        file.create_dataset("filling", data=np.zeros(10**6))
    assert ".h5 is a file of Keras 3" in refused(stem, "Keras 3")


# --- Descriptions of other networks -----------------------------------------------


@pytest.mark.parametrize(
    "text", ["", "no JSON", "\xff", "[" * 10**5, '{"a":' * 10**5, "1" * 5000]
)
def test_what_is_no_json(stem, text):
    stem.with_suffix(".json").write_text(text, encoding="latin-1")
    refused(stem, "is not JSON|does not describe a Keras model")


@pytest.mark.parametrize("told", [None, 1, [], {}, {"config": 1}, {"config": []}])
def test_json_of_other_things(stem, told):
    write_json(stem, told)
    refused(stem, "does not describe a Keras model")


def test_a_description_that_is_too_large_is_not_parsed(stem):
    with stem.with_suffix(".json").open("ab") as file:
        file.truncate(2**30)
    refused(stem, "larger than a description can be")


@pytest.mark.parametrize("kind", ["Lambda", "BatchNormalization", "Functional", "os"])
def test_other_layers_are_refused_by_name(stem, kind):
    told = description()
    told["config"]["layers"][2] |= {"class_name": kind, "name": "mine"}
    told["config"]["layers"][2]["config"]["function"] = ["4wEAAAA=", None, None]
    write_json(stem, told)
    assert f"layer 'mine' is a {kind} layer" in refused(stem, "not the network of the")


def layer(i, **config):
    def change(told):
        told["config"]["layers"][i]["config"] |= config

    return change


def replace(i, **entries):
    def change(told):
        told["config"]["layers"][i] |= entries

    return change


def shape_of_input(*shape):
    return layer(0, batch_input_shape=[None, *shape])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (layer(1, filters=16), "'conv2d' has filters=16 in place of 8"),
        (layer(1, strides=[2, 2]), "strides=.2, 2. in place of .1, 1."),
        (layer(1, kernel_size=[3, 3]), "kernel_size"),
        (layer(1, padding="valid"), "padding='valid' in place of 'same'"),
        (layer(1, activation="relu"), "activation='relu'"),
        (layer(1, activation={"class_name": "f", "config": "x"}), "activation="),
        (layer(1, use_bias=False), "use_bias=False"),
        (layer(1, data_format="channels_first"), "data_format="),
        (layer(2, alpha=0.3), "'leaky_re_lu' has alpha=0.3 in place of 0.1"),
        (layer(2, alpha=None), "alpha=None"),
        (layer(11, units=512), "'dense' has units=512 in place of 1024"),
        (layer(-2, interpolation="bilinear"), "interpolation="),
        (layer(-1, activation="linear"), "in place of 'sigmoid'"),
        (replace(3, class_name="Flatten"), "is a Flatten in place of a MaxPooling2D"),
        (replace(3, inbound_nodes=[]), "does not follow the layer before it"),
        (replace(3, inbound_nodes=[[["conv2d", 0, 0, {}]]]), "does not follow"),
        (replace(0, inbound_nodes=[[["conv2d", 0, 0, {}]]]), "does not follow"),
        (lambda told: told["config"]["layers"].pop(), "33 layers instead of 34"),
        (lambda told: told["config"].pop("layers"), "it is a 'Functional' model"),
        (lambda told: told["config"].update(layers=[]), "it is a"),
        (lambda told: told["config"].update(layers=[1]), "it is a"),
        (lambda told: told.update(class_name="Sequential"), "it is a 'Sequential'"),
        (replace(1, name="a/b"), "it is a"),
        (replace(1, name="."), "it is a"),
        (replace(1, name=7), "it is a"),
        (replace(1, config=None), "it is a"),
        (replace(0, class_name="Dense"), "is no input of images"),
        (layer(0, batch_input_shape=[4, 16, 24, 1]), "is no input of images"),
        (layer(0, batch_input_shape=None), "is no input of images"),
        (shape_of_input(16, 24), "is no input of images"),
        (shape_of_input(16.0, 24, 1), "is no input of images"),
        (shape_of_input(16, None, 1), "is no input of images"),
        (shape_of_input(16, 20, 1), r"shape \(16, 20, 1\); .* multiples of 8"),
        (shape_of_input(16, 24, 2), "channels 1 or 3"),
        (shape_of_input(0, 24, 1), "multiples of 8"),
        (shape_of_input(-16, 24, 1), "multiples of 8"),
        (shape_of_input(8 * 10**300, 24, 1), "multiples of 8 up to 4096"),
        (shape_of_input(2**40, 2**40, 1), "multiples of 8 up to 4096"),
        (shape_of_input(24, 16, 1), "target_shape="),
        (shape_of_input(16, 24, 3), "'conv2d_6' has filters=1 in place of 3"),
    ],
)
def test_other_networks(stem, change, match):
    told = description()
    change(told)
    write_json(stem, told)
    message = refused(stem, match)
    assert "the only one that can be read" in message
    assert "Train a new model" in message


def test_layers_that_share_a_name(stem):
    told = json.loads(json.dumps(description()).replace('"dense_1"', '"dense"'))
    write_json(stem, told)
    refused(stem, "names of their own")


def leaves(value, place=()):
    if isinstance(value, dict | list) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from leaves(inner, (*place, key))
    yield place


def test_random_values_in_the_description(stem):
    """A description is refused, or it is one of the same network."""
    told, right = description(), read(stem)
    places = [place for place in leaves(told) if place]
    values = [None, True, -1, 0, 8, 2**40, 10**400, 0.5, "", "x", "../x", [], [1], {}]
    rng = np.random.default_rng(0)
    n_refused = 0
    for _ in range(300):
        changed = copy.deepcopy(told)
        *parents, last = places[rng.integers(len(places))]
        inner = changed
        for key in parents:
            inner = inner[key]
        inner[last] = values[rng.integers(len(values))]
        write_json(stem, changed)
        try:
            assert read(stem).input_shape == right.input_shape
        except ValueError as error:
            assert str(error).startswith(str(stem))
            n_refused += 1
    assert 150 < n_refused < 300


# --- Weights that do not belong, or would do harm ---------------------------------


def change_weights(stem, name, make):
    """Put something else in the place of a kernel or a group."""
    with opened(stem) as file:
        del file[name]
        make(file, name)


KERNEL = "dense_1/dense_1/kernel:0"
FITTING = np.zeros((1024, 512), np.float32)


def create(**options):
    return lambda file, name: file.create_dataset(name, **options)


def references(kind):
    def make(file, name):
        dataset = file.create_dataset(name, FITTING.shape, dtype=kind)
        bias = file["dense/dense/bias:0"]
        is_region = kind is h5py.regionref_dtype
        dataset[0, 0] = bias.regionref[:3] if is_region else bias.ref

    return make


def virtual(file, name):
    layout = h5py.VirtualLayout(FITTING.shape, np.float32)
    layout[:] = h5py.VirtualSource("other.h5", "x", shape=FITTING.shape)
    file.create_virtual_dataset(name, layout)


def type_in_place_of_array(file, name):
    file[name] = np.dtype(np.float32)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (create(data=FITTING.T), r"shape \(512, 1024\) and type float32, where"),
        (create(data=FITTING[0]), r"shape \(512,\)"),
        (create(data=np.float32(0)), r"shape \(\)"),
        (create(data=h5py.Empty("f4")), "shape None"),
        (create(data=FITTING.astype(np.float64)), "type float64"),
        (create(data=FITTING.astype(">f4")), "type >f4"),
        (create(data=FITTING.astype(np.int32)), "type int32"),
        (create(data=FITTING.astype("S4")), "type .S4"),
        (create(shape=FITTING.shape, dtype=h5py.string_dtype()), "type object"),
        (create(shape=FITTING.shape, dtype=h5py.vlen_dtype("f4")), "type object"),
        (create(shape=FITTING.shape, dtype=[("a", "f4")]), "type ..'a'"),
        (create(shape=(2**40, 2**20), dtype="f4"), "shape .1099511627776"),
        (references(h5py.ref_dtype), "type object"),
        (references(h5py.regionref_dtype), "type object"),
        (create(shape=FITTING.shape, dtype="f4"), "in chunks, compressed, or in"),
        (create(data=FITTING, compression="gzip"), "in chunks, compressed, or in"),
        (create(data=FITTING, chunks=(8, 8)), "in chunks, compressed, or in"),
        (create(data=FITTING, shuffle=True), "in chunks, compressed, or in"),
        (virtual, "in chunks, compressed, or in another file"),
        (type_in_place_of_array, "has no kernel:0 of layer 'dense_1'"),
        (lambda file, name: file.create_group(name), "has no kernel:0"),
        (lambda file, name: None, "has no weights of layer 'dense_1'"),
    ],
)
def test_other_arrays(stem, make, match):
    change_weights(stem, KERNEL, make)
    tracemalloc.start()
    try:
        refused(stem, match)
        assert tracemalloc.get_traced_memory()[1] < 3e7  # bytes; the weights have 4e6
    finally:
        tracemalloc.stop()


def test_arrays_in_another_file_are_not_read(stem, tmp_path):
    (tmp_path / "secret").write_bytes(FITTING.tobytes())
    place = [(str(tmp_path / "secret"), 0, FITTING.nbytes)]
    change_weights(
        stem, KERNEL, create(shape=FITTING.shape, dtype="f4", external=place)
    )
    refused(stem, "in chunks, compressed, or in another file")


@pytest.mark.parametrize("place", ["dense_1", "dense_1/dense_1", KERNEL])
@pytest.mark.parametrize("kind", ["soft", "external"])
def test_links_are_not_followed(stem, tmp_path, monkeypatch, place, kind):
    other = write_model(tmp_path / "other")
    links = {
        "soft": h5py.SoftLink(f"/{place.replace('dense_1', 'dense_2')}"),
        "external": h5py.ExternalLink(f"{other}.h5", f"/{place}"),
    }

    def make(file, name):
        file[name] = links[kind]

    change_weights(stem, place, make)
    refused(stem, r"has a link in place of .* links are not followed")


def test_a_link_in_place_of_all_weights(tmp_path):
    stem = write_model(tmp_path / "model", whole=True)
    other = write_model(tmp_path / "other", whole=True)

    def make(file, name):
        file[name] = h5py.ExternalLink(f"{other}.h5", name)

    change_weights(stem, "model_weights", make)
    with opened(stem) as file:
        file.create_dataset("filling", data=np.zeros(10**6))
    refused(stem, "has a link in place of 'model_weights'")


def test_a_group_that_holds_itself(stem):
    def make(file, name):
        group = file.create_group(name)
        group[name] = group

    change_weights(stem, "dense_1", make)
    refused(stem, "has no weights of layer 'dense_1'")


def test_weights_of_another_size(stem, tmp_path):
    larger = write_model(tmp_path / "larger", (32, 24, 1))
    shutil.copy(f"{larger}.h5", f"{stem}.h5")
    refused(stem, r"kernel:0 of layer 'dense' of shape \(48, 1024\)")
    write_json(stem, description((800, 800, 1)))
    refused(stem, "fewer than the weights of its network have")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(stem, value):
    with opened(stem) as file:
        file["dense/dense/bias:0"][3] = value
    refused(stem, "layer 'dense' that are not finite: its training failed")


def test_every_truncation_is_refused(stem):
    size = os.path.getsize(f"{stem}.h5")
    for length in [*range(0, size, size // 50), size - 1][::-1]:
        os.truncate(f"{stem}.h5", length)
        refused(stem, "it is cut off|cannot be read as HDF5")


@pytest.mark.parametrize("content", [b"\0", b"Dear reader,\n", b"PK\x03\x04"])
def test_other_contents(stem, content):
    stem.with_suffix(".h5").write_bytes(content * (10**7 // len(content)))
    refused(stem, "cannot be read as HDF5")


DAMAGE = """
import sys
import numpy as np
from skad.network.keras import find_pair, read_pair

stem, places = sys.argv[1], eval(sys.argv[2])
pair, rng = find_pair(stem), np.random.default_rng(0)
right = pair.weights.read_bytes()
n_refused = 0
for _ in range(300):
    with pair.weights.open("r+b") as file:
        changed = rng.choice(places, rng.integers(1, 4))
        for place in changed:
            file.seek(place)
            file.write(bytes([rng.integers(256)]))
    try:
        read_pair(pair)
    except ValueError as error:
        assert str(error).startswith(str(pair.weights)), error
        n_refused += 1
    with pair.weights.open("r+b") as file:
        for place in changed:
            file.seek(place)
            file.write(right[place : place + 1])
print(n_refused)
"""


def test_random_damage(stem):
    """Where HDF5 describes itself, between the arrays; in a process of its own."""
    content = np.fromfile(f"{stem}.h5", np.uint8)
    free = np.ones(len(content), bool)
    with h5py.File(f"{stem}.h5") as file:
        for name in shapes():
            for array in ("kernel:0", "bias:0"):
                found = file[f"{name}/{name}/{array}"].id
                start = found.get_offset()
                free[start : start + found.get_storage_size()] = False
    places = np.flatnonzero(free & (content > 0)).tolist()
    done = subprocess.run(
        [sys.executable, "-c", DAMAGE, str(stem), str(places)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert 30 < int(done.stdout) < 300
