"""`skad benchmark`: measure on data sets in the layout of MVTec AD."""

import argparse
import sys

from skad.benchmark import runs
from skad.benchmark.table import import_pandas, table
from skad.cli.commands import check_not_read, parameters_of
from skad.images.finding import is_image_name


def run(args: argparse.Namespace) -> int:
    """Run the command, and return its exit code."""
    import_pandas()  # so that nobody misses it after hours
    check_not_read(args.output, filter(is_image_name, args.root.rglob("*")))
    names = "patch_size", "image_size", "encoder", "epochs", "device"
    results = runs.run(
        args.root,
        args.output,
        categories=args.categories,
        seeds=args.seeds,
        parameters=parameters_of(args, *names),
        models=args.models,
    )
    print(table(results), end="")
    failed = sum("error" in result for result in results)
    if failed:
        print(f"skad: {failed} of {len(results)} runs failed", file=sys.stderr)
    return 1 if failed else 0
