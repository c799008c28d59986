"""`skad calibrate`: set the threshold of a model anew, also from anomalous images."""

import argparse
import os
from pathlib import Path

from skad.benchmark.evaluation import rate_in_words
from skad.cli.commands import check_not_read, parameters_of, print_threshold
from skad.common.files import make_room_for
from skad.common.locks import locked
from skad.images.finding import find_images
from skad.images.folder import folder_as_fitted
from skad.images.label_file import read_labels
from skad.model_io.model_file import load, save


def run(args: argparse.Namespace) -> int:
    """Run the command, and return its exit code."""
    costs = parameters_of(args, "cost_miss", "cost_false_alarm")
    output = args.output or args.model
    files, anomalous = _files(args)
    if (args.metric and not anomalous) or (costs and args.metric != "cost"):
        raise ValueError(
            "--metric needs anomalous images, from --anomalous FOLDER or --labels; "
            "--cost-miss and --cost-false-alarm need --metric cost"
        )
    check_not_read(output, [*files, *([args.labels] if args.labels else [])])
    make_room_for(output)
    with locked(output):
        detector = load(args.model)
        if args.target_fpr is not None:
            detector.set_params(target_fpr=args.target_fpr)
        images, y = folder_as_fitted(detector, files), None
        if anomalous:
            y = [-1 if os.path.realpath(f) in anomalous else 1 for f in images.paths]
        detector.calibrate(images, y, **parameters_of(args, "metric"), **costs)
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


def _files(args: argparse.Namespace) -> tuple[list[Path], set[str]]:
    """Return the images, and the real paths of the anomalous ones."""
    if args.labels is not None:
        return _labelled_files(args)
    bad = []
    if args.anomalous is not None:
        bad = find_images(args.anomalous, recursive=args.recursive)
    anomalous = set(map(os.path.realpath, bad))  # they may lie among the good ones
    good = find_images(args.folder, recursive=args.recursive)
    return [f for f in good if os.path.realpath(f) not in anomalous] + bad, anomalous


def _labelled_files(args: argparse.Namespace) -> tuple[list[Path], set[str]]:
    if args.anomalous is not None:
        raise ValueError("name bad images by --anomalous or by --labels, not by both")
    labels = read_labels(args.labels)
    folder = os.path.realpath(args.folder)
    for file in find_images(list(labels)):  # raises where one is missing
        if not Path(os.path.realpath(file)).is_relative_to(folder):
            raise ValueError(f"{args.labels} labels {file}, which is not in {folder}")
    if args.target_fpr is not None:  # good images alone can promise a rate
        labels = {file: label for file, label in labels.items() if label == 1}
    if 1 not in labels.values():
        raise ValueError(f"{args.labels} must label good images, too")
    bad = [file for file, label in labels.items() if label == -1]
    return list(labels), set(map(os.path.realpath, bad))
