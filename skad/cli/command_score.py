"""`skad score`: score image files with a learned model."""

import argparse
from functools import partial

from skad.cli.commands import print_threshold
from skad.detectors.files import inspect_files
from skad.inspection.score_files import HEAT_MAPS, TABLE, score_files
from skad.model_io.model_file import load


def run(args: argparse.Namespace) -> int:
    """Run the command, and return its exit code."""
    detector = load(args.model, args.device)
    if not hasattr(detector, "offset_"):
        raise ValueError(
            "the model has no threshold yet, and so no verdicts: set one from good "
            "images with skad calibrate MODEL FOLDER"
        )
    if args.threshold is not None:
        detector.set_params(contamination="auto").offset_ = -args.threshold
    elif args.target_fpr is not None:
        detector.retarget(args.target_fpr)
    verdicts = score_files(
        partial(inspect_files, detector),
        detector.pixel_threshold_,
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
