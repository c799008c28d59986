"""Options that several commands take; quick to import."""

import argparse


def add_sizes(parser: argparse.ArgumentParser, *, patch_size: list[int] | None) -> None:
    """Add --patch-size and --image-size."""
    parser.add_argument(
        "--patch-size",
        type=int,
        nargs="+",
        default=patch_size,
        metavar="N",
        help="largest defect expected, in pixels; several numbers for several "
        "scales (default: 40)",
    )
    parser.add_argument(
        "--image-size",
        type=int,
        nargs="+",
        metavar="N",
        help="resize images to N x N, or with two numbers to height x width (default: "
        "as they are)",
    )


def add_epochs(parser: argparse.ArgumentParser, *, default: int | None) -> None:
    """Add --epochs."""
    parser.add_argument(
        "--epochs",
        type=int,
        default=default,
        metavar="N",
        help="passes over the training images (default: 75)",
    )


def add_target_fpr(parser: argparse.ArgumentParser) -> None:
    """Add --target-fpr."""
    parser.add_argument(
        "--target-fpr",
        type=float,
        default=0.05,
        metavar="RATE",
        help="promised rate of false alarms on good images (default: %(default)s)",
    )


def add_device(parser: argparse.ArgumentParser, *, default: str | None) -> None:
    """Add --device."""
    parser.add_argument(
        "--device",
        default=default,
        metavar="NAME",
        help="auto, cpu, cuda, cuda:1 and so on (default: auto)",
    )


def add_seed(parser: argparse.ArgumentParser) -> None:
    """Add --seed."""
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="of all randomness: equal seeds, equal results (default: %(default)s)",
    )


def auto_or_float(text: str) -> str | float:
    """Return "auto" as it is, and else a number."""
    try:
        return text if text == "auto" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"it must be auto or a number above 0 and up to 0.5; got {text!r}"
        ) from None
