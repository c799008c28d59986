"""`skad demo`: find planted defects in a photographed surface."""

import argparse
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from skad.cli import demo as _demo
from skad.common.files import make_room_for, write_atomically
from skad.common.locks import locked
from skad.displays import ScoreDisplay


def run(args: argparse.Namespace) -> int:
    """Run the command, and return its exit code."""
    picture = make_room_for(args.output / "demo.png")
    scores = make_room_for(args.output / "scores.csv")
    with locked(args.output):
        return _run(args, picture, scores)


def _run(args: argparse.Namespace, picture: Path, scores: Path) -> int:
    demo = _demo.run(args.surface, epochs=args.epochs, seed=args.seed)
    write_atomically(scores, _demo.scores_csv(demo))
    try:
        histogram = _draw_histogram(demo)
    except ImportError as error:
        print(f"skad: warning: no histogram in the picture: {error}", file=sys.stderr)
        histogram = None
    write_atomically(picture, _demo.picture(demo, histogram))
    print(_demo.report(demo))  # when all is written: who reads this may not wait
    print(f"picture        {picture}\nscores         {scores}")
    return 0


def _draw_histogram(demo: _demo.Demo) -> NDArray[np.uint8]:
    display = ScoreDisplay.from_predictions(
        demo.surfaces.y_test, demo.trial.scores, demo.detector.offset_
    )
    figure: Any = display.figure_
    figure.set_size_inches(9, 3)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=200)
    return np.asarray(Image.open(png).convert("RGB"))  # (h, w, 3)
