"""`skad score`: score image files with a learned model."""

import argparse

from skad._persistence import load
from skad._score_table import TABLE
from skad._scoring import HEAT_MAPS, score_files


def run(args: argparse.Namespace) -> int:
    """Run the command, and return its exit code."""
    verdicts = score_files(
        load(args.model),
        args.paths,
        args.output,
        heat_maps=args.heat_maps,
        resume=args.resume,
        verbose=1,
    )
    kinds = ("good", "anomalous", "unreadable")
    print(", ".join(f"{verdicts[kind]} {kind}" for kind in kinds))
    print(f"scores         {args.output / TABLE}")
    if args.heat_maps:
        print(f"heat maps      {args.output / HEAT_MAPS}")
    return 1 if verdicts["unreadable"] else 0
