"""What the command line takes; quick to import, so that --help is quick."""

import argparse
from pathlib import Path
from typing import Any

from skad import __version__
from skad.cli.options import (
    add_device,
    add_epochs,
    add_recursive,
    add_seed,
    add_sizes,
    add_target_fpr,
    auto_or_share,
    not_negative,
    path,
    whole,
)


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
    _add_demo(commands)
    _add_fit(commands)
    _add_score(commands)
    _add_calibrate(commands)
    _add_info(commands)
    _add_convert(commands)
    _add_benchmark(commands)
    for command in commands.choices.values():
        command.add_argument(
            "--debug", action="store_true", help="show the traceback of an error"
        )
    return parser


def _add_demo(commands: Any) -> None:
    parser = commands.add_parser(
        "demo",
        help="find planted defects in a photographed surface",
        description="Find planted defects in a photographed surface, and show in "
        "figures and a picture how it went.",
    )
    parser.add_argument(
        "--surface",
        choices=("brick", "grass", "gravel"),
        default="brick",
        help="which photograph of scikit-image (default: %(default)s)",
    )
    parser.add_argument(
        "--output",
        type=path,
        default=Path("skad-demo"),
        metavar="FOLDER",
        help="for demo.png and scores.csv (default: %(default)s)",
    )
    add_epochs(parser, default=75)
    add_seed(parser)


def _add_fit(commands: Any) -> None:
    parser = commands.add_parser(
        "fit",
        help="learn from a folder of good images",
        description="Learn from a folder of good images and store the model; score "
        "reads and resizes images likewise. Run the same command again to resume a "
        "training that was stopped: FILE.unfinished holds it.",
    )
    parser.add_argument(
        "folder",
        type=path,
        metavar="FOLDER",
        help="of good images, or a pattern of their files in quotes",
    )
    add_recursive(parser)
    parser.add_argument(
        "--model",
        type=path,
        required=True,
        metavar="FILE",
        help="where the model goes, for example part.safetensors",
    )
    add_sizes(parser, patch_size=[40])
    parser.add_argument("--gray", action="store_true", help="read colour as gray")
    parser.add_argument(
        "--roi",
        type=path,
        metavar="FILE",
        help="mask of where to look: white there and black elsewhere, of the size of "
        "the images or of --image-size",
    )
    add_epochs(parser, default=75)
    parser.add_argument(
        "--batch-size",
        type=whole(at_least=1),
        default=16,
        metavar="N",
        help="images at a time; fewer take less memory (default: %(default)s)",
    )
    add_target_fpr(parser)
    parser.add_argument(
        "--contamination",
        type=auto_or_share,
        default="auto",
        metavar="SHARE",
        help="flag this share of the training images, instead of --target-fpr",
    )
    add_device(parser, default="auto")
    add_seed(parser)
    parser.add_argument(
        "--restart",
        action="store_true",
        help="delete an unfinished training and start over",
    )


def _add_score(commands: Any) -> None:
    parser = commands.add_parser(
        "score",
        help="score image files with a learned model",
        description="Score image files with a learned model. Files are read as its "
        "training images were: gray or colour, and resized to their size. The exit "
        "code is 1 if a file could not be read.",
    )
    _add_model(parser)
    parser.add_argument(
        "paths",
        type=path,
        nargs="+",
        metavar="PATH",
        help="image files, folders of them, and patterns in quotes",
    )
    add_recursive(parser)
    parser.add_argument(
        "--output",
        type=path,
        default=Path("skad-scores"),
        metavar="FOLDER",
        help="for scores.csv and heat_maps/ (default: %(default)s)",
    )
    parser.add_argument(
        "--heat-maps",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="write a picture for each image, as large as the file (default: yes)",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="keep the rows of a stopped run and score the rest (default: start over)",
    )
    moved = parser.add_mutually_exclusive_group()
    moved.add_argument(
        "--threshold",
        type=not_negative,
        metavar="VALUE",
        help="an image is anomalous where its map exceeds this (default: the model's)",
    )
    add_target_fpr(moved, default=None)
    add_device(parser, shown="the model's")


def _add_calibrate(commands: Any) -> None:
    parser = commands.add_parser(
        "calibrate",
        help="recalibrate the threshold of a model",
        description="Recalibrate the threshold of a model, without training: for a "
        "promised rate of false alarms from good images, or, with --labels, where it "
        "tells good and anomalous images apart best. Training must not have seen them.",
    )
    _add_model(parser)
    parser.add_argument("folder", type=path, metavar="FOLDER", help="of images")
    add_recursive(parser)
    parser.add_argument(
        "--output",
        type=path,
        metavar="FILE",
        help="where the model goes (default: it replaces MODEL)",
    )
    add_target_fpr(parser, default=None)
    parser.add_argument(
        "--labels",
        type=path,
        metavar="CSV",
        help="table with the columns path or name, and label: +1 or good, -1 or "
        "anomalous (without it all images are good)",
    )
    parser.add_argument(
        "--metric",
        choices=("balanced_accuracy", "f1", "cost"),
        default="balanced_accuracy",
        help="what the threshold is chosen by, with --labels (default: %(default)s)",
    )
    for name, what in (("miss", "a missed defect"), ("false-alarm", "a false alarm")):
        parser.add_argument(
            f"--cost-{name}",
            type=not_negative,
            default=1,
            metavar="COST",
            help=f"what {what} costs, with --metric cost (default: %(default)s)",
        )


def _add_info(commands: Any) -> None:
    parser = commands.add_parser(
        "info",
        help="describe a model",
        description="Describe a model: what it learned from and when, its "
        "parameters, its threshold and what that promises.",
    )
    _add_model(parser)


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=path, metavar="MODEL", help="file of a model")


def _add_convert(commands: Any) -> None:
    parser = commands.add_parser(
        "convert",
        help="take over a model of the old script",
        description="Take over a model of the old script, model.json and model.h5, as "
        "it is. Good images set its threshold; without them the model gives scores and "
        "maps, and no verdicts, until skad calibrate sets one. Needs h5py.",
    )
    parser.add_argument(
        "model",
        type=path,
        metavar="MODEL",
        help="one of the two files, or their common name, for example Models/model",
    )
    parser.add_argument(
        "--output",
        type=path,
        required=True,
        metavar="FILE",
        help="where the model goes, for example model.safetensors",
    )
    parser.add_argument(
        "--good",
        type=path,
        metavar="FOLDER",
        help="of good images that the model was not trained on, for the threshold",
    )
    add_recursive(parser)
    add_target_fpr(parser)


def _add_benchmark(commands: Any) -> None:
    parser = commands.add_parser(
        "benchmark",
        help="measure on data sets in the layout of MVTec AD",
        description="Measure on data sets in the layout of MVTec AD, each category "
        "with each seed: means, and false alarms against the promise. The "
        "exit code is 1 if a run failed.",
    )
    parser.add_argument(
        "root",
        type=path,
        metavar="ROOT",
        help="folder of categories, each with train/good, test/good, test/DEFECT and "
        "ground_truth/DEFECT",
    )
    parser.add_argument(
        "--categories", nargs="+", metavar="NAME", help="only these (default: all)"
    )
    parser.add_argument(
        "--seeds",
        type=whole(at_least=0),
        nargs="+",
        default=[0, 1, 2],
        metavar="N",
        help="a run for each (default: 0 1 2)",
    )
    add_sizes(parser, patch_size=None)
    add_epochs(parser, default=None)
    add_device(parser)
    parser.add_argument(
        "--output",
        type=path,
        default=Path("skad-benchmark.json"),
        metavar="FILE",
        help="results, written after every run; runs that it holds are not made again "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="start the file over, for instance after a change to skad's code",
    )
    parser.add_argument(
        "--models",
        type=path,
        metavar="FOLDER",
        help="store the detectors here, as CATEGORY-SEED.safetensors",
    )
    parser.add_argument(
        "--table", type=path, metavar="FILE", help="write the Markdown table here, too"
    )
    parser.add_argument(
        "--defects",
        action="store_true",
        help="add a table with a row for each kind of defect",
    )
