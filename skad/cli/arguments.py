"""The arguments of every command, as data; quick to import, so that --help is quick.

An option without a default leaves that to the detector, which checks values, too.
"""

import argparse
import os
from pathlib import Path
from typing import Any

from skad.common import command_line


def _path(text: str) -> Path:
    """Take a path; "~" is the home folder, also where no shell has replaced it."""
    return Path(os.path.expanduser(text))


_FLAG: dict[str, Any] = {"action": "store_true"}
_PATHS = {"type": _path, "metavar": "PATH", "nargs": "+"}
_MODEL_FILE = {"type": _path, "metavar": "MODEL"}
_MODELS = _MODEL_FILE | {"nargs": "+"}
_ROOT = {"type": _path, "metavar": "ROOT"}
_FILE = {"type": _path, "metavar": "FILE"}
_NEEDED = _FILE | {"required": True}
_FOLDER = {"type": _path, "metavar": "FOLDER"}
_N = {"type": int, "metavar": "N"}
_SEVERAL = _N | {"nargs": "+"}
_NUMBER = {"type": float, "metavar": "NUMBER"}
_NAME = {"metavar": "NAME"}
_NAMES = _NAME | {"nargs": "+"}
_YES_OR_NO = {"action": argparse.BooleanOptionalAction}
_METRICS = {"choices": ("balanced_accuracy", "f1", "cost")}
_ENCODERS = {"choices": ("efficientnet-lite0", "efficientnet-lite2")}
_WEBHOOK_ON = {"choices": ("reject", "warn", "all")}
_DTYPES = {"choices": ("uint8", "uint16", "float32")}
_ADDRESS = {"metavar": "ADDRESS"}
_CALIBRATIONS = {"choices": ("split", "cross")}

_PROMISE = "promised rate of false alarms on good images"
_LAYOUT = "train/good, test/good, test/DEFECT and ground_truth/DEFECT"
_SCALES = "largest defect expected, in pixels; several for several scales (default: 40)"
_AT_SIZE = "compare at N x N, or height x width (default: median size, at most 512)"
_RESIZE = "resize images to N x N, or to height x width (default: as they are)"
_FEW = "cross: for few images, without a promise (default: split)"
_CAMERA = "of the camera's images (default: that of --images; else uint8)"
_MASK = "mask of the images' size, or of --image-size: white where to look, else black"
_PASSES = "passes over the training images (default: 75); 0 with an encoder: none"
_SELECT = "mark as selected so many that at most this share of them should be good"
_WATCH = "watch for drift in the order of scores.csv; a JSON file keeps the state"
_PICTURES = "write a picture for each image (default: yes; no with --scheduler)"
_CLUSTER = "of a Dask cluster that scores, as tcp://10.0.0.5:8786 (default: none)"
_KEPT = "results; runs that it holds are not made again (default: %(default)s)"
_LABELS = "CSV table path,label of images; labels are good and bad"

# Arguments of several commands.
_MODEL = ("model", "file of a model", _MODEL_FILE)
_EXCLUDE = ("--exclude", "CSV file; images in its column path are left out", _FILE)
_RECURSIVE = ("--recursive", "search subfolders, too", _FLAG)
_EPOCHS = ("--epochs", _PASSES, _N)
_ENCODER = ("--encoder", "pretrained network that helps (default: none)", _ENCODERS)
_SEED = ("--seed", "equal seeds give equal results (default: 0)", _N | {"default": 0})
_PATCH_SIZE = ("--patch-size", _SCALES, _SEVERAL)
_IMAGE_SIZE = ("--image-size", _RESIZE, _SEVERAL)
_DEVICE = ("--device", "auto, cpu, cuda, cuda:1 and so on (default: auto)", _NAME)
_MODEL_DEVICE = ("--device", "auto, cpu, cuda and so on (default: the model's)", _NAME)
_TARGET_FPR = ("--target-fpr", f"{_PROMISE} (default: 0.05)", _NUMBER)
_OTHER_FPR = ("--target-fpr", f"{_PROMISE} (default: the model's)", _NUMBER)

_DEMO = [
    ("--output", "for demo.png (default: %(default)s)", _FOLDER),
    _ENCODER,
    _EPOCHS,
    _SEED,
]
_FIT = [
    ("folder", "of good images", _FOLDER),
    _RECURSIVE,
    _EXCLUDE,
    ("--model", "for the model, as part.safetensors", _NEEDED),
    _PATCH_SIZE,
    _IMAGE_SIZE,
    ("--gray", "read colour as gray", _FLAG),
    ("--roi", _MASK, _FILE),
    _ENCODER,
    _EPOCHS,
    ("--batch-size", "images at a time; fewer take less memory (default: 16)", _N),
    ("--calibration", _FEW, _CALIBRATIONS),
    [
        _TARGET_FPR,
        ("--contamination", "flag this share of the training images", _NUMBER),
    ],
    _DEVICE,
    _SEED,
]
_SCORE = [
    _MODEL,
    ("paths", "image files, and folders of them", _PATHS),
    _RECURSIVE,
    ("--output", "for scores.csv and heat_maps/ (default: %(default)s)", _FOLDER),
    ("--heat-maps", _PICTURES, _YES_OR_NO),
    ("--resume", "keep the rows of a stopped run and score the rest", _FLAG),
    [
        ("--threshold", "flag images whose map exceeds this", _NUMBER),
        _OTHER_FPR,
    ],
    ("--fdr", _SELECT, _NUMBER),
    ("--monitor", _WATCH, _FILE),
    ("--baseline", "for a new --monitor: compare with the first N images", _N),
    ("--scheduler", _CLUSTER, _ADDRESS),
    _MODEL_DEVICE,
]
_AUDIT = [
    ("folders", "of good images", _FOLDER | {"nargs": "+"}),
    _RECURSIVE,
    _EXCLUDE,
    ("--test", "test images, with subfolders, to be searched for copies", _FOLDER),
    ("--output", "page; the table is beside it (default: %(default)s)", _FILE),
    ("--encoder", "network that compares (default: %(default)s)", _ENCODERS),
    ("--image-size", _AT_SIZE, _SEVERAL),
    ("--gray", "read colour as gray", _FLAG),
    _DEVICE,
    _SEED,
]
_REPORT = [
    _MODEL,
    ("paths", "image files, and folders of them", _PATHS),
    _RECURSIVE,
    ("--output", "for the report (default: %(default)s)", _FILE),
    [
        ("--labels", _LABELS, _FILE),
        ("--folder-labels", "good: images in folders named good; bad: others", _FLAG),
    ],
    ("--max-pictures", "most pictures to keep (default: 1000)", _N),
    ("--n-to-mark", "size of the random sample to mark (default: 50)", _N),
    ("--n-to-explain", "anomalous images to explain, worst first (default: 20)", _N),
    ("--good", "of good images: the nearest one is shown beside those", _FOLDER),
    _SEED,
    _MODEL_DEVICE,
]
_CALIBRATE = [
    _MODEL,
    ("folder", "of good images", _FOLDER),
    ("--labels", f"{_LABELS}, all in FOLDER; its other images do not count", _FILE),
    _RECURSIVE,
    ("--output", "where the model goes (default: it replaces MODEL)", _FILE),
    [
        _OTHER_FPR,
        ("--anomalous", "of anomalous images, to be told from the good ones", _FOLDER),
    ],
    ("--metric", "of the best threshold (default: balanced_accuracy)", _METRICS),
    ("--cost-miss", "of a missed defect, with --metric cost (default: 1)", _NUMBER),
    ("--cost-false-alarm", "of a false alarm (default: 1)", _NUMBER),
]
_EXPLAIN = [
    _MODEL,
    ("image", "file of the image", {"type": _path, "metavar": "IMAGE"}),
    ("--good", "of good images, to find patches like the one at the peak", _FOLDER),
    _RECURSIVE,
    ("--output", "for a picture, as explanation.png (default: none)", _FILE),
    _MODEL_DEVICE,
]
_EXPORT = [
    _MODEL,
    ("--output -o", "for the graph, as part.onnx", _NEEDED),
    ("--dtype", _CAMERA, _DTYPES),
    ("--images", "to compare both on (default: photographs of skad, noise)", _FOLDER),
    _RECURSIVE,
]
_BENCHMARK = [
    ("root", f"folder of categories, each with {_LAYOUT}", _ROOT),
    ("--categories", "only these (default: all)", _NAMES),
    ("--seeds", "a run for each (default: 0 1 2)", _SEVERAL | {"default": [0, 1, 2]}),
    _PATCH_SIZE,
    _IMAGE_SIZE,
    _ENCODER,
    _EPOCHS,
    _DEVICE,
    ("--output", _KEPT, _FILE),
    ("--models", "for the detectors, as CATEGORY-SEED.safetensors", _FOLDER),
]

_SERVE = [
    ("models", "files of models, of skad fit or (.onnx) of skad export", _MODELS),
    ("--name", "names of the models (default: those of their files)", _NAMES),
    ("--host", "address to listen at (default: 127.0.0.1)", _NAME),
    ("--port", "port to listen at; 0: any that is free (default: 8000)", _N),
    ("--allow-host", "more names by which clients may call the service", _NAMES),
    ("--token-file", "with the token that clients must send ($SKAD_TOKEN, too)", _FILE),
    ("--warn-fpr", "promised share of good images warned about or rejected", _NUMBER),
    ("--reject-fpr", "promised share rejected (default: the model's)", _NUMBER),
    ("--device", "auto, cpu, cuda and so on (default: the model's)", _NAME),
    ("--state", "for the log of verdicts, and what waits for the webhook", _FOLDER),
    ("--webhook", "address that verdicts are posted to, as JSON", {"metavar": "URL"}),
    ("--webhook-on", "verdicts that are posted (default: reject)", _WEBHOOK_ON),
    ("--watch", "inspect images that are written to it, too", _FOLDER),
    ("--watch-model", "model for these images, if there are several", _NAME),
    ("--queue", "requests under way, at most (default: 64)", _N),
    ("--max-body", "bytes of a request, at most (default: 32000000)", _N),
    ("--max-pixels", "pixels of an image, at most (default: 50000000)", _N),
    ("--body-timeout", "seconds for a request to arrive (default: 15)", _NUMBER),
    ("--timeout", "seconds from then to the verdict (default: 30)", _NUMBER),
    ("--images", "recent images to keep in memory (default: 100)", _N),
    ("--collect", "for images that are marked as good or bad on the page", _FOLDER),
    ("--log-size", "verdicts to keep in the log (default: 1000000)", _N),
    ("--spool", "verdicts that wait for the webhook (default: 10000)", _N),
]

_COMMANDS: dict[str, command_line.Command] = {
    "demo": (
        "Find planted defects in a photographed surface. A picture shows them.",
        _DEMO,
        {"output": Path("skad-demo"), "epochs": 75},
    ),
    "audit": (
        "Find good images that may be bad, before they are learned from. Each is "
        "scored by what the others teach; copies and unusual files are named. A page "
        "shows them and exports those that you choose, for skad fit --exclude. Needs "
        "Jinja2 and the encoder's weights.",
        _AUDIT,
        {"output": Path("audit.html"), "encoder": "efficientnet-lite0"},
    ),
    "fit": (
        "Learn from a folder of good images, and store the model. Run the same command "
        "again to resume a training that was stopped: FILE.unfinished holds it.",
        _FIT,
        {},
    ),
    "score": (
        "Score image files with a learned model. They are read as its training images "
        "were. The exit code is 1 if a file could not be read. With --scheduler, a "
        "Dask cluster scores and writes Parquet; see docs/distributed.md.",
        _SCORE,
        {"output": Path("skad-scores")},
    ),
    "explain": (
        "Explain the score of an image. Tells what each branch adds to the peak of its "
        "anomaly map and, with --good, which good patches look like the one there. "
        "--output needs matplotlib.",
        _EXPLAIN,
        {},
    ),
    "report": (
        "Write a report about image files, as one HTML page. It has a threshold to "
        "move, heat maps and regions, and exports marks for skad calibrate. The exit "
        "code is 1 if a file could not be read. Needs Jinja2.",
        _REPORT,
        {"output": Path("skad-report.html")},
    ),
    "calibrate": (
        "Recalibrate the threshold of a model. Good images set it for a promised rate "
        "of false alarms; with --anomalous, or bad images among --labels, it is set "
        "where it tells both apart best, unless you give --target-fpr with --labels: "
        "then the good ones alone set it. Training must not have seen these images.",
        _CALIBRATE,
        {},
    ),
    "info": ("Describe a model, its parameters and its threshold.", [_MODEL], {}),
    "serve": (
        "Answer over HTTP with verdicts about images. A model whose file is replaced "
        "is loaded anew. See docs/service.md. Needs FastAPI and uvicorn: "
        'pip install "skad[serve]".',
        _SERVE,
        {},
    ),
    "export": (
        "Export a model to ONNX, for use without torch. Both are compared on images "
        "before the file is written. The threshold is in its metadata.",
        _EXPORT,
        {},
    ),
    "benchmark": (
        "Measure on data sets in the layout of MVTec AD. Each category runs with each "
        "seed. The exit code is 1 if a run failed. Needs pandas and tabulate.",
        _BENCHMARK,
        {"output": Path("skad-benchmark.json")},
    ),
}


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line; `command` is the name of the command."""
    description = "Visual anomaly detection that learns from good images alone."
    return command_line.make_parser("skad", description, _COMMANDS)
