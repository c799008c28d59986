"""Model files of format version 8, whose anomaly maps were made in more steps."""

import numpy as np

WARNING = (
    "This model file is of an earlier skad: its scores are others now, and its "
    "threshold does not fit them. Call calibrate with good images that training has "
    "not seen, or fit it again."
)


def shapes_in_8(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of arrays as they were, from what they are now."""
    before = {name.replace("context.", "expectation."): s for name, s in shapes.items()}
    del before["scale"]
    before["expectation.most"] = before["expectation.bias"]
    before["view_lines"] = (2, 7, 2)
    return before


def from_8(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return arrays as they are now; those of steps that are gone are left out."""
    arrays = {k.replace("expectation.", "context."): v for k, v in arrays.items()}
    del arrays["context.most"]
    decoder, joined = arrays.pop("view_lines")[0, -2]  # usual peaks
    return arrays | {"scale": np.array(joined / decoder, np.float32)}
