"""`skad serve`: answer verdicts about images over HTTP."""

import argparse
import os
from dataclasses import fields

_TOKEN = "SKAD_TOKEN"  # name of the environment variable


def run(args: argparse.Namespace) -> int:
    """Run the command, and return its exit code."""
    try:
        from skad.serve.server import serve
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("skad"):
            raise
        raise ImportError(
            f'skad serve needs {error.name}: pip install "skad[serve]"'
        ) from error
    from skad.serve.settings import Settings, named_models

    given = {f.name: getattr(args, f.name) for f in fields(Settings) if f.name in args}
    given = {name: value for name, value in given.items() if value is not None}
    given |= {"models": named_models(args.models, args.name), "token": _token(args)}
    serve(Settings(**given))
    return 0


def _token(args: argparse.Namespace) -> str | None:
    if args.token_file is not None:
        return args.token_file.read_text(encoding="utf-8").strip()
    return os.environ.get(_TOKEN) or None
