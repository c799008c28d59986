"""A fitted detector as one safetensors file: all numbers, and JSON in the header.

The format is described in [1]_. Loading runs no code from the file, and builds nothing
before all of it has been checked.

References
----------
.. [1] https://github.com/huggingface/safetensors
"""

import json
import math
import os
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes
from sklearn.utils.validation import check_is_fitted

from skad import __version__
from skad._detector import PatchAutoencoderDetector, device_at_hand
from skad._inputs import Format
from skad._maps import array_shapes, from_arrays, to_arrays
from skad._threshold import LabelledThreshold

FORMAT_VERSION = 1
_LARGEST_SIDE = 2**20  # pixels


def save(detector: PatchAutoencoderDetector, path: str | os.PathLike) -> None:
    """Store a fitted detector in one file.

    The file is written beside its place and then renamed, so that an older file under
    this name survives whatever goes wrong.

    Parameters
    ----------
    detector : PatchAutoencoderDetector
        Fitted. A `joblib.Memory` or a RandomState among its parameters is not stored;
        the loaded detector has None there.
    path : str or os.PathLike
        Usually ends in ".safetensors". Its folder must exist.

    Raises
    ------
    sklearn.exceptions.NotFittedError
    OSError
        If the file cannot be written; nothing is left behind then.
    """
    check_is_fitted(detector)
    arrays = to_arrays(detector._mapper)
    arrays["calibration_scores"] = detector.calibration_scores_
    arrays = {
        name: np.require(array, requirements="C") for name, array in arrays.items()
    }
    preparation = detector._mapper.preparation
    description = {
        "format_version": FORMAT_VERSION,
        "skad_version": __version__,
        "parameters": _storable_parameters(detector),
        "format": detector._format._asdict(),
        "std": preparation.std,
        "working_size": preparation.working_size,
        "offset": detector.offset_,
        "mean_map": detector.mean_map_,
        "history": detector.history_,
    }
    if hasattr(detector, "labelled_threshold_"):
        description["labelled_threshold"] = asdict(detector.labelled_threshold_)
    _write(Path(path), to_bytes(arrays, {"skad": json.dumps(description)}))


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
            shapes = {k: tuple(file.get_slice(k).get_shape()) for k in file.keys()}
            _check_shapes(shapes, description)
            arrays = {name: file.get_tensor(name) for name in shapes}
        _check_numbers(arrays, description)
        return _build(arrays, description)
    except (SafetensorError, _Unfit) as error:
        raise ValueError(
            f"{str(path)!r} is not a model file that skad {__version__} can read: "
            f"{error}. Store the detector again with skad.save; a file written by "
            "joblib is read by joblib.load."
        ) from error


class _Unfit(Exception):
    """What is wrong with a file."""


def _storable_parameters(detector: PatchAutoencoderDetector) -> dict[str, Any]:
    """Return the parameters as JSON can hold them; the roi is stored as an array."""
    parameters = detector.get_params(deep=False)
    del parameters["roi"]

    def plain(value: Any) -> Any:
        if isinstance(value, (tuple, list)):
            return [plain(v) for v in value]
        if isinstance(value, np.generic):
            return value.item()
        return value if isinstance(value, (int, float, str, type(None))) else None

    return {name: plain(value) for name, value in parameters.items()}


def _write(path: Path, content: bytes) -> None:
    with NamedTemporaryFile(
        dir=path.parent, prefix=f".{path.name}.", suffix=".part", delete=False
    ) as file:
        part = Path(file.name)
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            part.chmod(0o666 & ~_umask())
            part.replace(path)
        except BaseException:
            with suppress(OSError):
                part.unlink()
            raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _parse(text: str | None) -> dict[str, Any]:
    """Read and check the JSON of the header."""
    if text is None:
        raise _Unfit("it has no header of skad, so another program wrote it")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _Unfit(f"its header is not JSON ({error})") from None
    if not isinstance(found, dict) or "format_version" not in found:
        raise _Unfit("its header has no format version")
    if found["format_version"] != FORMAT_VERSION:
        raise _Unfit(
            f"it has format version {found['format_version']!r}, written by skad "
            f"{found.get('skad_version')!r}; this is version {FORMAT_VERSION}"
        )
    for name, is_valid in _RULES.items():
        if name not in found or not is_valid(found[name]):
            raise _Unfit(f"{name} in its header is {str(found.get(name))[:100]}")
    known = set(PatchAutoencoderDetector().get_params()) - {"roi"}
    if set(found["parameters"]) != known:
        odd = sorted(set(found["parameters"]) ^ known)
        raise _Unfit(f"its parameters are not the detector's: {odd[:5]} differ")
    return found


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and math.isfinite(value)
    )


def _is_size(value: Any, lengths: tuple[int, ...]) -> bool:
    return (
        isinstance(value, list)
        and len(value) in lengths
        and all(type(v) is int and 1 <= v <= _LARGEST_SIDE for v in value)
    )


def _is_format(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == set(Format._fields)
        and _is_size(value["shape"], (1, 2, 3))
        and _is_size(value["image_shape"], (3,))
        and math.prod(value["shape"]) == math.prod(value["image_shape"])
        and value["kind"] in ("integer", "float")
    )


def _is_history(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(epoch, dict) and all(_is_number(v) for v in epoch.values())
        for epoch in value
    )


_RULES = {
    "parameters": lambda value: isinstance(value, dict),
    "format": _is_format,
    "std": lambda value: _is_number(value) and value > 0,
    "working_size": lambda value: _is_size(value, (2,)),
    "offset": _is_number,
    "mean_map": _is_number,
    "history": _is_history,
}


def _check_shapes(
    shapes: dict[str, tuple[int, ...]], description: dict[str, Any]
) -> None:
    height, width, n_channels = description["format"]["image_shape"]
    working_size = tuple(description["working_size"])
    if math.prod(working_size) > 2**6 * sum(math.prod(s) for s in shapes.values()):
        raise _Unfit(f"it is too short for a working size of {working_size}")
    expected = array_shapes(n_channels, working_size)
    for name in sorted(set(expected) | set(shapes) - {"roi", "calibration_scores"}):
        if shapes.get(name) != expected.get(name):
            raise _Unfit(
                f"{name} has shape {shapes.get(name)} where {expected.get(name)} "
                "belongs"
            )
    if shapes.get("roi", (height, width)) != (height, width):
        raise _Unfit(f"roi has shape {shapes['roi']}, the images {(height, width)}")
    if len(shapes.get("calibration_scores", ())) != 1:
        raise _Unfit("calibration_scores are missing or not a list")


def _check_numbers(arrays: dict[str, np.ndarray], description: dict[str, Any]) -> None:
    for name, array in arrays.items():
        integer = name == "gaussians.place" or name.endswith("num_batches_tracked")
        if integer != (array.dtype == np.int64) or array.dtype.kind not in "if":
            raise _Unfit(f"{name} has type {array.dtype}")
        if not np.isfinite(array).all():
            raise _Unfit(f"{name} has values that are not finite")
    place, n_places = arrays["gaussians.place"], len(arrays["gaussians.mean"])
    if place.min() < 0 or place.max() >= n_places:
        raise _Unfit("gaussians.place points outside of gaussians.mean")


def _build(
    arrays: dict[str, np.ndarray], description: dict[str, Any]
) -> PatchAutoencoderDetector:
    parameters = {k: _tupled(v) for k, v in description["parameters"].items()}
    roi = arrays.get("roi")
    parameters["roi"] = None if roi is None else roi > 0
    detector = PatchAutoencoderDetector(**parameters)
    try:
        detector._validate_params()
    except ValueError as error:
        raise _Unfit(str(error)) from None
    shape, image_shape, kind = (description["format"][k] for k in Format._fields)
    calibration_scores = arrays.pop("calibration_scores")
    mapper = from_arrays(
        arrays,
        std=description["std"],
        input_size=tuple(image_shape[:2]),
        working_size=tuple(description["working_size"]),
    )
    mapper.to(device_at_hand(detector.device))
    format = Format(tuple(shape), tuple(image_shape), kind)
    detector._set_fitted(mapper, format, description["history"])
    detector.calibration_scores_ = calibration_scores
    detector.mean_map_ = description["mean_map"]
    detector._set_offset(description["offset"])
    found = description.get("labelled_threshold")
    if found is not None:
        try:
            detector.labelled_threshold_ = LabelledThreshold(
                **{k: _tupled(v) for k, v in found.items()}
            )
        except (TypeError, AttributeError):
            raise _Unfit("labelled_threshold in its header is incomplete") from None
    return detector


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
