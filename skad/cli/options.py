"""Options that several commands take; quick to import."""

import argparse
import math
import os
from collections.abc import Callable
from pathlib import Path


def path(text: str) -> Path:
    """Take a path; "~" is the home folder, also where no shell has replaced it."""
    return Path(os.path.expanduser(text))


def add_sizes(parser: argparse.ArgumentParser, *, patch_size: list[int] | None) -> None:
    """Add --patch-size and --image-size."""
    parser.add_argument(
        "--patch-size",
        type=whole(at_least=2),
        nargs="+",
        default=patch_size,
        metavar="N",
        help="largest defect expected, in pixels; several numbers for several "
        "scales (default: 40)",
    )
    parser.add_argument(
        "--image-size",
        type=whole(at_least=1),
        nargs="+",
        action=_OneOrTwo,
        metavar="N",
        help="resize images to N x N, or with two numbers to height x width (default: "
        "as they are)",
    )


def add_epochs(parser: argparse.ArgumentParser, *, default: int | None) -> None:
    """Add --epochs."""
    parser.add_argument(
        "--epochs",
        type=whole(at_least=1),
        default=default,
        metavar="N",
        help="passes over the training images (default: 75)",
    )


def add_target_fpr(
    parser: argparse._ActionsContainer, *, default: float | None = 0.05
) -> None:
    """Add --target-fpr; without a default, that of the model."""
    shown = "the model's" if default is None else default
    parser.add_argument(
        "--target-fpr",
        type=rate,
        default=default,
        metavar="RATE",
        help=f"promised rate of false alarms on good images (default: {shown})",
    )


def add_device(
    parser: argparse.ArgumentParser,
    *,
    default: str | None = None,
    shown: str = "auto",
) -> None:
    """Add --device; `shown` tells the default."""
    parser.add_argument(
        "--device",
        default=default,
        metavar="NAME",
        help=f"auto, cpu, cuda, cuda:1 and so on (default: {shown})",
    )


def add_recursive(parser: argparse.ArgumentParser) -> None:
    """Add --recursive."""
    parser.add_argument(
        "--recursive", action="store_true", help="search subfolders, too"
    )


def add_seed(parser: argparse.ArgumentParser) -> None:
    """Add --seed."""
    parser.add_argument(
        "--seed",
        type=whole(at_least=0),
        default=0,
        metavar="N",
        help="random seed; with the same number of threads, equal seeds give equal "
        "results (default: %(default)s)",
    )


def whole(*, at_least: int) -> Callable[[str], int]:
    """Return a type of arguments: whole numbers from `at_least` on."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = at_least - 1
        if number < at_least:
            raise argparse.ArgumentTypeError(
                f"must be a whole number of at least {at_least}; got {text}"
            )
        return number

    return parse


def rate(text: str) -> float:
    """Return a number above 0 and below 1."""
    number = _number(text)
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(
            f"must be a number above 0 and below 1, 0.05 for 5 %; got {text}"
        )
    return number


def auto_or_share(text: str) -> str | float:
    """Return "auto" as it is, and else a number above 0 and up to 0.5."""
    if text == "auto":
        return text
    number = _number(text)
    if not 0 < number <= 0.5:
        raise argparse.ArgumentTypeError(
            f"must be auto or a number above 0 and up to 0.5; got {text}"
        )
    return number


def not_negative(text: str) -> float:
    """Return a finite number of at least 0."""
    number = _number(text)
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of at least 0; got {text}")
    return number


def _number(text: str) -> float:
    """Return a number; NaN, which is in no range, where it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


class _OneOrTwo(argparse.Action):
    """Take one or two arguments."""

    def __call__(self, parser, namespace, values, option_string=None):
        """Keep the arguments, unless they are too many."""
        if len(values) > 2:
            raise argparse.ArgumentError(
                self, f"takes N, or HEIGHT WIDTH; got {len(values)} numbers"
            )
        setattr(namespace, self.dest, values)
