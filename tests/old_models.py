"""Models of the old script, written as Keras 2 wrote them, and what they compute.

Nothing here is taken from skad: the files and the plain forward pass are the reference.
"""

import json
from collections import Counter
from pathlib import Path

import h5py
import numpy as np

SHAPE = (16, 24, 1)  # height, width, channels


def shapes(shape=SHAPE):
    """Kernel shapes by the layers' names, in their order."""
    height, width, c = shape
    n = height * width // 64 * 4
    units = [n, 1024, 512, 64, 512, 1024, n]
    ends = [(c, 8), (8, 8), (8, 4), (4, 4), (4, 8), (8, 8), (8, c)]
    convs = {named("conv2d", i): (5, 5, *pair) for i, pair in enumerate(ends)}
    dense = {named("dense", i): (units[i], units[i + 1]) for i in range(6)}
    order = [*list(convs)[:3], *dense, *list(convs)[3:]]
    return {name: (convs | dense)[name] for name in order}


def named(kind, i):
    return f"{kind}_{i}" if i else kind


def description(shape=SHAPE):
    """What model.to_json() gave of the layers: class, name and settings."""
    height, width, c = shape
    bottom = [height // 8, width // 8, 4]
    square = {"kernel_size": [5, 5], "strides": [1, 1], "padding": "same"}
    leaky = ("leaky_re_lu", "LeakyReLU", {"alpha": 0.10000000149011612})
    pool = ("max_pooling2d", "MaxPooling2D", {"pool_size": [2, 2], "strides": [2, 2]})
    grow = {"size": [2, 2], "interpolation": "nearest"}
    grow = ("up_sampling2d", "UpSampling2D", grow)

    def conv(filters, activation="linear"):
        return "conv2d", "Conv2D", {**square, "filters": filters} | act(activation)

    def act(activation):
        return {"activation": activation, "use_bias": True}

    def dense(units):
        return "dense", "Dense", {"units": units} | act("linear")

    plan = [("input", "InputLayer", {"batch_input_shape": [None, *shape]})]
    plan += [layer for filters in (8, 8, 4) for layer in (conv(filters), leaky, pool)]
    plan += [("flatten", "Flatten", {"data_format": "channels_last"})]
    units = (1024, 512, 64, 512, 1024, bottom[0] * bottom[1] * 4)
    plan += [layer for n in units for layer in (dense(n), leaky)]
    plan += [("reshape", "Reshape", {"target_shape": bottom})]
    plan += [layer for filters in (4, 8, 8) for layer in (conv(filters), leaky, grow)]
    plan += [conv(c, "sigmoid")]
    layers, counts = [], Counter()
    for stem, kind, config in plan:
        name = named(stem, counts[stem])
        counts[stem] += 1
        config = {"name": name, "dtype": "float32"} | config
        layers.append({"class_name": kind, "config": config, "name": name})
    config = {"name": "model", "layers": layers}
    return {"class_name": "Functional", "config": config, "keras_version": "2.9.0"}


def random_weights(shape=SHAPE, seed=0):
    """Kernel and bias of every layer, by name."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, kernel in shapes(shape).items():
        limit = np.sqrt(6 / (np.prod(kernel[:-2]) * sum(kernel[-2:])))
        found[name] = tuple(
            rng.uniform(-limit, limit, size).astype(np.float32)
            for size in (kernel, kernel[-1:])
        )
    return found


def write_weights(group, weights, layers):
    group.attrs["layer_names"] = layers
    for layer in layers:
        own = group.create_group(layer)
        names = [f"{layer}/kernel:0", f"{layer}/bias:0"] if layer in weights else []
        own.attrs["weight_names"] = names
        for name, array in zip(names, weights.get(layer, ()), strict=True):
            own.create_dataset(name, data=array)


def write_model(stem, shape=SHAPE, *, seed=0, whole=False):
    """Write STEM.json and STEM.h5, of weights alone or of the whole model."""
    stem, told = Path(stem), description(shape)
    stem.parent.mkdir(parents=True, exist_ok=True)
    Path(f"{stem}.json").write_text(json.dumps(told), encoding="utf-8")
    layers = [layer["name"] for layer in told["config"]["layers"]]
    weights = random_weights(shape, seed)
    with h5py.File(f"{stem}.h5", "w") as file:
        if whole:  # as model.save writes it
            file.create_group("optimizer_weights").create_dataset("iter:0", data=7)
            write_weights(file.create_group("model_weights"), weights, layers)
        else:
            write_weights(file, weights, layers)
    return stem


def forward(weights, images):
    """What the network makes of images (n, H, W, C) in [0, 1]: float64."""
    x = np.asarray(images, float)
    layers = [(k.astype(float), b.astype(float)) for k, b in weights.values()]
    for kernel, bias in layers[:3]:
        n, height, width, c = (x := leaky(convolve(x, kernel) + bias)).shape
        x = x.reshape(n, height // 2, 2, width // 2, 2, c).max((2, 4))
    bottom = x.shape
    x = x.reshape(len(x), -1)
    for kernel, bias in layers[3:9]:
        x = leaky(x @ kernel + bias)
    x = x.reshape(bottom)
    for kernel, bias in layers[9:12]:
        x = leaky(convolve(x, kernel) + bias).repeat(2, axis=1).repeat(2, axis=2)
    return 1 / (1 + np.exp(-(convolve(x, layers[12][0]) + layers[12][1])))


def leaky(x):
    return np.where(x > 0, x, 0.1 * x)


def convolve(x, kernel):
    """Cross-correlate (n, H, W, C) with (5, 5, C, D), zeros around: (n, H, W, D)."""
    _, height, width, _ = x.shape
    wide = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))
    return sum(
        wide[:, i : i + height, j : j + width] @ kernel[i, j]
        for i in range(5)
        for j in range(5)
    )
