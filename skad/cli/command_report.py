"""`skad report`: write a page about image files and what a model says of them."""

import argparse
import os
from pathlib import Path

from skad.cli.commands import (
    check_not_read,
    load_with_threshold,
    parameters_of,
    print_threshold,
)
from skad.common.warnings import warn
from skad.images.finding import list_files
from skad.images.label_file import read_labels
from skad.inspection.score_files import counts_in_words
from skad.report.writing import write_report

_GOOD = "good"  # the folder of good images, as in MVTec AD


def run(args: argparse.Namespace) -> int:
    """Run the command, and return its exit code."""
    check_not_read(args.output, [args.model, *([args.labels] if args.labels else [])])
    files = list_files(args.paths, args.recursive)
    y = None
    if args.labels is not None:
        y = _labels_of(files, args.labels)
    elif args.folder_labels:
        y = [1 if file.parent.name == _GOOD else -1 for file in files]
    detector = load_with_threshold(args.model, args.device)
    counts = write_report(
        detector,
        files,
        args.output,
        y,
        model=args.model,
        random_state=args.seed,
        verbose=1,
        **parameters_of(args, "max_pictures", "n_to_mark", "n_to_explain", "good"),
    )
    print(counts_in_words(counts))
    print_threshold(detector)
    print(f"report         {args.output}")
    return 1 if counts["unreadable"] else 0


def _labels_of(files: list[Path], table: Path) -> list[int]:
    """Return the labels of files, 0 where the table has none."""
    labels = {os.path.realpath(file): y for file, y in read_labels(table).items()}
    found = [labels.pop(os.path.realpath(file), 0) for file in files]
    if labels:
        first = next(iter(labels))
        text = f"{len(labels)} labels in {table} are for other files, such as {first}"
        if not any(found):
            raise ValueError(f"{text}, and none is for an image of this report")
        warn(text)
    return found
