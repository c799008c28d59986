"""The command line: `skad COMMAND` is the function `run` of `skad.cli.command_COMMAND`.

Those modules are imported when they are called for, so that --help needs nothing heavy.
"""

import io
import signal
import sys
import threading
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from functools import partial
from importlib import import_module
from typing import TextIO

from skad.cli.arguments import make_parser
from skad.cli.messages import in_options
from skad.common.streams import Forgiving

# Told in one line; torch raises a RuntimeError where memory runs out.
_ERRORS = (ValueError, OSError, ImportError, RuntimeError, MemoryError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command of the command line.

    Parameters
    ----------
    argv : sequence of str, default=None
        The arguments; None takes those that the program was called with.

    Returns
    -------
    code : int
        0; 1 where files or runs failed; 2 for an error that ends the command;
        130 where it was stopped from the keyboard.

    Raises
    ------
    SystemExit
        With 2 for wrong arguments, and with 143 where it was told to terminate.
    """
    args = make_parser().parse_args(argv)
    with (
        _terminated_cleanly(),
        _printing_any_name(),
        redirect_stderr(Forgiving(sys.stderr)),
        warnings.catch_warnings(),
    ):
        warnings.showwarning = partial(_show_warning, vars(args))
        try:
            return import_module(f"skad.cli.command_{args.command}").run(args)
        except KeyboardInterrupt:
            print("skad: stopped", file=sys.stderr)
            return 130
        except _ERRORS as error:
            if args.debug:
                raise
            print(f"skad: error: {_one_line(error, vars(args))}", file=sys.stderr)
            return 2


@contextmanager
def _terminated_cleanly() -> Iterator[None]:
    """Let SIGTERM raise, so that no file is left half written and no process runs."""
    before = signal.getsignal(signal.SIGTERM)
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or before is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _printing_any_name() -> Iterator[None]:
    """Let what is printed hold any file name there is."""
    out = sys.stdout
    if not isinstance(out, io.TextIOWrapper) or out.errors != "strict":
        yield
        return
    out.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        with suppress(OSError, ValueError):  # it flushes, and may be closed or full
            out.reconfigure(errors="strict")


def _show_warning(
    arguments: Collection[str],
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Show a warning in one line, as `warnings.showwarning`."""
    print(f"skad: warning: {_one_line(message, arguments)}", file=sys.stderr)


def _one_line(message: object, arguments: Collection[str]) -> str:
    """Say it in one line, in the options that a command with these arguments has."""
    if isinstance(message, OSError) and message.filename and message.strerror:
        message = f"{message.filename}: {message.strerror}"  # without "[Errno 2]"
    available = {f"--{name.replace('_', '-')}" for name in arguments}
    return in_options(" ".join(str(message).split()), available)
