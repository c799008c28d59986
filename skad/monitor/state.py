"""The state file of a monitor: what it saw, as JSON, and for which model."""

import hashlib
import json
import math
import os
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skad.common.files import make_room_for, write_atomically

_FORMAT = "skad monitor 1"
Features = Mapping[str, "array[float]"]  # by name; NaN where there was no image


def checksum(calibration_scores: NDArray[np.float64]) -> str:
    """Return what tells models apart: the SHA-256 of their sorted scores."""
    numbers = np.sort(calibration_scores).astype("<f8")
    return hashlib.sha256(numbers.tobytes()).hexdigest()


def write_state(
    path: str | os.PathLike[str],
    model: str,
    parameters: dict[str, Any],
    scores: "array[float]",
    features: Features,
) -> None:
    """Write a state; `model` is its `checksum`."""
    state = {
        "format": _FORMAT,
        "calibration_sha256": model,
        "parameters": parameters,
        "scores": scores.tolist(),
        "features": {
            name: [None if math.isnan(x) else x for x in some]
            for name, some in features.items()
        },
    }
    write_atomically(make_room_for(path), json.dumps(state, allow_nan=False))


def read_state(
    path: str | os.PathLike[str], model: str
) -> tuple[dict[str, Any], "array[float]", Features]:
    """Return parameters, scores and features, unless they are of another model."""
    try:
        state = json.loads(Path(os.path.expanduser(path)).read_bytes())
        if state["format"] != _FORMAT:
            raise ValueError(f"its format is {state['format']!r}")
        made_with, parameters = state["calibration_sha256"], dict(state["parameters"])
        scores = array("d", state["scores"])
        features = {
            name: array("d", [math.nan if x is None else x for x in some])
            for name, some in state["features"].items()
        }
        if any(len(some) != len(scores) for some in features.values()):
            raise ValueError("it has not as many features as scores")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is not the state of a monitor, or was cut off or changed "
            f"({type(error).__name__}: {error}). Move it away to start a new one."
        ) from error
    if made_with != model:
        raise ValueError(
            f"{path} is the state of a monitor of another model: its calibration "
            f"scores have the SHA-256 {made_with}, those of this detector {model}. "
            "Pass that detector, or start a new monitor in another file."
        )
    return parameters, scores, features
