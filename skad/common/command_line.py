"""Command lines: parsers from data, and one line for an error or a warning."""

import argparse
import io
import re
import signal
import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr
from typing import Any, cast

from skad import __version__
from skad.common.bars import Forgiving

# The description, whose first sentence is the help; the arguments, of which only one in
# an inner list is allowed; more defaults.
Command = tuple[str, list, dict[str, Any]]

# Reported in one line; torch raises a RuntimeError where memory runs out.
_ERRORS = (ValueError, OSError, ImportError, RuntimeError, MemoryError)
# A parameter in a message of the package, as in "pass gray=True" and "roi must ...".
_PARAMETER = re.compile(r"\b([a-z_]+)(?==|' parameter| must)")
_OTHER_NAMES = {"random_state": "seed"}  # of options


def make_parser(
    prog: str, description: str, commands: Mapping[str, Command]
) -> argparse.ArgumentParser:
    """Make a parser; `command` is the name of the command."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("--version", action="version", version=f"skad {__version__}")
    group_of_all = parser.add_subparsers(
        title="commands", dest="command", required=True, metavar="COMMAND"
    )
    for name, (text, arguments, defaults) in commands.items():
        help = text.partition(".")[0]
        command = group_of_all.add_parser(name, help=help, description=text)
        for argument in arguments:
            one_of = isinstance(argument, list)
            group: Any = command.add_mutually_exclusive_group() if one_of else command
            for flags, help, keywords in argument if one_of else [argument]:
                group.add_argument(*flags.split(), help=help, **keywords)
        command.add_argument(
            "--debug", action="store_true", help="show the traceback of an error"
        )
        command.set_defaults(**defaults)
    return parser


def run_command(
    run: Callable[[argparse.Namespace], int], args: argparse.Namespace
) -> int:
    """Run a command, and return its exit code.

    That is 2 for an error that ends it, and 130 if it was stopped from the keyboard.
    Raises SystemExit with 143 on SIGTERM.
    """
    signal.signal(signal.SIGTERM, _exit)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # prints any file name
    with redirect_stderr(cast(Any, Forgiving(sys.stderr))), warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: _report("warning", message, args)
        try:
            return run(args)
        except KeyboardInterrupt:
            print("skad: stopped", file=sys.stderr)
            return 130
        except _ERRORS as error:
            if args.debug:
                raise
            _report("error", error, args)
            return 2


def _exit(number: int, frame: Any) -> None:
    """Unwind on a signal, so that no file is left half written."""
    sys.exit(128 + number)


def _report(what: str, message: Exception | str, args: Any) -> None:
    """Print one line, and the options that set the parameters which it names."""
    if isinstance(message, OSError) and message.filename and message.strerror:
        message = f"{message.filename}: {message.strerror}"  # without "[Errno 2]"
    text = " ".join(str(message).split())
    names = dict.fromkeys(_OTHER_NAMES.get(n, n) for n in _PARAMETER.findall(text))
    options = [f"--{n.replace('_', '-')}" for n in names if n in vars(args)]
    if options:
        text += f" (option {', '.join(options)})"
    print(f"skad: {what}: {text}", file=sys.stderr)
