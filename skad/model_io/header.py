"""The JSON in the header of a model file: how it is made, and what it may hold."""

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from numbers import Integral, Real
from reprlib import repr as short_repr
from typing import Any

import numpy as np

from skad.images.inputs import Format
from skad.threshold.conformal import LabelledThreshold

FORMAT_VERSION = 9  # also raised where the same numbers come to mean other scores
READABLE = (8, FORMAT_VERSION)
LARGEST_SIZE = 2**31 - 1  # of an image's side, in pixels or features
_LARGEST_NUMBER = 1e300

Rules = Mapping[str, Callable[[Any], bool]]  # what values are right, by their names


class Unfit(Exception):
    """What is wrong with a file."""


def plain(value: Any) -> Any:
    """Turn a value into what JSON can hold; what it cannot hold becomes None."""
    if isinstance(value, dict):
        return {str(name): plain(v) for name, v in value.items()}
    if isinstance(value, (tuple, list, np.ndarray)):
        return [plain(v) for v in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    return str(value) if isinstance(value, str) else None


def tupled(value: Any) -> Any:
    """Turn a list of JSON back into a tuple."""
    return tuple(value) if isinstance(value, list) else value


def parse(text: str | None) -> dict[str, Any]:
    """Read a header; nothing but its version is checked.

    Parameters
    ----------
    text : str or None

    Returns
    -------
    description : dict

    Raises
    ------
    Unfit
        If it is no header, or one of another version.
    """
    if text is None:
        raise Unfit("it has no header of skad, so another program wrote it")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unfit(f"its header is not JSON ({error})") from None
    version = found.get("format_version") if isinstance(found, dict) else None
    if type(version) is not int:
        raise Unfit("its header has no format version")
    if version not in READABLE:
        raise Unfit(
            f"it has format version {short_repr(version)}, written by skad "
            f"{short_repr(found.get('skad_version'))}; this is version {FORMAT_VERSION}"
        )
    return found


def check(
    description: dict[str, Any], rules: Rules, *, may_be_missing: bool = False
) -> None:
    """Raise Unfit unless all that the rules name is there and as they say."""
    for name, is_valid in rules.items():
        if name not in description:
            if may_be_missing:
                continue
            raise Unfit(f"{name} is missing in its header")
        if not is_valid(description[name]):
            raise Unfit(f"{name} in its header is {short_repr(description[name])}")


def is_number(value: Any) -> bool:
    """Tell whether it is a number, finite and not too large to compute with."""
    return type(value) in (int, float) and abs(value) <= _LARGEST_NUMBER  # no NaN


def is_size(value: Any, lengths: range) -> bool:
    """Tell whether it is a list of so many sizes."""
    return (
        isinstance(value, list)
        and len(value) in lengths
        and all(type(v) is int and 1 <= v <= LARGEST_SIZE for v in value)
    )


def is_parameters(value: Any, known: set[str]) -> bool:
    """Tell whether these are the parameters; their ranges are not checked here."""
    return (
        isinstance(value, dict)
        and value.keys() == known
        and all(
            v is None
            or isinstance(v, (bool, str))
            or is_number(v)
            or is_size(v, range(1, 1000))
            for v in value.values()
        )
    )


def _is_format(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(Format._fields) - {"any_size"} <= value.keys() <= set(Format._fields)
        and type(value.get("any_size", False)) is bool
        and is_size(value["shape"], range(1, 4))
        and is_size(value["image_shape"], range(3, 4))
        and value["kind"] in ("integer", "unscaled integer", "float")
    )


def _is_history(value: Any) -> bool:
    """Tell whether it is a list of dicts of numbers; a loss may be infinite."""
    return isinstance(value, list) and all(
        isinstance(epoch, dict)
        and {"epoch", "loss"} <= epoch.keys()
        and all(is_number(v) or isinstance(v, float) for v in epoch.values())
        for epoch in value
    )


def _is_labelled_threshold(value: Any) -> bool:
    def is_pair(v: Any) -> bool:
        return isinstance(v, list) and len(v) == 2 and all(map(is_number, v))

    names = {field.name for field in fields(LabelledThreshold)}
    pairs = {"detection_interval", "false_alarm_interval"}
    return value is None or (
        isinstance(value, dict)
        and value.keys() == names
        and isinstance(value["metric"], str)
        and all(is_pair(value[name]) for name in pairs)
        and all(is_number(value[name]) for name in names - pairs - {"metric"})
    )


def _is_provenance(value: Any) -> bool:
    return isinstance(value, dict) and all(
        v is None or isinstance(v, str) or is_number(v) for v in value.values()
    )


OPTIONAL_RULES: Rules = {"provenance": _is_provenance}
RULES: Rules = {  # of what every kind of detector has
    "format": _is_format,
    "feature_names": lambda value: (
        value is None
        or (isinstance(value, list) and all(isinstance(v, str) for v in value))
    ),
    "offset": is_number,
    "mean_map": is_number,
    "promised_fpr": lambda value: value is None or (is_number(value) and 0 < value < 1),
    "history": _is_history,
    "checksum": lambda value: type(value) is int,
    "labelled_threshold": _is_labelled_threshold,
}
