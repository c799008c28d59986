"""`skad convert`: take over a model of the old script."""

import argparse

from skad.cli.commands import check_not_read, print_threshold
from skad.common.files import make_room_for
from skad.common.locks import locked
from skad.common.warnings import warn
from skad.detectors.dense import DenseAutoencoderDetector
from skad.images.as_fitted import folder_as_fitted
from skad.images.finding import find_images
from skad.model_io.model_file import save
from skad.network.keras import find_pair


def run(args: argparse.Namespace) -> int:
    """Run the command, and return its exit code."""
    good = find_images(args.good, recursive=args.recursive) if args.good else []
    check_not_read(args.output, [*(find_pair(args.model) or ()), *good])
    make_room_for(args.output)
    with locked(args.output):
        detector = DenseAutoencoderDetector(args.model, target_fpr=args.target_fpr)
        detector.read_model()
        if good:
            detector.calibrate(folder_as_fitted(detector, good))
            print_threshold(detector)
        else:
            warn(
                "the model has no threshold, so it gives scores and maps but no "
                "verdicts; name good images with --good FOLDER, or later with skad "
                "calibrate"
            )
        save(detector, args.output)
    print(f"model          {args.output}")
    return 0
