"""Read the network of the old script, model.json and model.h5, without Keras.

The pair is data: the description is compared, word for word, with the one network that
the old script made, and of the weights only arrays of the shapes and the plain layout
that Keras 2 wrote for it are read. Nothing in either file is run or followed.
"""

import json
import math
import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from reprlib import repr as short_repr
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skad.images.decoding import PathLike

OLD_SUFFIXES = (".json", ".h5", ".keras")  # of files that are none of skad's

_HALVES = (".json", ".h5")
_KERAS_3 = (".keras", ".weights.h5")
_LARGEST_JSON = 2**20  # bytes; the real ones have 17,000
_LARGEST_SIDE = 4096  # of an image, in pixels
_DEEPEST = 8  # groups between a layer and its weights; Keras makes one or two
_OTHER_WAY = 'Train a new model: skad.AD("AD1"), then load_data and train.'
_FROM_KERAS_3 = (
    "is a file of Keras 3, and only what Keras 2 stored can be read: model.json with "
    "model.h5. The old script makes those with the package tf_keras and the variable "
    f"TF_USE_LEGACY_KERAS=1. Or do without: {_OTHER_WAY}"
)


class Pair(NamedTuple):
    """The two files of a model of the old script."""

    description: Path  # model.json
    weights: Path  # model.h5


class OldModel(NamedTuple):
    """What the two files hold."""

    input_shape: tuple[int, int, int]  # (H, W, C)
    weights: list[NDArray[np.float32]]  # kernel, bias, kernel, …, as Keras lays them


def find_pair(path: PathLike) -> Pair | None:
    """Find the two files that a path means.

    Parameters
    ----------
    path : path
        One of the two, or their common name, as "Models/model".

    Returns
    -------
    pair : Pair or None
        None where there is neither.

    Raises
    ------
    ValueError
        If only one is there, or what is there is of Keras 3.
    """
    stem = os.fspath(path)
    if stem.endswith(_HALVES) and not stem.endswith(_KERAS_3):
        stem = os.path.splitext(stem)[0]
    pair = Pair(*(Path(stem + suffix) for suffix in _HALVES))
    there = [file for file in pair if file.is_file()]
    if len(there) == 2:
        return pair
    for file in (Path(stem + suffix) for suffix in ("", *_KERAS_3)):
        if file.name.endswith(_KERAS_3) and file.is_file():
            raise ValueError(f"{file} {_FROM_KERAS_3}")
    if not there:
        return None
    (missing,) = set(pair) - set(there)
    raise ValueError(
        f"A model of the old script is two files of one name; {there[0]} is there and "
        f"{missing} is missing. Copy that, too."
    )


def read_pair(pair: Pair) -> OldModel:
    """Read the old script's network from its two files.

    Parameters
    ----------
    pair : Pair

    Returns
    -------
    model : OldModel

    Raises
    ------
    ImportError
        If h5py is not installed.
    ValueError
        If a file cannot be read, describes another network, or holds other weights
        than those of this network.
    """
    try:
        names, input_shape = _check_description(_parse(pair.description))
    except _Unfit as error:
        raise ValueError(f"{pair.description} {error}") from None
    try:
        return OldModel(input_shape, _read_weights(pair.weights, names, input_shape))
    except _Unfit as error:
        raise ValueError(f"{pair.weights} {error}") from None


class _Unfit(Exception):
    """What is wrong with a file, as a sentence that its name begins."""


# --- The description --------------------------------------------------------------


def _parse(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _LARGEST_JSON:
        raise _Unfit(f"is larger than a description can be. {_OTHER_WAY}")
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise _Unfit(f"is not JSON: {short_repr(str(error))}. Copy it anew.") from None
    if not (isinstance(found, dict) and isinstance(found.get("config"), dict)):
        raise _Unfit(f"does not describe a Keras model. {_OTHER_WAY}")
    if str(found.get("keras_version")).startswith("3"):
        raise _Unfit(_FROM_KERAS_3)
    return found


def _check_description(
    found: dict[str, Any],
) -> tuple[list[str], tuple[int, int, int]]:
    """Return the names of the layers with weights, and the input's shape."""
    layers = found["config"].get("layers")
    if found.get("class_name") not in ("Functional", "Model") or not (
        isinstance(layers, list) and layers and all(map(_is_layer, layers))
    ):
        raise _another(f"it is a {short_repr(found.get('class_name'))} model")
    shape = _input_shape(layers[0])
    expected = _layers(shape)
    known = {kind for kind, _ in expected}
    for layer in layers:
        if layer["class_name"] not in known:
            raise _another(f"{_called(layer)} is a {_kind(layer)} layer")
    if len(layers) != len(expected):
        raise _another(f"it has {len(layers)} layers instead of {len(expected)}")
    before = None
    for i, (layer, (kind, settings)) in enumerate(zip(layers, expected, strict=True)):
        if layer["class_name"] != kind:
            raise _another(f"{_called(layer)} is a {_kind(layer)} in place of a {kind}")
        for name, right in settings.items():
            value = layer["config"].get(name, right)  # older versions name fewer
            if not _is_same(value, right):
                raise _another(
                    f"{_called(layer)} has {name}={short_repr(value)} in place of "
                    f"{right!r}"
                )
        nodes: list[Any] = [] if i == 0 else [[[before, 0, 0, {}]]]
        if layer.get("inbound_nodes") != nodes:
            raise _another(f"{_called(layer)} does not follow the layer before it")
        before = layer["name"]
    names = [layer["name"] for layer in layers if "use_bias" in layer["config"]]
    if len(set(names)) != len(_kernel_shapes(shape)):
        raise _another("its layers do not have names of their own")
    return names, shape


def _another(why: str) -> _Unfit:
    return _Unfit(
        f"is not the network of the old script, the only one that can be read: {why}. "
        f"{_OTHER_WAY}"
    )


def _is_layer(layer: Any) -> bool:
    """Tell whether it has a class, settings, and a name that leads nowhere else."""
    return (
        isinstance(layer, dict)
        and isinstance(layer.get("class_name"), str)
        and isinstance(layer.get("config"), dict)
        and isinstance(layer.get("name"), str)
        and layer["name"] not in ("", ".", "..")
        and layer["name"].isprintable()
        and "/" not in layer["name"]
    )


def _called(layer: dict[str, Any]) -> str:
    return f"layer {short_repr(layer['name'])}"


def _kind(layer: dict[str, Any]) -> str:
    return short_repr(layer["class_name"]).strip("'")


def _input_shape(layer: dict[str, Any]) -> tuple[int, int, int]:
    """Return (H, W, C) of an input layer."""
    shape = layer["config"].get("batch_input_shape")
    if layer["class_name"] != "InputLayer" or not (
        isinstance(shape, list)
        and len(shape) == 4
        and shape[0] is None
        and all(type(n) is int for n in shape[1:])
    ):
        raise _another(
            f"{_called(layer)}, a {_kind(layer)}, is no input of images (H, W, C)"
        )
    if not is_input_shape(shape[1:]):
        raise _another(
            f"it takes images of shape {short_repr(tuple(shape[1:]))}; height and "
            f"width must be multiples of 8 up to {_LARGEST_SIDE}, channels 1 or 3"
        )
    height, width, channels = shape[1:]
    return height, width, channels


def is_input_shape(shape: Sequence[int]) -> bool:
    """Tell whether the old script's network can take images (H, W, C)."""
    height, width, channels = shape
    sides_fit = all(s % 8 == 0 and 0 < s <= _LARGEST_SIDE for s in (height, width))
    return sides_fit and channels in (1, 3)


def _is_same(value: Any, right: Any) -> bool:
    if isinstance(right, float):  # 0.1 was stored as 0.10000000149011612
        return type(value) is float and math.isclose(value, right, rel_tol=1e-6)
    return type(value) is type(right) and value == right


def _layers(input_shape: tuple[int, int, int]) -> list[tuple[str, dict[str, Any]]]:
    """Classes and settings of the old script's layers, in their order."""
    height, width, channels = input_shape
    bottom = [height // 8, width // 8, 4]
    leaky = ("LeakyReLU", {"alpha": 0.1})
    pool = ("MaxPooling2D", {"pool_size": [2, 2], "strides": [2, 2]})
    grow = ("UpSampling2D", {"size": [2, 2], "interpolation": "nearest"})
    layers: list[tuple[str, dict[str, Any]]] = [("InputLayer", {})]
    for filters in (8, 8, 4):
        layers += [_conv(filters), leaky, pool]
    layers.append(("Flatten", {}))
    for units in (1024, 512, 64, 512, 1024, math.prod(bottom)):
        dense = {"units": units, "activation": "linear", "use_bias": True}
        layers += [("Dense", dense), leaky]
    layers.append(("Reshape", {"target_shape": bottom}))
    for filters in (4, 8, 8):
        layers += [_conv(filters), leaky, grow]
    layers.append(_conv(channels, "sigmoid"))
    order = {"data_format": "channels_last"}  # where a layer has one
    return [(kind, settings | order) for kind, settings in layers]


def _conv(filters: int, activation: str = "linear") -> tuple[str, dict[str, Any]]:
    return "Conv2D", {
        "filters": filters,
        "kernel_size": [5, 5],
        "strides": [1, 1],
        "dilation_rate": [1, 1],
        "groups": 1,
        "padding": "same",
        "activation": activation,
        "use_bias": True,
    }


def _kernel_shapes(input_shape: tuple[int, int, int]) -> list[tuple[int, ...]]:
    """Shapes of the kernels in their order: (rows, columns, in, out) or (in, out)."""
    height, width, c = input_shape
    n = height // 8 * (width // 8) * 4
    units = (n, 1024, 512, 64, 512, 1024, n)
    return [
        *((5, 5, *ends) for ends in ((c, 8), (8, 8), (8, 4))),
        *pairwise(units),
        *((5, 5, *ends) for ends in ((4, 4), (4, 8), (8, 8), (8, c))),
    ]


# --- The weights ------------------------------------------------------------------


def _read_weights(
    path: Path, names: list[str], input_shape: tuple[int, int, int]
) -> list[NDArray[np.float32]]:
    """Read kernel and bias of every layer that is named."""
    h5py = _h5py()
    shapes = _kernel_shapes(input_shape)
    n_bytes = 4 * sum(math.prod(shape) + shape[-1] for shape in shapes)
    if path.stat().st_size < n_bytes:  # so that no more is allocated than is there
        raise _Unfit(
            f"has {path.stat().st_size} bytes, fewer than the weights of its network "
            f"have ({n_bytes}): it is cut off, or of another model. Copy both files."
        )
    try:
        with h5py.File(path, "r") as file:
            root = _child(file, "model_weights") or file
            weights = []
            for name, shape in zip(names, shapes, strict=True):
                group = _group_of_weights(root, name)
                weights.append(_read_array(group, name, "kernel:0", shape))
                weights.append(_read_array(group, name, "bias:0", shape[-1:]))
    except (OSError, RuntimeError, LookupError, TypeError, ValueError) as error:
        raise _Unfit(
            f"cannot be read as HDF5: {short_repr(str(error))}. It is damaged, or no "
            "file of weights. Copy it anew."
        ) from None
    for name, array in zip(np.repeat(names, 2), weights, strict=True):
        if not np.isfinite(array).all():
            raise _Unfit(
                f"has weights of layer {short_repr(str(name))} that are not finite: "
                f"its training failed. {_OTHER_WAY}"
            )
    return weights


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            "Reading a model of the old script needs h5py, which is not installed. "
            "Install it: pip install h5py."
        ) from error
    return h5py


def _child(group: Any, name: str | bytes) -> Any:
    """Return what lies in a group, None where nothing does; follow no link."""
    from h5py import h5l

    raw = name if isinstance(name, bytes) else name.encode()
    if not group.id.links.exists(raw):
        return None
    if group.id.links.get_info(raw).type != h5l.TYPE_HARD:
        raise _Unfit(
            f"has a link in place of {short_repr(name)}, and links are not followed. "
            "Keras writes none: take the file that it wrote."
        )
    return group[name]


def _group_of_weights(root: Any, layer: str) -> Any:
    """Return the group with the kernel; a group lies in its layer's, of any name."""
    from h5py import Group

    group = _child(root, layer)
    if group is None and _child(root, "layers") is not None:
        raise _Unfit(_FROM_KERAS_3)
    for _ in range(_DEEPEST):
        if not isinstance(group, Group):
            break
        if group.id.links.exists(b"kernel:0"):
            return group
        group = _child(group, next(iter(group))) if len(group) == 1 else None
    raise _Unfit(
        f"has no weights of layer {short_repr(layer)}: it belongs to another model "
        "than the .json beside it. Copy both files of one training."
    )


def _read_array(
    group: Any, layer: str, name: str, shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Read an array after its type, its shape and how it is stored were checked."""
    from h5py import Dataset, h5d

    found = _child(group, name)
    where = f"{name} of layer {short_repr(layer)}"
    if not isinstance(found, Dataset):
        raise _Unfit(f"has no {where}. Copy both files of one training.")
    if found.shape != shape or found.dtype != np.float32:
        raise _Unfit(
            f"has {where} of shape {short_repr(found.shape)} and type {found.dtype}, "
            f"where {shape} and float32 belong. Copy both files of one training."
        )
    stored = found.id.get_create_plist()
    plain = stored.get_layout() == h5d.CONTIGUOUS and stored.get_external_count() == 0
    if not plain or found.id.get_storage_size() != 4 * math.prod(shape):
        raise _Unfit(
            f"has {where} stored in chunks, compressed, or in another file, which "
            "Keras never does: take the file that Keras wrote."
        )
    return np.asarray(found[()], dtype=np.float32)
