"""`skad fit`: learn from a folder of good images and store the model."""

import argparse
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from skad.cli.commands import check_not_read, one_or_several, print_threshold
from skad.common.files import make_room_for
from skad.common.locks import locked
from skad.detectors.patch import PatchAutoencoderDetector
from skad.images.finding import find_images
from skad.images.folder import ImageFolder
from skad.images.roi import check_roi
from skad.model_io.model_file import save
from skad.network.checkpoint import forget

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
    with locked(args.model), locked(unfinished):
        return _fit(args, files, unfinished)


def _fit(args: argparse.Namespace, files: Sequence[Path], unfinished: Path) -> int:
    image_size = one_or_several(args.image_size)
    images = ImageFolder(files, image_size=image_size, gray=args.gray)
    height, width = images.shape[1:3]
    roi = check_roi(args.roi, (height, width), images)
    print(f"learning from {len(images)} images in {args.folder}")
    if args.restart:
        forget(unfinished)
    detector = PatchAutoencoderDetector(
        one_or_several(args.patch_size),
        epochs=args.epochs,
        batch_size=args.batch_size,
        contamination=args.contamination,
        target_fpr=args.target_fpr,
        roi=roi,
        device=args.device,
        random_state=args.seed,
        verbose=1,
    )
    # What the training can go on from stays until the model is stored.
    kept: Any = detector._fit(
        _in_memory_if_small(images),
        None,
        unfinished,
        source=args.folder,
        say_resumed=lambda path: print(f"going on with  {path}"),
    )
    save(detector, args.model)
    kept.remove()
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
