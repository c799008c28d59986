"""`skad info`: what a model is."""

import argparse
from typing import Any

from skad.cli.commands import print_threshold
from skad.model_io.fingerprint import fingerprint
from skad.model_io.model_file import load


def run(args: argparse.Namespace) -> int:
    """Run the command, and return its exit code."""
    detector = load(args.model, "cpu")
    format, history = detector.fitted.format, detector.fitted.history
    size = " x ".join(map(str, format.shape))  # height, width and channels
    any_size = "any size, resized to " if format.any_size else ""
    parameters = detector.get_params()
    roi = ", with a roi" if parameters.pop("roi", None) is not None else ""
    encoder = detector.fitted.mapper.settings.get("encoder")
    training = "elsewhere" if encoder is None else "none, as epochs=0"
    if history:
        training = f"{len(history)} epochs, loss {history[-1]['loss']:.4g} in the last"
    print(f"model          {args.model} ({args.model.stat().st_size / 1e6:.1f} MB)")
    print(f"SHA-256        {fingerprint(detector)}")
    print(f"detector       {type(detector).__name__}")
    print(f"learned        {_listed(detector.provenance_)}")
    print(f"images         {any_size}{size}, {format.kind}{roi}")
    print(f"training       {training}")
    if encoder is not None:
        print(f"encoder        {encoder['name']}, pretrained")
    print(f"parameters     {_listed(parameters)}")
    if hasattr(detector, "offset_"):
        print_threshold(detector)
        print(f"calibration    {len(detector.calibration_scores_)} good images")
    else:
        print("threshold      none yet: skad calibrate MODEL FOLDER sets it")
    return 0


def _listed(values: dict[str, Any]) -> str:
    # As repr: the files of others may hold codes that control the terminal.
    return ", ".join(f"{k}={v!r}" for k, v in values.items() if v is not None)
