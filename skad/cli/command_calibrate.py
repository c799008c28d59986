"""`skad calibrate`: set the threshold of a model anew, also from a table of labels."""

import argparse
import csv
import os
from collections.abc import Sequence
from pathlib import Path

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
        found = _rate(best.detection_rate, y.count(-1), *best.detection_interval)
        alarms = _rate(best.false_alarm_rate, y.count(1), *best.false_alarm_interval)
        print(f"chosen for     {best.metric.replace('_', ' ')}, here {best.value:.3g}")
        print(f"detected       {found}\nfalse alarms   {alarms}")
    print(f"model          {output}")
    return 0


def _rate(rate: float, n: int, low: float, high: float) -> str:
    interval = f"95 % interval {100 * low:.1f} % to {100 * high:.1f} %"
    return f"{round(rate * n)} of {n} = {100 * rate:.1f} % ({interval})"


def read_labels(table: Path, folder: Path, files: Sequence[Path]) -> dict[Path, int]:
    """Read the label, 1 or -1, of each image file that a CSV table names.

    The table has a column ``path`` or ``name``, and a column ``label``. Paths are
    absolute, or start at `folder`, at the folder of the table or at the working
    directory; a name is that of one file alone.
    """
    named: dict[str, list[Path]] = {}
    for image in files:
        for name in (os.path.realpath(image), image.name):
            named.setdefault(name, []).append(image)
    found: dict[Path, int] = {}
    with table.open(encoding="utf-8-sig", newline="", errors="surrogateescape") as file:
        rows = csv.DictReader(file)
        columns = [str(column).strip().lower() for column in rows.fieldnames or ()]
        rows.fieldnames = columns
        if "label" not in columns or not {"path", "name"} & set(columns):
            raise ValueError(
                f"{table} must have a column path or name, and a column label; it has "
                f"{', '.join(columns) or 'none'}"
            )
        for row in rows:
            where = f"{table}, line {rows.line_num}"
            name, label = row.get("path", row.get("name")) or "", row["label"] or ""
            value = _LABELS.get(label.strip().lower())
            if value is None:
                raise ValueError(
                    f"{where}: a label must be +1 or good, -1 or anomalous; got "
                    f"{label!r}"
                )
            starts = (folder, table.parent, Path())
            names = [*(os.path.realpath(start / name) for start in starts), name]
            meant = next((named[known] for known in names if known in named), [])
            if len(meant) != 1:
                raise ValueError(
                    f"{where}: {name!r} must be one image in {folder}; {len(meant)} are"
                )
            if found.setdefault(meant[0], value) != value:
                raise ValueError(f"{where}: {name} has another label above; keep one")
    return {image: found[image] for image in files if image in found}
