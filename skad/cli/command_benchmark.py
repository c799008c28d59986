"""`skad benchmark`: measure on data sets in the layout of MVTec AD."""

import argparse
import sys

from skad.benchmark import runs as _benchmark
from skad.benchmark.table import defects_table, table
from skad.cli.commands import check_not_read, one_or_several
from skad.common.files import make_room_for, write_atomically
from skad.images.finding import is_image_name


def run(args: argparse.Namespace) -> int:
    """Run the command, and return its exit code."""
    files = args.root.rglob("*")
    images = [file for file in files if is_image_name(file)]
    for path in filter(None, (args.output, args.table)):
        check_not_read(path, images)
    if args.table is not None:
        check_not_read(args.table, [args.output])
        make_room_for(args.table)
    chosen = {
        "patch_size": one_or_several(args.patch_size),
        "image_size": one_or_several(args.image_size),
        "epochs": args.epochs,
        "device": args.device,
    }
    results = _benchmark.run(
        args.root,
        categories=args.categories,
        seeds=args.seeds,
        parameters={name: value for name, value in chosen.items() if value is not None},
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
