"""Model files of format version 8, whose anomaly maps were made in more steps."""

import numpy as np

from skad.network.model import FEATURE_STRIDES

WARNING = (
    "This model file is of an earlier skad: its scores are others now, and its "
    "threshold does not fit them. Call calibrate with good images that training has "
    "not seen, or fit it again."
)
_N_BRANCHES = len(FEATURE_STRIDES) + 1  # from whose values those of context are taken
_N_KNOTS = 7


def shapes_in_8(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of arrays as they were, from what they are now."""
    shapes = dict(shapes)
    del shapes["scale"]
    return shapes | {
        "expectation.weight": shapes.pop("context.weight"),
        "expectation.bias": shapes.pop("context.bias"),
        "expectation.most": (_N_BRANCHES,),
        "view_lines": (2, _N_KNOTS, 2),
    }


def from_8(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return arrays as they are now; those of steps that are gone are left out."""
    arrays = {k.replace("expectation.", "context."): v for k, v in arrays.items()}
    del arrays["context.most"]
    decoder, joined = arrays.pop("view_lines")[0, -2]  # usual peaks
    return arrays | {"scale": np.array(joined / decoder, np.float32)}
