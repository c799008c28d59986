"""The arguments of every command; quick to import, so that --help is quick.

An option without a default leaves that to the detector, which checks values, too.
"""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from skad import __version__


def _path(text: str) -> Path:
    """Take a path; "~" is the home folder, also where no shell has replaced it."""
    return Path(os.path.expanduser(text))


def _auto_or_share(text: str) -> str | float:
    return text if text == "auto" else float(text)


_Keywords = dict[str, Any]  # of `add_argument`
_FLAG: _Keywords = {"action": "store_true"}
_FILE: _Keywords = {"type": _path, "metavar": "FILE"}
_FOLDER: _Keywords = {"type": _path, "metavar": "FOLDER"}
_MODEL: _Keywords = {"type": _path, "metavar": "MODEL"}
_N: _Keywords = {"type": int, "metavar": "N"}
_SEVERAL: _Keywords = {"type": int, "metavar": "N", "nargs": "+"}
_RATE: _Keywords = {"type": float, "metavar": "RATE"}
_COST: _Keywords = {"type": float, "metavar": "COST", "default": 1}
_NAME: _Keywords = {"metavar": "NAME"}

# Arguments of several commands.
_RECURSIVE = "--recursive", "search subfolders, too", _FLAG
_EPOCHS = "--epochs", "passes over the training images (default: 75)", _N
_SEED = (
    "--seed",
    "random seed; with the same number of threads, equal seeds give equal results "
    "(default: 0)",
    _N | {"default": 0},
)
_PATCH_SIZE = (
    "--patch-size",
    "largest defect expected, in pixels; several numbers for several scales "
    "(default: 40)",
    _SEVERAL,
)
_IMAGE_SIZE = (
    "--image-size",
    "resize images to N x N, or with two numbers to height x width (default: as they "
    "are)",
    _SEVERAL,
)
_PROMISE = "promised rate of false alarms on good images"
_DEVICE = "auto, cpu, cuda, cuda:1 and so on"

_COMMANDS = {  # descriptions; the first sentence is the help
    "demo": "Find planted defects in a photographed surface. A picture shows them.",
    "fit": "Learn from a folder of good images. The model is stored; score reads and "
    "resizes images likewise. Run the same command again to resume a training that was "
    "stopped: FILE.unfinished holds it.",
    "score": "Score image files with a learned model. Files are read as its training "
    "images were: gray or colour, and resized to their size. The exit code is 1 if a "
    "file could not be read.",
    "calibrate": "Recalibrate the threshold of a model. Good images set it for a "
    "promised rate of false alarms; with --labels, good and anomalous ones set it "
    "where it tells them apart best. Training must not have seen these images.",
    "info": "Describe a model. That is what it learned from and when, its parameters, "
    "its threshold and what that promises.",
    "convert": "Take over a model of the old script. Good images set the threshold; "
    "without them the model gives scores and maps, and no verdicts, until skad "
    "calibrate sets one. Needs h5py.",
    "benchmark": "Measure on data sets in the layout of MVTec AD. Each category runs "
    "with each seed: means, and false alarms against the promise. The exit code is 1 "
    "if a run failed.",
}


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line; `command` is the name of the command."""
    parser = argparse.ArgumentParser(
        prog="skad",
        description="Visual anomaly detection that learns from good images alone.",
    )
    parser.add_argument("--version", action="version", version=f"skad {__version__}")
    commands = parser.add_subparsers(
        title="commands", dest="command", required=True, metavar="COMMAND"
    )
    add_arguments = (_demo, _fit, _score, _calibrate, _info, _convert, _benchmark)
    for (name, text), add_to in zip(_COMMANDS.items(), add_arguments, strict=True):
        help = text.partition(".")[0]
        command = commands.add_parser(name, help=help, description=text)
        add_to(command)
        command.add_argument("--debug", **_FLAG, help="show the traceback of an error")
    return parser


def _adder(parser: argparse._ActionsContainer) -> Callable[..., None]:
    def add(name: str, help: str, keywords: _Keywords, **more: Any) -> None:
        parser.add_argument(name, help=help, **keywords, **more)

    return add


def _demo(parser: argparse.ArgumentParser) -> None:
    add = _adder(parser)
    surfaces = {"choices": ("brick", "grass", "gravel"), "default": "brick"}
    add("--surface", "which photograph of scikit-image (default: brick)", surfaces)
    help = "for demo.png and scores.csv (default: %(default)s)"
    add("--output", help, _FOLDER, default=Path("skad-demo"))
    add(*_EPOCHS, default=75)
    add(*_SEED)


def _fit(parser: argparse.ArgumentParser) -> None:
    add = _adder(parser)
    add("folder", "of good images, or a pattern of files in quotes", _FOLDER)
    add(*_RECURSIVE)
    add("--model", "for the model, as part.safetensors", _FILE, required=True)
    add(*_PATCH_SIZE)
    add(*_IMAGE_SIZE)
    add("--gray", "read colour as gray", _FLAG)
    mask = (
        "mask of the images' size, or of --image-size: white where to look, else black"
    )
    add("--roi", mask, _FILE)
    add(*_EPOCHS)
    add("--batch-size", "images at a time; fewer take less memory (default: 16)", _N)
    threshold = _adder(parser.add_mutually_exclusive_group())
    threshold("--target-fpr", f"{_PROMISE} (default: 0.05)", _RATE)
    share = {"type": _auto_or_share, "metavar": "SHARE"}
    threshold("--contamination", "flag this share of the training images", share)
    add("--device", f"{_DEVICE} (default: auto)", _NAME)
    add(*_SEED)
    add("--restart", "delete an unfinished training and start over", _FLAG)


def _score(parser: argparse.ArgumentParser) -> None:
    add = _adder(parser)
    add("model", "file of a model", _MODEL)
    several = {"type": _path, "metavar": "PATH", "nargs": "+"}
    add("paths", "image files, folders of them, and patterns in quotes", several)
    add(*_RECURSIVE)
    help = "for scores.csv and heat_maps/ (default: %(default)s)"
    add("--output", help, _FOLDER, default=Path("skad-scores"))
    yes_or_no = {"action": argparse.BooleanOptionalAction, "default": True}
    add("--heat-maps", "write a picture for each image (default: yes)", yes_or_no)
    add("--resume", "keep the rows of a stopped run and score the rest", _FLAG)
    threshold = _adder(parser.add_mutually_exclusive_group())
    value = {"type": float, "metavar": "VALUE"}
    threshold("--threshold", "flag images whose map exceeds this", value)
    threshold("--target-fpr", f"{_PROMISE} (default: the model's)", _RATE)
    add("--device", f"{_DEVICE} (default: the model's)", _NAME)


def _calibrate(parser: argparse.ArgumentParser) -> None:
    add = _adder(parser)
    add("model", "file of a model", _MODEL)
    add("folder", "of images", _FOLDER)
    add(*_RECURSIVE)
    add("--output", "where the model goes (default: it replaces MODEL)", _FILE)
    threshold = _adder(parser.add_mutually_exclusive_group())
    threshold("--target-fpr", f"{_PROMISE} (default: the model's)", _RATE)
    threshold(
        "--labels",
        "table with the columns path or name, and label: +1 or good, -1 or anomalous "
        "(without it all images are good)",
        {"type": _path, "metavar": "CSV"},
    )
    metrics = ("balanced_accuracy", "f1", "cost")
    add(
        "--metric",
        "of the best threshold, with --labels",
        {"choices": metrics},
        default=metrics[0],
    )
    add("--cost-miss", "what a missed defect costs, with --metric cost", _COST)
    add("--cost-false-alarm", "what a false alarm costs, with --metric cost", _COST)


def _info(parser: argparse.ArgumentParser) -> None:
    _adder(parser)("model", "file of a model", _MODEL)


def _convert(parser: argparse.ArgumentParser) -> None:
    add = _adder(parser)
    add("model", "model.json or model.h5, or their common name, Models/model", _MODEL)
    add("--output", "for the model, as model.safetensors", _FILE, required=True)
    good = "of good images that the model was not trained on, for the threshold"
    add("--good", good, _FOLDER)
    add(*_RECURSIVE)
    add("--target-fpr", f"{_PROMISE} (default: 0.05)", _RATE, default=0.05)


def _benchmark(parser: argparse.ArgumentParser) -> None:
    add = _adder(parser)
    layout = "train/good, test/good, test/DEFECT and ground_truth/DEFECT"
    root = {"type": _path, "metavar": "ROOT"}
    add("root", f"folder of categories, each with {layout}", root)
    add("--categories", "only these (default: all)", _NAME, nargs="+")
    add("--seeds", "a run for each (default: 0 1 2)", _SEVERAL, default=[0, 1, 2])
    add(*_PATCH_SIZE)
    add(*_IMAGE_SIZE)
    add(*_EPOCHS)
    add("--device", f"{_DEVICE} (default: auto)", _NAME)
    help = "results; runs that it holds are not made again (default: %(default)s)"
    add("--output", help, _FILE, default=Path("skad-benchmark.json"))
    add("--fresh", "start the file over, as after a change to skad's code", _FLAG)
    add("--models", "for the detectors, as CATEGORY-SEED.safetensors", _FOLDER)
    add("--table", "write the Markdown table here, too", _FILE)
    add("--defects", "add a table with a row for each kind of defect", _FLAG)
