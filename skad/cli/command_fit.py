"""`skad fit`: learn from a folder of good images and store the model."""

import argparse
import math
import os
from typing import Any

from skad.cli.commands import check_not_read, parameters_of, print_threshold
from skad.common.files import make_room_for
from skad.common.locks import locked
from skad.detectors.patch import PatchAutoencoderDetector
from skad.images.exclusion import leave_out
from skad.images.finding import find_images
from skad.images.folder import ImageFolder
from skad.images.roi import check_roi
from skad.model_io.model_file import save
from skad.network.checkpoint import hold

_BYTES_IN_MEMORY = 2**30  # of images that are decoded once, not in every epoch
_TRAINING = ("patch_size", "encoder", "epochs", "batch_size", "calibration", "device")


def run(args: argparse.Namespace) -> int:
    """Run the command, and return its exit code."""
    masks = [] if args.roi is None else find_images(args.roi)
    no_good_images = set(map(os.path.realpath, masks))  # they may lie among them
    files = find_images(args.folder, recursive=args.recursive)
    files = [file for file in files if os.path.realpath(file) not in no_good_images]
    files = leave_out(files, args.exclude)
    check_not_read(args.model, [*files, *masks])
    make_room_for(args.model)
    unfinished = args.model.with_name(f"{args.model.name}.unfinished")
    # The unfinished training is kept until the model is stored.
    with locked(args.model), hold(unfinished) as checkpoint:
        images = ImageFolder(files, **parameters_of(args, "image_size"), gray=args.gray)
        height, width = images.shape[1:3]
        detector = PatchAutoencoderDetector(
            **parameters_of(args, *_TRAINING, "target_fpr", "contamination"),
            roi=check_roi(args.roi, (height, width), images),
            random_state=args.seed,
            verbose=1,
        )
        print(f"learning from {len(images)} images in {args.folder}")
        n_bytes = math.prod(images.shape) * images.dtype.itemsize
        X: Any = images if n_bytes > _BYTES_IN_MEMORY else images.in_memory()
        detector.fit(X, checkpoint=checkpoint)
        detector.provenance_["source"] = str(args.folder)
        save(detector, args.model)
    print_threshold(detector)
    kind = "held-out" if detector.calibration == "split" else "cross-fitted"
    print(f"calibration    {len(detector.calibration_scores_)} {kind} images")
    print(f"model          {args.model}")
    return 0
