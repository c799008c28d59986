"""`skad info`: what a model is, from the header of its file; torch is not loaded."""

import argparse
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from safetensors import SafetensorError, safe_open

from skad.threshold.conformal import promise_in_words


def run(args: argparse.Namespace) -> int:
    """Run the command, and return its exit code."""
    if not args.model.is_file():
        raise FileNotFoundError(f"there is no model file {args.model}")
    try:
        rows = _describe(args.model)
    except (SafetensorError, LookupError, ValueError, TypeError, AttributeError) as e:
        raise ValueError(f"{args.model} is not a model file of skad: {e}") from e
    for name, text in rows.items():
        printable = "".join(c if c.isprintable() or c == "\n" else "?" for c in text)
        print(f"{name:14} " + printable.replace("\n", "\n" + " " * 15))
    return 0


def _describe(model: Path) -> dict[str, str]:
    """Return what there is to say, by names."""
    with safe_open(model, framework="numpy") as file:
        header = json.loads((file.metadata() or {})["skad"])
        n_numbers = sum(math.prod(file.get_slice(k).get_shape()) for k in file.keys())
        scores = file.get_tensor("calibration_scores")
        roi = file.get_tensor("roi") if "roi" in file.keys() else None
    provenance, history = header.get("provenance") or {}, header["history"]
    training = "elsewhere"
    if history:
        epochs = "1 epoch" if len(history) == 1 else f"{len(history)} epochs"
        training = f"{epochs}, loss {history[-1]['loss']:.4g} in the last"
    versions = {
        "skad": header.get("skad_version"),
        "torch": provenance.get("torch_version"),
        "file format": header.get("format_version"),
    }
    megabytes = model.stat().st_size / 1e6
    return {
        "model": f"{model} ({megabytes:.1f} MB, {n_numbers:,} numbers)",
        "kind": str(header["kind"]),
        "learned": _learned(provenance),
        "images": _images(header["format"], roi),
        "training": training,
        "parameters": "\n".join(
            f"{name} = {' '.join(map(str, v)) if isinstance(v, list) else v}"
            for name, v in header["parameters"].items()
        ),
        **_threshold(header, scores),
        "versions": ", ".join(f"{k} {v}" for k, v in versions.items() if v is not None),
    }


def _learned(provenance: dict[str, Any]) -> str:
    """Say when, and from which images."""
    if provenance.get("n_images") == 0:
        return f"elsewhere; taken over at {provenance.get('fitted_at')}"
    words = {
        "n_images": "{} good images",
        "n_training": "{} of them trained it",
        "n_calibration": "{} held out",
        "source": "from {}",
        "fitted_at": "at {}",
    }
    known = [k for k in words if provenance.get(k) is not None]
    said = ", ".join(words[k].format(provenance[k]) for k in known)
    return said or "the file does not say when, nor from what"


def _images(format: dict[str, Any], roi: Any) -> str:
    shape = format["shape"]
    if len(shape) == 1:
        return f"rows of {shape[0]} numbers, {format['kind']}"
    channels = {(): "gray", (1,): "gray", (3,): "colour"}
    kind = channels.get(tuple(shape[2:]), f"{shape[-1]} channels")
    more = "" if roi is None else f"; {(roi > 0).mean():.0%} of each counts (roi)"
    if format.get("any_size"):
        more = "; of any size, resized to this one"
    return f"{shape[0]} x {shape[1]} (height x width), {kind}, {format['kind']}{more}"


def _threshold(header: dict[str, Any], scores: Any) -> dict[str, str]:
    if header["offset"] is None:
        return {"threshold": "none yet: skad calibrate MODEL FOLDER sets it"}
    promised = header.get("promised_fpr")
    fitted = SimpleNamespace(
        promised_fpr_=math.nan if promised is None else promised,
        offset_=header["offset"],
        calibration_scores_=scores,
        contamination=header["parameters"].get("contamination", "auto"),
    )
    if header.get("labelled_threshold") is not None:
        fitted.labelled_threshold_ = header["labelled_threshold"]
    return {
        "threshold": f"{-header['offset']:.6g}",
        "promise": promise_in_words(fitted),
        "calibration": f"{len(scores)} good images",
    }
