"""Model files of format version 8, whose anomaly maps were made in more steps."""

from typing import Any

import numpy as np

WARNING = (
    "This model file is of an earlier skad: its scores are others now, and its "
    "threshold does not fit them. Call calibrate with good images that training has "
    "not seen, or fit it again."
)
# Arrays that are not read any more.
GONE = ("gaussians2.", "gaussians4.", "expectation.most", "view_lines")
_ROWS = [0, 3, 4, 5]  # of six branches, those that are left
_ALL_USUAL = (0.0, 1e30)  # mean and deviation of whole images: none is unusual


def is_of_other_scores(header: dict[str, Any]) -> bool:
    """Tell whether a detector had other scores then; the old script's had not."""
    return header["format_version"] == 8 and "working_size" in header


def add_to_8(header: dict[str, Any]) -> None:
    """Add the fields that there were not, in place."""
    header["is_cross"] = False
    if is_of_other_scores(header):
        header |= {"has_network": True, "encoder": None}
        if isinstance(header.get("parameters"), dict):
            header["parameters"] |= {"encoder": None, "calibration": "split"}


def shapes_in_8(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of arrays as they were, from what they are now."""
    shapes = dict(shapes)
    del shapes["context.bias"], shapes["usual"]
    _, c = shapes.pop("context.weight")
    _, *knots = shapes["tails"]
    old = {"expectation.weight": (5, c), "expectation.bias": (5,)}
    return shapes | old | {"tails": (6, *knots)}


def from_8(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return arrays as they are now; those of steps that are gone are left out."""
    arrays = {k: v for k, v in arrays.items() if not k.startswith(GONE)}
    for name in ("weight", "bias"):  # of all branches but the first
        old = arrays.pop(f"expectation.{name}")
        arrays[f"context.{name}"] = old[np.array(_ROWS[1:]) - 1]
    usual = np.array(_ALL_USUAL, np.float32)
    return arrays | {"tails": arrays["tails"][_ROWS], "usual": usual}
