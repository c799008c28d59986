"""The old script's files are read to the last bit, or refused with the reason."""

import json
import shutil
import sys

import h5py
import numpy as np
import pytest
from old_models import SHAPE, description, random_weights, write_model

from skad.network.keras import find_pair, read_network


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


@pytest.mark.parametrize(("shape", "whole"), [(SHAPE, False), ((8, 8, 3), True)])
def test_the_weights_are_those_that_were_stored(tmp_path, shape, whole):
    network = read_network(write_model(tmp_path / "m", shape, seed=1, whole=whole))
    assert network.input_shape == shape
    expected = [a for pair in random_weights(shape, seed=1).values() for a in pair]
    for found, right in zip(network.parameters(), expected, strict=True):
        keras = found.detach().numpy()
        if keras.ndim > 1:
            keras = np.moveaxis(keras, (0, 1), (-1, -2))
        np.testing.assert_array_equal(keras, right)


def test_without_h5py_the_error_says_how_to_install_it(stem, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match="pip install h5py"):
        read_network(stem)


# --- Which files ------------------------------------------------------------------


def test_any_name_of_a_pair_finds_both(tmp_path):
    stem = write_model(tmp_path / "part.v2")
    pair = tuple(stem.with_name(f"part.v2{suffix}") for suffix in (".json", ".h5"))
    for name in ("part.v2", "part.v2.json", "part.v2.h5"):
        assert find_pair(stem.with_name(name)) == pair
        assert find_pair(str(stem.with_name(name))) == pair


def test_nothing_there_is_no_pair_and_a_half_alone_names_the_other(stem, tmp_path):
    stem.with_suffix(".h5").unlink()
    with pytest.raises(ValueError, match=r"model\.h5 is missing"):
        find_pair(stem)
    stem.with_suffix(".json").unlink()
    for name in ("model", "model.json", "model.h5"):
        assert find_pair(tmp_path / name) is None
    with pytest.raises(FileNotFoundError, match=r"looked for its .*\.json and \.h5"):
        read_network(tmp_path / "model")


# --- Other networks, and damage ---------------------------------------------------


@pytest.mark.parametrize("text", ["\xff", "[" * 10**5, "[]", '{"a": 1}'])
def test_what_describes_no_network(stem, text):
    stem.with_suffix(".json").write_text(text, encoding="latin-1")
    refused(stem, "damaged")
    write_json(stem, {"keras_version": "3.4.1", "config": {"layers": []}})
    refused(stem, r"it is of Keras 3.*TF_USE_LEGACY")


def layer(i, **config):
    def change(layers):
        layers[i]["config"] |= config

    return change


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (layer(2, alpha=0.3), r"alpha=0\.3 in place of 0\.1"),
        (layer(-1, activation="linear"), "in place of 'sigmoid'"),
        (lambda layers: layers[3].update(class_name="Lambda"), "LeakyReLU, Lambda"),
        (layer(0, batch_input_shape=[None, 16, 20, 1]), r"of shape \(16, 20, 1\)"),
        (layer(0, batch_input_shape=[None, 2**40, 2**40, 1]), "of shape"),
        (layer(0, batch_input_shape=[None, 24, 24, 1]), r"has shape .*, not \(36, 10"),
    ],
)
def test_other_networks(stem, change, match):
    told = description()
    change(told["config"]["layers"])
    write_json(stem, told)
    refused(stem, match)


KERNEL = "dense_1/dense_1/kernel:0"


def with_kernel(kernel):
    def change(file):
        del file[KERNEL]
        if kernel is not None:
            file[KERNEL] = kernel

    return change


def with_kernel_elsewhere(file):
    del file[KERNEL]
    external = [(f"{file.filename}.bin", 0, h5py.h5f.UNLIMITED)]
    file.create_dataset(KERNEL, (1024, 512), "f4", external=external)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (with_kernel(None), "kernel:0"),
        (with_kernel(np.zeros((512, 1024))), r"shape \(512, 1024\), not \(1024, 512\)"),
        (with_kernel(h5py.ExternalLink("other.h5", KERNEL)), "lies in another file"),
        (with_kernel_elsewhere, "kernel:0 lies in another file"),
        (lambda file: file.clear(), "conv2d"),
    ],
)
def test_other_weights(stem, stored, change, match):
    shutil.copy(f"{stored}.h5", stem.with_name("other.h5"))
    with h5py.File(f"{stem}.h5", "r+") as file:
        change(file)
    refused(stem, match)
    whole = stem.with_name("other.h5").read_bytes()
    stem.with_suffix(".h5").write_bytes(whole[:-1000])
    refused(stem, "damaged")
