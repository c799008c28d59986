"""`skad calibrate`: set the threshold of a model anew."""

import argparse

from skad.cli.commands import check_not_read, print_threshold
from skad.cli.label_table import read_labels
from skad.common.files import make_room_for
from skad.common.locks import locked
from skad.common.warnings import warn
from skad.images.as_fitted import folder_as_fitted
from skad.images.finding import find_images
from skad.model_io.model_file import load, save
from skad.threshold.conformal import LabelledThreshold


def run(args: argparse.Namespace) -> int:
    """Run the command, and return its exit code."""
    if args.labels is None and args.metric != "balanced_accuracy":
        raise ValueError("--metric needs labels: name a table with --labels CSV")
    if args.metric != "cost" and (args.cost_miss, args.cost_false_alarm) != (1, 1):
        raise ValueError("--cost-miss and --cost-false-alarm need --metric cost")
    files = find_images(args.folder, recursive=args.recursive)
    labels = None
    if args.labels is not None:
        labels = read_labels(args.labels, args.folder, files)
        if len(labels) < len(files):
            warn(
                f"{len(files) - len(labels)} of {len(files)} images have no label in "
                f"{args.labels}, and are left out"
            )
        files = list(labels)
    output = args.output or args.model
    check_not_read(output, [*files, *filter(None, [args.labels])])
    make_room_for(output)
    with locked(output):
        detector = load(args.model)
        if args.target_fpr is not None:
            detector.set_params(target_fpr=args.target_fpr)
        images = folder_as_fitted(detector, files)
        y = None if labels is None else [labels[path] for path in images.paths]
        costs = {"cost_miss": args.cost_miss, "cost_false_alarm": args.cost_false_alarm}
        detector.calibrate(images, y, metric=args.metric, **costs)
        save(detector, output)
    print_threshold(detector)
    if y is None:
        print(f"calibration    {len(detector.calibration_scores_)} good images")
    else:
        _print_rates(detector.labelled_threshold_, y)
    print(f"model          {output}")
    return 0


def _print_rates(found: LabelledThreshold, y: list[int]) -> None:
    print(f"chosen for     {found.metric.replace('_', ' ')}, here {found.value:.3g}")
    for name, n, rate, (low, high) in (
        ("detected", y.count(-1), found.detection_rate, found.detection_interval),
        (
            "false alarms",
            y.count(1),
            found.false_alarm_rate,
            found.false_alarm_interval,
        ),
    ):
        print(
            f"{name:14} {round(rate * n)} of {n} = {100 * rate:.1f} % (95 % interval "
            f"{100 * low:.1f} % to {100 * high:.1f} %)"
        )
