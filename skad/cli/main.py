"""The command line: `skad COMMAND` is the function `run` of `skad.cli.command_COMMAND`.

Those modules are imported when they are called for, so that --help is quick.
"""

import io
import re
import signal
import sys
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr
from importlib import import_module
from typing import Any, cast

from skad.cli.arguments import make_parser
from skad.common.bars import Forgiving

# Reported in one line; torch raises a RuntimeError where memory runs out.
_ERRORS = (ValueError, OSError, ImportError, RuntimeError, MemoryError)
# A parameter in a message of the package, as in "pass gray=True" and "roi must ...".
_PARAMETER = re.compile(r"\b([a-z_]+)(?==|' parameter| must)")
_OTHER_NAMES = {"random_state": "seed"}  # of options


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command with the arguments `argv`, or those of the program.

    Returns 0; 1 if files or runs failed; 2 for an error that ends the command; 130 if
    it was stopped from the keyboard. Raises SystemExit with 2 for wrong arguments, and
    with 143 on SIGTERM.
    """
    args = make_parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _exit)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # prints any file name
    with redirect_stderr(cast(Any, Forgiving(sys.stderr))), warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: _report("warning", message, args)
        try:
            return import_module(f"skad.cli.command_{args.command}").run(args)
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
