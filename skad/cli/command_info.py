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
        # Others' files may hold codes that control the terminal.
        printable = "".join(c if c.isprintable() else "?" for c in text)
        print(f"{name:14} {printable}")
    return 0


def _describe(model: Path) -> dict[str, str]:
    """Return what the file says, by topic."""
    with safe_open(model, framework="numpy") as file:
        header = json.loads((file.metadata() or {})["skad"])
        scores = file.get_tensor("calibration_scores")
        has_roi = "roi" in file.keys()
    format, history = header["format"], header["history"]
    size = " x ".join(map(str, format["shape"]))  # height, width and channels
    any_size = "any size, resized to " if format.get("any_size") else ""
    training = "elsewhere"
    if history:
        training = f"{len(history)} epochs, loss {history[-1]['loss']:.4g} in the last"
    return {
        "model": f"{model} ({model.stat().st_size / 1e6:.1f} MB)",
        "detector": str(header["kind"]),
        "learned": _listed(header.get("provenance") or {}) or "unknown",
        "images": f"{any_size}{size}, {format['kind']}{', with a roi' * has_roi}",
        "training": training,
        "parameters": _listed(header["parameters"]),
        **_threshold(header, scores),
        "file format": str(header["format_version"]),
    }


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{k}={v}" for k, v in values.items() if v is not None)


def _threshold(header: dict[str, Any], scores: Any) -> dict[str, str]:
    """Describe the threshold as the fitted detector would."""
    if header["offset"] is None:
        return {"threshold": "none yet: skad calibrate MODEL FOLDER sets it"}
    promised, labelled = header.get("promised_fpr"), header.get("labelled_threshold")
    fitted = SimpleNamespace(
        promised_fpr_=math.nan if promised is None else promised,
        offset_=header["offset"],
        calibration_scores_=scores,
        contamination=header["parameters"].get("contamination", "auto"),
        **({} if labelled is None else {"labelled_threshold_": labelled}),
    )
    return {
        "threshold": f"{-header['offset']:.6g}",
        "promise": promise_in_words(fitted),
        "calibration": f"{len(scores)} good images",
    }
