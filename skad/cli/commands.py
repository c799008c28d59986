"""What the commands of the command line share."""

import argparse
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from skad.model_io.model_file import load
from skad.threshold.conformal import promise_in_words


def parameters_of(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Return those of the named parameters of a detector that are not left to it."""
    given = {name: getattr(args, name) for name in names}
    for name in ("patch_size", "image_size"):  # one or several numbers
        if given.get(name) is not None and len(given[name]) == 1:
            given[name] = given[name][0]
    return {name: value for name, value in given.items() if value is not None}


def check_not_read(output: Path, inputs: Iterable[Path]) -> None:
    """Refuse to write over one of the files that are read."""
    if os.path.realpath(output) in map(os.path.realpath, inputs):
        raise ValueError(
            f"{output} is one of the files that are read or written otherwise, and "
            "would be replaced; name another file"
        )


def load_with_threshold(model: Path, device: str | None = None) -> Any:
    """Load a detector that gives verdicts."""
    detector = load(model, device)
    if not hasattr(detector, "offset_"):
        raise ValueError(
            "the model has no threshold yet, and so no verdicts: set one from good "
            "images with skad calibrate MODEL FOLDER"
        )
    return detector


def print_threshold(detector: Any) -> None:
    """Print what the threshold of a fitted detector is, and what it promises."""
    print(f"threshold      {detector.pixel_threshold_:.6g}")
    print(f"promise        {promise_in_words(detector)}")
