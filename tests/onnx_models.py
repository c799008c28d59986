"""Tiny graphs in the format of exported files: the map is |image - 100| / 10."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from skad.runtime.metadata import Metadata, channel_order_of, digest_of

SCORES = tuple(np.linspace(-2.5, -1, 19))
METADATA = Metadata(
    skad_version="0.2",
    image_shape=(32, 48),
    dtype="uint8",
    any_size=False,
    threshold=2.5,
    calibration_scores=SCORES,
    promised_fpr=0.05,
    is_cross=False,
    promise="at most 5 % of good images are flagged",
    roi=None,
    channel_order="gray",
    provenance={"fitted_at": "2026-01-01T00:00:00+00:00", "n_images": 60},
    digest=64 * "0",
    parity={"largest_difference": 1e-6},
)


def model_of(scale: float = 10, **fields: Any) -> Any:
    """Make a model whose metadata have these fields, and the digest of its graph."""
    from onnx import TensorProto, helper, numpy_helper

    shape = fields.get("image_shape", METADATA.image_shape)
    metadata = replace(METADATA, channel_order=channel_order_of(shape), **fields)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(metadata.dtype))
    constants = {
        "mean": np.array(100, np.float32),
        "scale": np.array(scale, np.float32),
        "axes": np.array([1, 2]),
        "channel": np.array([3]),
    }
    steps = [
        helper.make_node("Cast", ["images"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["number", "mean"], ["centred"]),
        helper.make_node("Abs", ["centred"], ["size"]),
        helper.make_node("Div", ["size", "scale"], ["pixels"]),
    ]
    if len(shape) == 3:
        last = helper.make_node(
            "ReduceMax", ["pixels", "channel"], ["anomaly_map"], keepdims=0
        )
    else:
        last = helper.make_node("Identity", ["pixels"], ["anomaly_map"])
    peak = helper.make_node("ReduceMax", ["anomaly_map", "axes"], ["peak"], keepdims=0)
    graph = helper.make_graph(
        [*steps, last, peak],
        "map",
        [helper.make_tensor_value_info("images", kind, ["n", *shape])],
        [
            helper.make_tensor_value_info("anomaly_map", 1, ["n", *shape[:2]]),
            helper.make_tensor_value_info("peak", 1, ["n"]),
        ],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    metadata = replace(metadata, digest=digest_of(model.SerializeToString()))
    model.metadata_props.add(key="skad", value=metadata.to_json())
    return model


def map_of(image: np.ndarray) -> np.ndarray:
    """Return the map (H, W) that the graph gives for an image of its size."""
    pixels = np.abs(image.astype(np.float32) - 100) / np.float32(10)
    return pixels if image.ndim == 2 else pixels.max(axis=2)


if __name__ == "__main__":  # python THIS_FILE FILE
    Path(sys.argv[1]).write_bytes(model_of().SerializeToString())
