"""`skad export`: a model as an ONNX file."""

import argparse

from skad.cli.commands import check_not_read, print_threshold
from skad.export.onnx_file import export_onnx
from skad.export.parity import parity_in_words
from skad.images.finding import find_images
from skad.images.folder import folder_as_fitted
from skad.model_io.model_file import load


def run(args: argparse.Namespace) -> int:
    """Run the command, and return its exit code."""
    check_not_read(args.output, [args.model])
    detector = load(args.model, "cpu")
    images = None
    if args.images is not None:
        files = find_images(args.images, recursive=args.recursive)
        images = folder_as_fitted(detector, files)
    metadata = export_onnx(detector, args.output, dtype=args.dtype, images=images)
    shape = " x ".join(map(str, metadata.image_shape))  # height, width and channels
    size = args.output.stat().st_size / 1e6
    print(f"exported       {args.output} ({size:.1f} MB)")
    print(f"images         {shape}, {metadata.dtype}")
    print(f"parity         {parity_in_words(metadata.parity)}")
    print_threshold(detector)
    return 0
