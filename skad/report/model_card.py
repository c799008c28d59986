"""What a model is, in pairs of a term and a text."""

import os
from datetime import datetime
from pathlib import Path
from typing import Any

from skad.model_io.fingerprint import fingerprint
from skad.threshold.conformal import promise_in_words

_NOT_SHOWN = ("roi", "memory", "verbose")  # arrays, files of this machine, the screen


def model_card(detector: Any, file: Path | None = None) -> list[tuple[str, str]]:
    """Describe a fitted detector and, if it has a threshold, what that promises."""
    known, format = detector.provenance_, detector.fitted.format
    parameters = detector.get_params(deep=False)
    shown = {k: v for k, v in parameters.items() if k not in _NOT_SHOWN}
    size = " x ".join(map(str, format.shape))
    encoder = detector.fitted.mapper.settings.get("encoder") or {}
    rows = [
        ("File", "" if file is None else os.fspath(file)),
        ("SHA-256", fingerprint(detector)),
        ("Detector", type(detector).__name__),
        ("Trained", _date(known.get("fitted_at"))),
        ("Good images", _images(known)),
        ("From", known.get("source") or ""),
        ("Image size", f"{size}, resized to it" if format.any_size else size),
        ("Region of interest", "yes" if parameters.get("roi") is not None else "whole"),
        ("Encoder", encoder.get("name") or ("your own" if encoder else "none")),
    ]
    if hasattr(detector, "offset_"):
        rows += [
            ("Threshold", f"{detector.pixel_threshold_:.6g}"),
            ("Promise", promise_in_words(detector)),
        ]
    rows += [
        ("Parameters", ", ".join(f"{k}={v!r}" for k, v in sorted(shown.items()))),
        ("Versions", _versions(known)),
    ]
    return [(term, str(text)) for term, text in rows if text]


def _date(text: Any) -> str:
    """Return a time in words, or as it stands in the file of somebody else."""
    try:
        return f"{datetime.fromisoformat(text):%d %B %Y, %H:%M %Z}"
    except (TypeError, ValueError):
        return str(text or "")


def _images(known: dict[str, Any]) -> str:
    names = {"n_images": "in all", "n_training": "trained on"}
    names["n_calibration"] = "held out for the threshold"
    return ", ".join(f"{known[k]} {words}" for k, words in names.items() if k in known)


def _versions(known: dict[str, Any]) -> str:
    names = {"skad": "skad_version", "torch": "torch_version"}
    return ", ".join(f"{k} {known[name]}" for k, name in names.items() if name in known)
