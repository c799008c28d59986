"""`skad calibrate`: set the threshold of a model anew, also from a table of labels."""

import argparse
import csv
import os
from collections.abc import Sequence
from pathlib import Path

from skad.benchmark.evaluation import rate_in_words
from skad.cli.commands import check_not_read, print_threshold
from skad.common.files import make_room_for
from skad.common.locks import locked
from skad.common.warnings import warn
from skad.images.as_fitted import folder_as_fitted
from skad.images.finding import find_images
from skad.model_io.model_file import load, save

_LABELS = {
    **dict.fromkeys(("1", "+1", "1.0", "good"), 1),
    **dict.fromkeys(("-1", "-1.0", "anomalous"), -1),
}


def run(args: argparse.Namespace) -> int:
    """Run the command, and return its exit code."""
    if args.labels is None and args.metric != "balanced_accuracy":
        raise ValueError("--metric needs labels: name a table with --labels FILE")
    if args.metric != "cost" and (args.cost_miss, args.cost_false_alarm) != (1, 1):
        raise ValueError("--cost-miss and --cost-false-alarm need --metric cost")
    files = find_images(args.folder, recursive=args.recursive)
    output, labels = args.output or args.model, None
    check_not_read(output, [*files, *filter(None, [args.labels])])
    if args.labels is not None:
        labels = read_labels(args.labels, args.folder, files)
        if len(labels) < len(files):
            warn(
                f"{len(files) - len(labels)} of {len(files)} images have no label in "
                f"{args.labels}, and are left out"
            )
        files = list(labels)
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
        best = detector.labelled_threshold_
        n_bad, n_good = y.count(-1), y.count(1)
        found = rate_in_words(round(best.detection_rate * n_bad), n_bad)
        alarms = rate_in_words(round(best.false_alarm_rate * n_good), n_good)
        print(f"chosen for     {best.metric.replace('_', ' ')}, here {best.value:.3g}")
        print(f"detected       {found}\nfalse alarms   {alarms}")
    print(f"model          {output}")
    return 0


def read_labels(table: Path, folder: Path, files: Sequence[Path]) -> dict[Path, int]:
    """Read the label, 1 or -1, of each image file that a CSV table names.

    The table has a column ``path`` or ``name``, from `folder` on or absolute, and a
    column ``label``.
    """
    images = {os.path.realpath(image): image for image in files}
    found: dict[Path, int] = {}
    with table.open(encoding="utf-8-sig", newline="", errors="surrogateescape") as file:
        rows = csv.DictReader(file)
        rows.fieldnames = [name.strip().lower() for name in rows.fieldnames or ()]
        for row in rows:
            name, label = row.get("path", row.get("name")), row.get("label")
            image = images.get(os.path.realpath(folder / (name or "")))
            value = _LABELS.get((label or "").strip().lower())
            if not (image and value) or found.setdefault(image, value) != value:
                raise ValueError(
                    f"{table}, line {rows.line_num}: there must be the path or name of "
                    f"an image in {folder}, and one label for it, +1 or good, -1 or "
                    f"anomalous; got {name!r} and {label!r}"
                )
    return {image: found[image] for image in files if image in found}
