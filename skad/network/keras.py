"""Read the network of the old script, model.json and model.h5, without Keras.

The pair is data: the description is compared with the one network that the old script
made, and the weights are read as arrays.
"""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from skad.images.decoding import PathLike
from skad.network.dense import DenseAutoencoder, from_state, is_input_shape

OLD_SUFFIXES = (".json", ".h5", ".keras")  # of files that are none of skad's

# The layers, and their settings; the numbers of filters and units follow from the
# weights, and older versions of Keras name fewer settings.
_LAYERS = [
    "InputLayer",
    *3 * ["Conv2D", "LeakyReLU", "MaxPooling2D"],
    "Flatten",
    *6 * ["Dense", "LeakyReLU"],
    "Reshape",
    *3 * ["Conv2D", "LeakyReLU", "UpSampling2D"],
    "Conv2D",
]
_CONV = {"kernel_size": [5, 5], "strides": [1, 1], "padding": "same"}
_SETTINGS: dict[str, dict[str, Any]] = {
    "Conv2D": {**_CONV, "activation": "linear"},
    "LeakyReLU": {"alpha": float(np.float32(0.1))},
    "MaxPooling2D": {"pool_size": [2, 2], "strides": [2, 2]},
    "Dense": {"activation": "linear"},
    "UpSampling2D": {"size": [2, 2], "interpolation": "nearest"},
}
_LAST_SETTINGS = {**_CONV, "activation": "sigmoid"}


class Pair(NamedTuple):
    """The two files of a model of the old script."""

    description: Path  # model.json
    weights: Path  # model.h5


def find_pair(path: PathLike) -> Pair | None:
    """Find the files that a path means, one of the two or their common name.

    Returns None where there is neither; raises a ValueError if only one is there.
    """
    stem = os.fspath(path)
    if stem.endswith((".json", ".h5")):
        stem = os.path.splitext(stem)[0]
    pair = Pair(Path(f"{stem}.json"), Path(f"{stem}.h5"))
    missing = [file for file in pair if not file.is_file()]
    if len(missing) == 1:
        raise ValueError(
            f"A model of the old script is two files of one name, .json and .h5; "
            f"{missing[0]} is missing. Copy that, too."
        )
    return None if missing else pair


def read_network(path: PathLike) -> DenseAutoencoder:
    """Read the network from the pair of files that a path means.

    Raises a FileNotFoundError if there is nothing, an ImportError without h5py, and a
    ValueError if the files cannot be read or hold another network.
    """
    pair = find_pair(path)
    if pair is None:
        raise FileNotFoundError(
            f"No model of the old script at {path}: looked for its two files, .json "
            'and .h5. Name one of them, or both as in "Models/model".'
        )
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            "Reading a model of the old script needs h5py, which is not installed. "
            "Install it: pip install h5py."
        ) from error
    try:
        description = json.loads(pair.description.read_bytes())
        if str(description.get("keras_version")).startswith("3"):
            raise ValueError(
                "it is of Keras 3. The old script writes files of Keras 2 with the "
                "package tf_keras and the variable TF_USE_LEGACY_KERAS=1"
            )
        input_shape, layers = _check(description["config"]["layers"])
        with h5py.File(pair.weights) as file:
            state = _read_state(file.get("model_weights", file), layers, input_shape)
    except Exception as error:  # of many kinds: the files may hold anything
        raise ValueError(
            f"{pair.description} and {pair.weights.name} are damaged, or not the "
            f"network of the old script, the only one that can be read: {error}. Copy "
            'both files of one training, or train a new model: skad.AD("AD1"), then '
            "load_data and train."
        ) from error
    return from_state(input_shape, state)


def _check(layers: list[dict[str, Any]]) -> tuple[tuple[int, int, int], list[str]]:
    """Return the input's shape, and the names of the layers that have weights."""
    height, width, n_channels = layers[0]["config"]["batch_input_shape"][1:]
    input_shape = (height, width, n_channels)
    if not is_input_shape(input_shape):
        raise ValueError(f"it takes images of shape {input_shape}")
    names, classes = (
        [layer[key] for layer in layers] for key in ("name", "class_name")
    )
    if classes != _LAYERS:
        raise ValueError(f"its layers are {', '.join(classes)}")
    for i, layer in enumerate(layers):
        is_last = i == len(layers) - 1
        settings = _LAST_SETTINGS if is_last else _SETTINGS.get(classes[i], {})
        for name, value in settings.items():
            found = layer["config"].get(name, value)
            if found != value:
                raise ValueError(
                    f"layer {names[i]} has {name}={found!r} in place of {value!r}"
                )
    with_weights = ("Conv2D", "Dense")
    pairs = zip(names, classes, strict=True)
    return input_shape, [name for name, kind in pairs if kind in with_weights]


def _read_state(
    group: Any, layers: list[str], input_shape: tuple[int, int, int]
) -> dict[str, Tensor]:
    """Read kernel and bias of every layer from an HDF5 group, as torch names them."""
    expected = DenseAutoencoder(input_shape).state_dict()
    datasets = [
        group[layer][name]
        for layer in layers
        for name in group[layer].attrs["weight_names"]  # kernel, then bias
    ]
    state = {}
    for (name, weights), dataset in zip(expected.items(), datasets, strict=True):
        if dataset.file != group.file or dataset.external or dataset.is_virtual:
            raise ValueError(f"{dataset.name} lies in another file")
        shape = tuple(weights.shape)
        if weights.ndim > 1:  # Keras: (rows, columns, in, out) or (in, out)
            shape = (*shape[2:], shape[1], shape[0])
        if dataset.shape != shape:
            raise ValueError(f"{dataset.name} has shape {dataset.shape}, not {shape}")
        array = torch.from_numpy(np.asarray(dataset[()], np.float32))
        if weights.ndim > 1:
            array = array.movedim((-1, -2), (0, 1))
        state[name] = array.contiguous()
    return state
