"""The old script's files are read to the last bit, or refused with the reason."""

import json
import os
import pickle
import shutil
import sys

import h5py
import numpy as np
import pytest
from old_models import SHAPE, description, random_weights, write_model

from skad.network.keras import Pair, find_pair, read_network


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


def refused(stem, match):
    with pytest.raises(ValueError, match=match) as raised:
        read_network(stem)
    assert f"{stem}.json and model.h5 are damaged, or not the net" in str(raised.value)
    assert "train a new model" in str(raised.value)


def write_json(stem, told):
    stem.with_suffix(".json").write_text(json.dumps(told), encoding="utf-8")


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("shape", [SHAPE, (8, 8, 3)])
def test_the_weights_are_those_that_were_stored(tmp_path, shape, whole):
    network = read_network(write_model(tmp_path / "m", shape, seed=1, whole=whole))
    assert network.input_shape == shape
    expected = [a for pair in random_weights(shape, seed=1).values() for a in pair]
    for found, right in zip(network.parameters(), expected, strict=True):
        keras = found.detach().numpy()
        if keras.ndim > 1:
            keras = np.moveaxis(keras, (0, 1), (-1, -2))
        np.testing.assert_array_equal(keras, right)


def test_older_versions_say_less(stem):
    told = description() | {"class_name": "Model"}
    for layer in told["config"]["layers"]:
        for name in ("groups", "interpolation", "dilation_rate"):
            layer["config"].pop(name, None)
    write_json(stem, told)
    assert read_network(stem).input_shape == SHAPE


def test_nothing_is_run(stem, monkeypatch):
    def fail(*args, **options):
        raise AssertionError("run")

    for module, name in [(pickle, "loads"), (pickle, "load"), (np, "load")]:
        monkeypatch.setattr(module, name, fail)
    monkeypatch.setattr("builtins.eval", fail)
    monkeypatch.setattr("builtins.exec", fail)
    read_network(stem)


def test_without_h5py_the_error_says_how_to_install_it(stem, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match="pip install h5py"):
        read_network(stem)


# --- Which files ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["part.v2", "part.v2.json", "part.v2.h5"])
def test_any_name_of_a_pair_finds_both(tmp_path, name):
    stem = write_model(tmp_path / "part.v2")
    pair = Pair(*(stem.with_name(f"part.v2{suffix}") for suffix in (".json", ".h5")))
    assert find_pair(stem.with_name(name)) == pair
    assert find_pair(str(stem.with_name(name))) == pair


def test_nothing_there_is_no_pair(tmp_path):
    for name in ("model", "model.json", "model.h5", "model.keras", "x.weights.h5"):
        assert find_pair(tmp_path / name) is None
    with pytest.raises(FileNotFoundError, match=r"looked for its .*\.json and \.h5"):
        read_network(tmp_path / "model")


@pytest.mark.parametrize("name", ["model", "model.json", "model.h5"])
@pytest.mark.parametrize("half", [".json", ".h5"])
def test_a_half_alone_names_the_other(stem, name, half):
    os.remove(f"{stem}{half}")
    with pytest.raises(ValueError, match=f"model{half} is missing"):
        find_pair(stem.with_name(name))


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
@pytest.mark.parametrize("with_suffix", [True, False])
def test_files_of_keras_3_are_named_as_such(tmp_path, suffix, with_suffix):
    path = tmp_path / f"model{suffix}"
    path.touch()
    with pytest.raises(ValueError, match=r"is a file of Keras 3.*TF_USE_LEGACY"):
        find_pair(path if with_suffix else tmp_path / "model")


def test_a_pair_comes_before_a_file_of_keras_3(stem):
    stem.with_suffix(".keras").touch()
    assert find_pair(stem) is not None


# --- Other networks, and damage ---------------------------------------------------


@pytest.mark.parametrize("text", ["", "no JSON", "\xff", "[" * 10**5, "[]", '{"a": 1}'])
def test_what_describes_no_network(stem, text):
    stem.with_suffix(".json").write_text(text, encoding="latin-1")
    refused(stem, "damaged")


def test_a_description_of_keras_3(stem):
    write_json(stem, {"keras_version": "3.4.1", "config": {"layers": []}})
    refused(stem, r"model\.json is a file of Keras 3")


def layer(i, **config):
    def change(layers):
        layers[i]["config"] |= config

    return change


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (layer(1, filters=16), "'?conv2d'? has filters=16 in place of 8"),
        (layer(1, strides=[2, 2]), r"strides=\[2, 2\] in place of \[1, 1\]"),
        (layer(2, alpha=0.3), r"has alpha=0\.3 in place of 0\.1"),
        (layer(11, units=512), "dense has units=512 in place of 1024"),
        (layer(-1, activation="linear"), "in place of 'sigmoid'"),
        (
            lambda layers: layers[3].update(class_name="Lambda"),
            "has class_name='Lambda'",
        ),
        (lambda layers: layers.pop(), "it has 33 layers in place of 34"),
        (lambda layers: layers.clear(), "damaged"),
        (lambda layers: layers[1].pop("config"), "'config'"),
        (layer(0, batch_input_shape=None), "damaged"),
        (layer(0, batch_input_shape=[None, 16, None, 1]), "damaged"),
        (layer(0, batch_input_shape=[None, 16, 20, 1]), r"of shape \(16, 20, 1\)"),
        (layer(0, batch_input_shape=[None, 2**40, 2**40, 1]), "of shape"),
        (layer(0, batch_input_shape=[None, 24, 16, 1]), "target_shape="),
    ],
)
def test_other_networks(stem, change, match):
    told = description()
    change(told["config"]["layers"])
    write_json(stem, told)
    refused(stem, match)


def without_kernel(file):
    del file["dense_1/dense_1/kernel:0"]


def with_other_kernel(file):
    without_kernel(file)
    file["dense_1/dense_1/kernel:0"] = np.zeros((512, 1024), np.float32)


def with_text(file):
    without_kernel(file)
    file["dense_1/dense_1/kernel:0"] = np.full((1024, 512), b"text")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (without_kernel, "kernel:0"),
        (with_other_kernel, r"has shape \(512, 1024\), not \(1024, 512\)"),
        (with_text, "could not convert"),
        (lambda file: file.clear(), "conv2d"),
    ],
)
def test_other_weights(stem, change, match):
    with h5py.File(f"{stem}.h5", "r+") as file:
        change(file)
    refused(stem, match)


@pytest.mark.parametrize("n_bytes", [0, 1000, -1000])
def test_a_file_of_weights_that_was_cut_off(stem, n_bytes):
    path = stem.with_suffix(".h5")
    path.write_bytes(path.read_bytes()[:n_bytes])
    refused(stem, "damaged")
