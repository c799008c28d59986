"""`skad benchmark`: measure on data sets in the layout of MVTec AD."""

import argparse
import sys

from skad.benchmark import runs
from skad.benchmark.table import defects_table, import_pandas, table
from skad.cli.commands import check_not_read, parameters_of
from skad.common.files import make_room_for, write_atomically
from skad.images.finding import is_image_name


def run(args: argparse.Namespace) -> int:
    """Run the command, and return its exit code."""
    import_pandas()  # so that nobody misses it after hours
    images = [file for file in args.root.rglob("*") if is_image_name(file)]
    check_not_read(args.output, images)
    if args.table is not None:
        check_not_read(args.table, [*images, args.output])
        make_room_for(args.table)
    results = runs.run(
        args.root,
        categories=args.categories,
        seeds=args.seeds,
        parameters=parameters_of(args, "patch_size", "image_size", "epochs", "device"),
        output=args.output,
        fresh=args.fresh,
        models=args.models,
        verbose=1,
    )
    text = table(results)
    if args.defects:
        text += f"\n{defects_table(results)}"
    print(text, end="")
    if args.table is not None:
        write_atomically(args.table, text)
    failed = sum("error" in result for result in results)
    if failed:
        print(f"skad: {failed} of {len(results)} runs failed", file=sys.stderr)
    return 1 if failed else 0
