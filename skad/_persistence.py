"""A fitted detector as one safetensors file: all numbers, and JSON in the header.

The format is described in [1]_. Loading runs no code from the file, and builds nothing
before all of it has been checked.

References
----------
.. [1] https://github.com/huggingface/safetensors
"""

import errno
import json
import os
import secrets
from contextlib import suppress
from dataclasses import asdict, fields
from numbers import Integral, Real
from pathlib import Path
from reprlib import repr as short_repr
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes
from sklearn.utils.validation import check_is_fitted

from skad import __version__
from skad._detector import PatchAutoencoderDetector
from skad._inputs import Format, format_of
from skad._maps import array_shapes, from_arrays, to_arrays
from skad._parameters import device_at_hand, image_size, patch_sizes
from skad._threshold import LabelledThreshold

FORMAT_VERSION = 1
_NOT_IN_HEADER = {
    "roi",  # is an array
    "memory",  # names a folder of this machine, from which joblib unpickles
}
_LARGEST_SIZE = 2**31 - 1  # of an image's side, in pixels or features
_LARGEST_NUMBER = 1e300
_SMALLEST_STD = 1e-12  # of images; smaller ones would make numbers overflow


def save(detector: PatchAutoencoderDetector, path: str | os.PathLike) -> None:
    """Store a fitted detector in one file.

    The file is written beside its place and then renamed, so that an older file under
    this name survives whatever goes wrong.

    Parameters
    ----------
    detector : PatchAutoencoderDetector
        Fitted. Of its parameters, `memory` and a `random_state` that is a RandomState
        are not stored: the loaded detector has None there.
    path : str or os.PathLike
        Usually ends in ".safetensors". Its folder must exist.

    Raises
    ------
    TypeError
        If it is another kind of estimator.
    sklearn.exceptions.NotFittedError
    ValueError
        If a parameter was set to something out of its range after the fit.
    OSError
        If the file cannot be written; nothing is left behind then.
    """
    if not isinstance(detector, PatchAutoencoderDetector):
        raise TypeError(
            f"save stores a PatchAutoencoderDetector; got {type(detector).__name__}. "
            "Take it out of its pipeline or search first, or use joblib.dump."
        )
    check_is_fitted(detector)
    _check_consistent(detector, detector._format)
    arrays = to_arrays(detector._mapper)
    arrays["calibration_scores"] = detector.calibration_scores_
    arrays = {
        name: np.require(array, requirements="C") for name, array in arrays.items()
    }
    content = to_bytes(arrays, {"skad": json.dumps(_plain(_describe(detector)))})
    try:
        _write(Path(path), content)
    except OSError as error:
        raise OSError(
            error.errno,
            f"{error.strerror or error}; the detector is not stored. See that the path "
            "names a file in a folder that exists, can be written to and has room",
            str(path),
        ) from error


def load(path: str | os.PathLike) -> PatchAutoencoderDetector:
    """Load a detector that `save` stored.

    Parameters
    ----------
    path : str or os.PathLike

    Returns
    -------
    detector : PatchAutoencoderDetector
        Fitted, on the device that its parameter `device` names, or on the CPU if this
        machine does not have that one.

    Raises
    ------
    FileNotFoundError
    ValueError
        If the file is truncated, of another kind or version, or inconsistent.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no model file at {str(path)!r}.")
    try:
        with safe_open(path, framework="numpy") as file:
            description = _parse((file.metadata() or {}).get("skad"))
            slices = {name: file.get_slice(name) for name in file.keys()}
            _check_layout(
                {k: (tuple(s.get_shape()), s.get_dtype()) for k, s in slices.items()},
                description,
            )
            arrays = {name: file.get_tensor(name) for name in slices}
        _check_numbers(arrays)
        return _build(arrays, description)
    except (SafetensorError, _Unfit) as error:
        raise ValueError(
            f"{str(path)!r} is not a model file that skad {__version__} can read: "
            f"{error}. Store the detector again with skad.save; a file written by "
            "joblib is read by joblib.load."
        ) from error


class _Unfit(Exception):
    """What is wrong with a file."""


def _describe(detector: PatchAutoencoderDetector) -> dict[str, Any]:
    """Return what the header tells: everything that is not an array."""
    parameters = detector.get_params(deep=False)
    threshold = getattr(detector, "labelled_threshold_", None)
    return {
        "format_version": FORMAT_VERSION,
        "skad_version": __version__,
        "parameters": {k: v for k, v in parameters.items() if k not in _NOT_IN_HEADER},
        "format": detector._format._asdict(),
        "feature_names": getattr(detector, "feature_names_in_", None),
        "std": detector._mapper.preparation.std,
        "working_size": detector._mapper.preparation.working_size,
        "offset": detector.offset_,
        "mean_map": detector.mean_map_,
        "history": detector.history_,
        "labelled_threshold": None if threshold is None else asdict(threshold),
    }


def _plain(value: Any) -> Any:
    """Turn a value into what JSON can hold; what it cannot hold becomes None."""
    if isinstance(value, dict):
        return {str(name): _plain(v) for name, v in value.items()}
    if isinstance(value, (tuple, list, np.ndarray)):
        return [_plain(v) for v in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    return str(value) if isinstance(value, str) else None


def _write(path: Path, content: bytes) -> None:
    if path.is_dir():
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


def _parse(text: str | None) -> dict[str, Any]:
    """Read and check the JSON of the header."""
    if text is None:
        raise _Unfit("it has no header of skad, so another program wrote it")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _Unfit(f"its header is not JSON ({error})") from None
    version = found.get("format_version") if isinstance(found, dict) else None
    if type(version) is not int:
        raise _Unfit("its header has no format version")
    if version != FORMAT_VERSION:
        raise _Unfit(
            f"it has format version {short_repr(version)}, written by skad "
            f"{short_repr(found.get('skad_version'))}; this is version {FORMAT_VERSION}"
        )
    for name, is_valid in _RULES.items():
        if name not in found:
            raise _Unfit(f"{name} is missing in its header")
        if not is_valid(found[name]):
            raise _Unfit(f"{name} in its header is {short_repr(found[name])}")
    return found


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= _LARGEST_NUMBER  # no NaN


def _is_size(value: Any, lengths: range) -> bool:
    return (
        isinstance(value, list)
        and len(value) in lengths
        and all(type(v) is int and 1 <= v <= _LARGEST_SIZE for v in value)
    )


def _is_parameters(value: Any) -> bool:
    """Tell whether these are the parameters; their ranges are not checked here."""
    known = PatchAutoencoderDetector().get_params().keys() - _NOT_IN_HEADER
    return (
        isinstance(value, dict)
        and value.keys() == known
        and all(
            v is None
            or isinstance(v, (bool, str))
            or _is_number(v)
            or _is_size(v, range(1, 1000))
            for v in value.values()
        )
    )


def _is_format(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == set(Format._fields)
        and _is_size(value["shape"], range(1, 4))
        and _is_size(value["image_shape"], range(3, 4))
        and value["kind"] in ("integer", "unscaled integer", "float")
    )


def _is_history(value: Any) -> bool:
    """Tell whether it is a list of dicts of numbers; a loss may be infinite."""
    return isinstance(value, list) and all(
        isinstance(epoch, dict)
        and {"epoch", "loss"} <= epoch.keys()
        and all(_is_number(v) or isinstance(v, float) for v in epoch.values())
        for epoch in value
    )


def _is_labelled_threshold(value: Any) -> bool:
    def is_pair(v: Any) -> bool:
        return isinstance(v, list) and len(v) == 2 and all(map(_is_number, v))

    names = {field.name for field in fields(LabelledThreshold)}
    pairs = {"detection_interval", "false_alarm_interval"}
    return value is None or (
        isinstance(value, dict)
        and value.keys() == names
        and isinstance(value["metric"], str)
        and all(is_pair(value[name]) for name in pairs)
        and all(_is_number(value[name]) for name in names - pairs - {"metric"})
    )


_RULES = {
    "parameters": _is_parameters,
    "format": _is_format,
    "feature_names": lambda value: (
        value is None
        or (isinstance(value, list) and all(isinstance(v, str) for v in value))
    ),
    "std": lambda value: _is_number(value) and value >= _SMALLEST_STD,
    "working_size": lambda value: _is_size(value, range(2, 3)),
    "offset": _is_number,
    "mean_map": _is_number,
    "history": _is_history,
    "labelled_threshold": _is_labelled_threshold,
}


def _check_layout(
    layout: dict[str, tuple[tuple[int, ...], str]], description: dict[str, Any]
) -> None:
    """Compare the arrays' names, shapes and types with those that belong here."""
    height, width, n_channels = description["format"]["image_shape"]
    shapes = array_shapes(n_channels, tuple(description["working_size"]))
    n_scores, _ = layout.get("calibration_scores", ((), ""))
    shapes["calibration_scores"] = n_scores[:1]
    if "roi" in layout:
        shapes["roi"] = height, width
    expected = {name: (shape, _type_of(name)) for name, shape in shapes.items()}
    for name in sorted(expected.keys() | layout.keys()):
        found, right = layout.get(name, "missing"), expected.get(name, "nothing")
        if found != right:
            raise _Unfit(f"{name} is {found} where {right} belongs")


def _type_of(name: str) -> str:
    """Name the type of an array as safetensors does."""
    if name.endswith("num_batches_tracked"):
        return "I64"
    return "F64" if name in ("mean", "calibration_scores") else "F32"


def _check_numbers(arrays: dict[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise _Unfit(f"{name} has values that are not finite")
        if name.endswith("running_var") and array.min() < 0:
            raise _Unfit(f"{name} has negative values")
    scores = arrays["calibration_scores"]
    if not len(scores) or (np.diff(scores) < 0).any():
        raise _Unfit("calibration_scores are not a sorted list of numbers")
    if "roi" in arrays and not (arrays["roi"] > 0).any():
        raise _Unfit("roi leaves nothing to look at")


def _build(
    arrays: dict[str, np.ndarray], description: dict[str, Any]
) -> PatchAutoencoderDetector:
    parameters = {k: _tupled(v) for k, v in description["parameters"].items()}
    roi = arrays.get("roi")
    parameters["roi"] = None if roi is None else roi > 0
    detector = PatchAutoencoderDetector(**parameters)
    format = Format(**{k: _tupled(v) for k, v in description["format"].items()})
    try:
        _check_consistent(detector, format)
    except ValueError as error:
        raise _Unfit(str(error)) from None
    calibration_scores = arrays.pop("calibration_scores")
    mapper = from_arrays(
        arrays,
        std=description["std"],
        input_size=format.image_shape[:2],
        working_size=_tupled(description["working_size"]),
    )
    mapper.to(device_at_hand(detector.device))
    detector._set_fitted(mapper, format, description["history"])
    detector.calibration_scores_ = calibration_scores
    detector.mean_map_ = float(description["mean_map"])
    detector._set_offset(description["offset"])
    if description["feature_names"] is not None:
        detector.feature_names_in_ = np.array(description["feature_names"], object)
    threshold = description["labelled_threshold"]
    if threshold is not None:
        detector.labelled_threshold_ = LabelledThreshold(
            **{k: _tupled(v) for k, v in threshold.items()}
        )
    return detector


def _check_consistent(detector: PatchAutoencoderDetector, format: Format) -> None:
    """Raise a ValueError where values are out of their ranges or contradict others."""
    detector._validate_params()
    patch_sizes(detector.patch_size)
    image_size(detector.image_size, format.image_shape[:2])
    image_shape = format.image_shape if format.is_row else None
    seen = format_of(format.shape, np.dtype(float), image_shape)
    if seen.image_shape != format.image_shape:
        raise ValueError(f"images of shape {format.shape} are not {format.image_shape}")


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
