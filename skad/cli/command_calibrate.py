"""`skad calibrate`: set the threshold of a model anew."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from skad.cli.commands import check_not_read, print_threshold
from skad.cli.label_table import read_labels
from skad.common.files import make_room_for
from skad.common.locks import locked
from skad.common.warnings import warn
from skad.images.as_fitted import folder_as_fitted
from skad.images.finding import find_images
from skad.model_io.model_file import load, save


def run(args: argparse.Namespace) -> int:
    """Run the command, and return its exit code."""
    _check(args)
    output = args.model if args.output is None else args.output
    files = find_images(args.folder, recursive=args.recursive)
    labels = None if args.labels is None else _labels_of(files, args)
    files = files if labels is None else list(labels)
    check_not_read(output, [*files, *filter(None, [args.labels])])
    make_room_for(output)
    with locked(output):
        detector = load(args.model)
        if args.target_fpr is not None:
            detector.set_params(target_fpr=args.target_fpr)
        costs = {"cost_miss": args.cost_miss, "cost_false_alarm": args.cost_false_alarm}
        images = folder_as_fitted(detector, files)
        y = None if labels is None else [labels[path] for path in images.paths]
        detector.calibrate(images, y, metric=args.metric, **costs)
        save(detector, output)
    print_threshold(detector)
    if y is None:
        print(f"calibration    {len(detector.calibration_scores_)} good images")
    else:
        _print_rates(detector, y)
    print(f"model          {output}")
    return 0


def _check(args: argparse.Namespace) -> None:
    """Refuse options that would go unheard."""
    if args.labels is None and args.metric != "balanced_accuracy":
        raise ValueError("--metric needs labels: name a table with --labels CSV")
    if args.labels is not None and args.target_fpr is not None:
        raise ValueError("either --labels or --target-fpr can set the threshold")
    if args.metric != "cost" and (args.cost_miss, args.cost_false_alarm) != (1, 1):
        raise ValueError("--cost-miss and --cost-false-alarm need --metric cost")


def _labels_of(files: Sequence[Path], args: argparse.Namespace) -> dict[Path, int]:
    """Return the labels of those images that have one."""
    labels = read_labels(args.labels, args.folder, files)
    if not labels:
        raise ValueError(f"no image in {args.folder} has a label in {args.labels}")
    n_unknown = len(files) - len(labels)
    if n_unknown:
        warn(
            f"{n_unknown} of {len(files)} images have no label in {args.labels}, and "
            "are left out"
        )
    return labels


def _print_rates(detector: Any, y: Sequence[int]) -> None:
    found = detector.labelled_threshold_
    metric = found.metric.replace("_", " ")
    rates = {
        "detected": (found.detection_rate, found.detection_interval, y.count(-1)),
        "false alarms": (
            found.false_alarm_rate,
            found.false_alarm_interval,
            y.count(1),
        ),
    }
    print(f"chosen for     {metric}, here {found.value:.3g}")
    for name, (rate, (low, high), n) in rates.items():
        print(
            f"{name:14} {round(rate * n)} of {n} = {100 * rate:.1f} % (95 % interval "
            f"{100 * low:.1f} % to {100 * high:.1f} %)"
        )
