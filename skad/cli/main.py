"""The command line: `skad COMMAND` is the function `run` of `skad.cli.command_COMMAND`.

Those modules are imported when they are called for, so that --help is quick.
"""

import argparse
from collections.abc import Sequence
from importlib import import_module

from skad.cli.arguments import make_parser
from skad.common.command_line import run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command with the arguments `argv`, or those of the program.

    Returns 0; 1 if files or runs failed; 2 for an error that ends the command; 130 if
    it was stopped from the keyboard. Raises SystemExit with 2 for wrong arguments, and
    with 143 on SIGTERM.
    """
    return run_command(_run, make_parser().parse_args(argv))


def _run(args: argparse.Namespace) -> int:
    return import_module(f"skad.cli.command_{args.command}").run(args)
