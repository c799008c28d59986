"""`skad score`: score image files with a learned model."""

import argparse
import logging
from functools import partial
from typing import Any

from skad.cli.commands import load_with_threshold, print_threshold
from skad.cli.monitoring import monitored, watched
from skad.common.warnings import warn
from skad.detectors.files import inspect_files
from skad.inspection.score_files import (
    HEAT_MAPS,
    TABLE,
    counts_in_words,
    mark_selected,
    score_files,
)
from skad.threshold.selection import select


def run(args: argparse.Namespace) -> int:
    """Run the command, and return its exit code."""
    detector = load_with_threshold(args.model, args.device)
    if args.threshold is not None:
        detector.set_params(contamination="auto").offset_ = -args.threshold
    elif args.target_fpr is not None:
        detector.retarget(args.target_fpr)
    if args.scheduler is not None:
        return _run_on_cluster(args, detector)
    heat_maps = args.heat_maps is not False
    _check_fdr(args.fdr, detector)
    with monitored(args.monitor, detector, args.baseline) as monitor:
        verdicts = score_files(
            watched(partial(inspect_files, detector), monitor),
            detector.pixel_threshold_,
            args.paths,
            args.output,
            heat_maps=heat_maps,
            resume=args.resume,
            recursive=args.recursive,
            verbose=1,
        )
    print(counts_in_words(verdicts))
    print_threshold(detector)
    if args.fdr is not None:
        n = mark_selected(args.output, args.fdr, len(detector.calibration_scores_))
        promise = f", of which at most {100 * args.fdr:.3g} % are good on average"
        has_promise = n and not detector.is_cross_fitted_
        print(f"selected       {n}{promise if has_promise else ''}")
    if monitor is not None:
        print(f"monitor        {monitor.status()}")
    print(f"scores         {args.output / TABLE}")
    if heat_maps:
        print(f"heat maps      {args.output / HEAT_MAPS}")
    return 1 if verdicts["unreadable"] else 0


def _run_on_cluster(args: argparse.Namespace, detector: Any) -> int:
    """Have a Dask cluster score; its results are a data set, which always resumes."""
    for name in ("fdr", "monitor", "baseline"):  # these need one table, in order
        if getattr(args, name) is not None:
            raise ValueError(f"--{name} does not go with --scheduler: leave one out")
    from skad.distributed import DATA_SET, connected, score

    # It logs tracebacks where the scheduler is lost; the error says so in one line.
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL + 1)
    with connected(args.scheduler) as client:
        verdicts = score(
            detector,
            args.paths,
            args.output,
            client,
            heat_maps=bool(args.heat_maps),
            recursive=args.recursive,
            verbose=1,
        )
    print(counts_in_words(verdicts))
    print_threshold(detector)
    print(f"scores         {args.output / DATA_SET}")
    if args.heat_maps:
        print(f"heat maps      {args.output / HEAT_MAPS}")
    return 1 if verdicts["unreadable"] else 0


def _check_fdr(fdr: float | None, detector: Any) -> None:
    """Refuse a wrong rate before anything is scored; warn of one without a promise."""
    if fdr is None:
        return
    select([], fdr)
    if detector.is_cross_fitted_:
        warn(
            f"fdr={fdr:g} is no promise: the p-values come from cross-fitted scores. "
            "Calibrate with good images that were not trained on."
        )
