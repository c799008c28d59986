"""`skad fit`: learn from a folder of good images and store the model."""

import argparse
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from skad.cli.commands import check_not_read, parameters_of, print_threshold
from skad.common.files import make_room_for
from skad.common.locks import locked
from skad.detectors.patch import PatchAutoencoderDetector
from skad.images.finding import find_images
from skad.images.folder import ImageFolder
from skad.images.roi import check_roi
from skad.model_io.model_file import save
from skad.network.checkpoint import forget, hold

_BYTES_IN_MEMORY = 2**30  # of training images, at most


def run(args: argparse.Namespace) -> int:
    """Run the command, and return its exit code."""
    masks = [] if args.roi is None else find_images(args.roi)
    no_good_images = set(map(os.path.realpath, masks))  # they may lie among them
    files = find_images(args.folder, recursive=args.recursive)
    files = [file for file in files if os.path.realpath(file) not in no_good_images]
    check_not_read(args.model, [*files, *masks])
    make_room_for(args.model)
    unfinished = args.model.with_name(f"{args.model.name}.unfinished")
    # The unfinished training is kept until the model is stored.
    with locked(args.model), hold(unfinished) as checkpoint:
        return _fit(args, files, checkpoint)


def _fit(args: argparse.Namespace, files: Sequence[Path], checkpoint: Any) -> int:
    sizes = parameters_of(args, "image_size")
    images = ImageFolder(files, **sizes, gray=args.gray)
    height, width = images.shape[1:3]
    training = ("patch_size", "epochs", "batch_size", "device")
    detector = PatchAutoencoderDetector(
        **parameters_of(args, *training, "target_fpr", "contamination"),
        roi=check_roi(args.roi, (height, width), images),
        random_state=args.seed,
        verbose=1,
    )
    print(f"learning from {len(images)} images in {args.folder}")
    if args.restart:
        forget(checkpoint.path)
    detector.fit(_in_memory_if_small(images), checkpoint=checkpoint)
    detector.provenance_["source"] = str(args.folder)
    save(detector, args.model)
    print_threshold(detector)
    n = len(detector.calibration_scores_)
    print(f"calibration    {n} images that training did not see")
    print(f"model          {args.model}")
    return 0


def _in_memory_if_small(images: ImageFolder) -> Any:
    """Hold images decoded where they fit, not to decode them in every epoch."""
    if math.prod(images.shape) * images.dtype.itemsize > _BYTES_IN_MEMORY:
        return images
    return images.in_memory()
