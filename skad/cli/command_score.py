"""`skad score`: score image files with a learned model."""

import argparse
from typing import Any

from skad.cli.commands import print_threshold
from skad.cli.score_table import TABLE
from skad.cli.scoring import HEAT_MAPS, score_files
from skad.model_io.model_file import load


def run(args: argparse.Namespace) -> int:
    """Run the command, and return its exit code."""
    detector = load(args.model, args.device)
    if args.threshold is not None or args.target_fpr is not None:
        _move(detector, args.threshold, args.target_fpr)
    verdicts = score_files(
        detector,
        args.paths,
        args.output,
        heat_maps=args.heat_maps,
        resume=args.resume,
        recursive=args.recursive,
        verbose=1,
    )
    kinds = ("good", "anomalous", "unreadable")
    print(", ".join(f"{verdicts[kind]} {kind}" for kind in kinds))
    print_threshold(detector)
    print(f"scores         {args.output / TABLE}")
    if args.heat_maps:
        print(f"heat maps      {args.output / HEAT_MAPS}")
    return 1 if verdicts["unreadable"] else 0


def _move(detector: Any, threshold: float | None, target_fpr: float | None) -> None:
    """Set the threshold by hand, or anew from the calibration images of the model."""
    if not hasattr(detector, "offset_"):
        raise ValueError(
            "the model has no threshold yet that could be moved: set one from good "
            "images with skad calibrate MODEL FOLDER"
        )
    detector.set_params(contamination="auto")  # what it had set holds no more
    if threshold is not None:
        detector.offset_ = -threshold
    else:
        detector.set_params(target_fpr=target_fpr)
        detector._retarget()
