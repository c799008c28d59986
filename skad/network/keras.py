"""Read the network of the old script, model.json and model.h5, without Keras.

The pair is data: the description is compared with the one network that the old script
made, and the weights are read as arrays.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skad.images.decoding import PathLike
from skad.network.dense import DenseAutoencoder, is_input_shape

OLD_SUFFIXES = (".json", ".h5", ".keras")  # of files that are none of skad's

# The layers, and the settings that do not show in the shapes of the weights; older
# versions of Keras name fewer.
_LAYERS = [
    "InputLayer",
    *3 * ["Conv2D", "LeakyReLU", "MaxPooling2D"],
    "Flatten",
    *6 * ["Dense", "LeakyReLU"],
    "Reshape",
    *3 * ["Conv2D", "LeakyReLU", "UpSampling2D"],
    "Conv2D",
]
_SETTINGS = {"alpha": float(np.float32(0.1)), "interpolation": "nearest"}


def find_pair(path: PathLike) -> tuple[Path, Path] | None:
    """Find model.json and model.h5 by the path of one or by their common name.

    Returns None where there is neither; raises a ValueError if only one is there.
    """
    stem = os.fspath(path)
    if stem.endswith((".json", ".h5")):
        stem = os.path.splitext(stem)[0]
    pair = Path(f"{stem}.json"), Path(f"{stem}.h5")
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
        description = json.loads(pair[0].read_bytes())
        if str(description.get("keras_version")).startswith("3"):
            raise ValueError(
                "it is of Keras 3. The old script writes files of Keras 2 with the "
                "package tf_keras and the variable TF_USE_LEGACY_KERAS=1"
            )
        input_shape, layers = _check(description["config"]["layers"])
        with h5py.File(pair[1]) as file:
            state = _read_state(file.get("model_weights", file), layers, input_shape)
    except Exception as error:  # of many kinds: the files may hold anything
        raise ValueError(
            f"{pair[0]} and {pair[1].name} are damaged, or not the "
            f"network of the old script, the only one that can be read: {error}. Copy "
            'both files of one training, or train a new model: skad.AD("AD1"), then '
            "load_data and train."
        ) from error
    network = DenseAutoencoder(input_shape)
    network.load_state_dict(state, assign=True)
    return network.eval()


def _check(layers: list[dict[str, Any]]) -> tuple[tuple[int, int, int], list[str]]:
    """Return the input's shape, and the names of the layers that have weights."""
    height, width, n_channels = layers[0]["config"]["batch_input_shape"][1:]
    input_shape = (height, width, n_channels)
    if not is_input_shape(input_shape):
        raise ValueError(f"it takes images of shape {input_shape}")
    classes = [layer["class_name"] for layer in layers]
    if classes != _LAYERS:
        raise ValueError(f"its layers are {', '.join(classes)}")
    for layer in layers:
        activation = "sigmoid" if layer is layers[-1] else "linear"
        for name, value in {**_SETTINGS, "activation": activation}.items():
            found = layer["config"].get(name, value)
            if found != value:
                raise ValueError(
                    f"layer {layer['name']} has {name}={found!r} in place of {value!r}"
                )
    with_weights = ("Conv2D", "Dense")
    names = [layer["name"] for layer in layers if layer["class_name"] in with_weights]
    return input_shape, names


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
