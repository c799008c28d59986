"""The JSON in the header of a model file: its fields, and what each may hold."""

import json
import math
from dataclasses import asdict
from reprlib import repr as short_repr
from typing import Any

import numpy as np

from skad import __version__
from skad.common.json_fields import fits, is_number, is_rate, is_side
from skad.detectors.base import ImageDetector
from skad.detectors.dense import DenseAutoencoderDetector
from skad.detectors.fitted import Fitted
from skad.detectors.patch import PatchAutoencoderDetector
from skad.encoders.efficientnet_lite import NAMES
from skad.model_io.version_8 import add_to_8
from skad.network.dense import is_input_shape
from skad.threshold.conformal import METRICS

Header = dict[str, Any]

FORMAT_VERSION = 9  # rises where files change, or come to mean other scores
DETECTORS: dict[str, type[ImageDetector]] = {
    "PatchAutoencoderDetector": PatchAutoencoderDetector,
    "DenseAutoencoderDetector": DenseAutoencoderDetector,
}
# The roi is an array. The others name files of this machine, and joblib unpickles those
# of `memory`.
_NOT_IN_HEADER = {"roi", "memory", "model"}


def _parameter(value: Any) -> bool:
    sides = len(value) * [is_side] if isinstance(value, list) else None
    return fits(value, (None, bool, str, is_number, sides))


def _epoch(value: Any) -> bool:
    return isinstance(value, dict) and fits(value.get("loss"), (is_number, float))


_FIELDS: dict[str, Any] = {
    "skad_version": str,
    "format": {
        "shape": ([is_side], 2 * [is_side], 3 * [is_side]),
        "image_shape": 3 * [is_side],
        "kind": ("integer", "unscaled integer", "float"),
        "any_size": bool,
    },
    "feature_names": (None, lambda v: isinstance(v, list) and fits(v, len(v) * [str])),
    "history": lambda v: isinstance(v, list) and all(map(_epoch, v)),
    "provenance": dict,
    "offset": (None, is_number),  # None: there is no threshold yet
    "mean_map": (None, is_number),
    "promised_fpr": (None, is_rate),
    "is_cross": bool,
    "labelled_threshold": (
        None,
        {
            "offset": is_number,
            "metric": METRICS,
            "value": is_number,
            "detection_rate": is_number,
            "false_alarm_rate": is_number,
            "detection_interval": [is_number, is_number],
            "false_alarm_interval": [is_number, is_number],
        },
    ),
}
SETTINGS: dict[str, dict[str, Any]] = {  # of the mapper, besides the images' size
    "PatchAutoencoderDetector": {
        "std": lambda v: is_number(v) and v > 0,
        "working_size": 2 * [is_side],
        "has_network": bool,
        "encoder": (
            None,
            {
                "name": (None, NAMES),
                "digest": (None, str),
                "n_neighbours": is_side,
            },
        ),
    },
    "DenseAutoencoderDetector": {
        "network_shape": lambda v: fits(v, 3 * [is_side]) and is_input_shape(v),
    },
}


def header_of(detector: ImageDetector, fitted: Fitted) -> Header:
    """Return the header of a detector's file, without its checksum."""
    parameters, threshold = detector.get_params().items(), fitted.threshold
    header = {
        "format_version": FORMAT_VERSION,
        "skad_version": __version__,
        "kind": type(detector).__name__,
        "parameters": {k: v for k, v in parameters if k not in _NOT_IN_HEADER},
        "format": fitted.format._asdict(),
        "feature_names": getattr(detector, "feature_names_in_", None),
        "history": fitted.history,
        "provenance": fitted.provenance,
        "is_cross": threshold is not None and threshold.is_cross,
        **dict.fromkeys(("offset", "mean_map", "promised_fpr", "labelled_threshold")),
        **fitted.mapper.settings,
    }
    del header["input_size"]  # is in the format
    if threshold is not None:
        promised, labelled = threshold.promised_fpr, threshold.labelled
        header["offset"], header["mean_map"] = threshold.offset, threshold.mean_map
        header["promised_fpr"] = None if math.isnan(promised) else promised
        header["labelled_threshold"] = labelled and asdict(labelled)
    return read_header(json.dumps(header, default=_plain))


def _plain(value: Any) -> Any:
    """Turn what NumPy holds into what JSON can hold; a RandomState is not stored."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else None


def read_header(text: str) -> Header:
    """Return a header, lists as tuples; raise a ValueError where a field is wrong."""
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its header is not JSON ({error})") from None
    version = header.get("format_version") if isinstance(header, dict) else None
    if type(version) is not int:
        raise ValueError("its header has no format version of skad")
    if version not in (8, FORMAT_VERSION):
        advice = "update skad" if version > FORMAT_VERSION else "it is too old"
        found = short_repr(version)
        raise ValueError(f"format version {found} is not {FORMAT_VERSION}: {advice}")
    if version == 8:
        add_to_8(header)
    _check(header, "kind", tuple(DETECTORS))
    kind = header["kind"]
    names = DETECTORS[kind]().get_params().keys() - _NOT_IN_HEADER
    for name, rule in (_FIELDS | SETTINGS[kind]).items():
        _check(header, name, rule)
    _check(header, "parameters", lambda v: isinstance(v, dict) and v.keys() == names)
    for name in names:
        _check(header["parameters"], name, _parameter)
    for fields in (header, *header.values()):
        if isinstance(fields, dict):
            fields |= {k: tuple(v) for k, v in fields.items() if isinstance(v, list)}
    return header


def _check(header: Header, name: str, rule: Any) -> None:
    if name not in header:
        raise ValueError(f"{name} is missing in its header")
    if not fits(header[name], rule):
        raise ValueError(f"{name} in its header is {short_repr(header[name])}")
