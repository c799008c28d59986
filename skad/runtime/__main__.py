"""`python -m skad.runtime`: score image files with an exported detector."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from skad.common.command_line import Command, make_parser, run_command
from skad.inspection.score_files import (
    HEAT_MAPS,
    TABLE,
    counts_in_words,
    score_files,
)
from skad.runtime.inspector import Inspector


def _path(text: str) -> Path:
    """Take a path; "~" is the home folder, also where no shell has replaced it."""
    return Path(os.path.expanduser(text))


_MODEL = ("model", "file of `skad export`", {"type": _path, "metavar": "MODEL"})
_PATHS = {"type": _path, "metavar": "PATH", "nargs": "+"}
_FOLDER = {"type": _path, "metavar": "FOLDER", "default": Path("skad-scores")}
_NUMBER = {"type": float, "metavar": "NUMBER"}
_FLAG = {"action": "store_true"}
_YES_OR_NO = {"action": argparse.BooleanOptionalAction, "default": True}
_FPR = "promised rate of false alarms on good images (default: the model's)"

_SCORE = [
    _MODEL,
    ("paths", "image files, and folders of them", _PATHS),
    ("--recursive", "search subfolders, too", _FLAG),
    ("--output", "for scores.csv and heat_maps/ (default: %(default)s)", _FOLDER),
    ("--heat-maps", "write a picture for each image (default: yes)", _YES_OR_NO),
    ("--resume", "keep the rows of a stopped run and score the rest", _FLAG),
    [
        ("--threshold", "flag images whose map exceeds this", _NUMBER),
        ("--target-fpr", _FPR, _NUMBER),
    ],
    ("--n-threads", "threads (default: one a core)", {"type": int, "metavar": "N"}),
]
_COMMANDS: dict[str, Command] = {
    "score": (
        "Score image files with an exported model. They are read as its training "
        "images were. The exit code is 1 if a file could not be read.",
        _SCORE,
        {},
    ),
    "info": ("Describe an exported model and its threshold.", [_MODEL], {}),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command with the arguments `argv`, or those of the program.

    Exit codes are those of `skad`: 0, 1 if files failed, 2 for an error.
    """
    description = "Run a detector that `skad export` wrote, without torch."
    parser = make_parser("python -m skad.runtime", description, _COMMANDS)
    args = parser.parse_args(argv)
    return run_command({"score": _score, "info": _info}[args.command], args)


def _score(args: argparse.Namespace) -> int:
    inspector = Inspector(
        args.model, threshold=args.threshold, n_threads=args.n_threads
    )
    if args.target_fpr is not None:
        inspector.retarget(args.target_fpr)
    verdicts = score_files(
        inspector.inspect_files,
        inspector.threshold,
        args.paths,
        args.output,
        heat_maps=args.heat_maps,
        resume=args.resume,
        recursive=args.recursive,
        verbose=1,
    )
    print(counts_in_words(verdicts))
    _print_threshold(inspector)
    print(f"scores         {args.output / TABLE}")
    if args.heat_maps:
        print(f"heat maps      {args.output / HEAT_MAPS}")
    return 1 if verdicts["unreadable"] else 0


def _info(args: argparse.Namespace) -> int:
    inspector = Inspector(args.model)
    metadata = inspector.metadata
    any_size = "any size, resized to " if metadata.any_size else ""
    size = " x ".join(map(str, metadata.image_shape))
    roi = "" if metadata.roi is None else ", with a roi"
    print(f"model          {args.model} ({args.model.stat().st_size / 1e6:.1f} MB)")
    print(f"exported by    skad {metadata.skad_version!r}")
    print(f"learned        {_listed(metadata.provenance)}")
    print(f"images         {any_size}{size}, {metadata.dtype}{roi}")
    print(f"channels       {metadata.channel_order}")
    _print_threshold(inspector)
    print(f"calibration    {len(metadata.calibration_scores)} good images")
    print(f"parity         {_listed(metadata.parity)}")
    return 0


def _print_threshold(inspector: Inspector) -> None:
    print(f"threshold      {inspector.threshold:.6g}")
    print(f"promise        {inspector.promise}")


def _listed(values: dict[str, object]) -> str:
    # As repr: the files of others may hold codes that control the terminal.
    return ", ".join(f"{k}={v!r}" for k, v in values.items() if v is not None)


if __name__ == "__main__":
    sys.exit(main())
