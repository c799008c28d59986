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
from dataclasses import asdict
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes
from sklearn.utils.validation import check_is_fitted

from skad import __version__
from skad.common.files import make_room_for, write_atomically
from skad.common.torch_settings import limit_threads
from skad.detectors.base import ImageDetector
from skad.detectors.fitted import Fitted, Threshold
from skad.detectors.parameters import device_at_hand, resolve_device
from skad.model_io.agreement import (
    check_finite_maps,
    check_format,
    check_history,
    check_threshold,
)
from skad.model_io.header import FORMAT_VERSION, Unfit, parse, plain, tupled
from skad.model_io.kinds import KINDS, Kind, format_in, kind_of
from skad.threshold.conformal import LabelledThreshold

_LARGEST_WEIGHT = 1e6  # far above what training gives
_LARGEST = 1e12  # of other numbers of a network: those of constant images reach 1e6
_OF_A_THRESHOLD = ("offset", "mean_map", "promised_fpr", "labelled_threshold")


def save(detector: ImageDetector, path: str | os.PathLike) -> None:
    """Store a fitted detector in one file.

    The file is written beside its place and then renamed, so that an older file under
    this name survives whatever goes wrong.

    Parameters
    ----------
    detector : PatchAutoencoderDetector or DenseAutoencoderDetector
        Fitted; the latter may lack a threshold. Of its parameters, `memory`, `model`
        and a `random_state` that is a RandomState are not stored: the loaded detector
        has None there.
    path : str or os.PathLike
        Usually ends in ".safetensors". Its folder is made if absent.

    Raises
    ------
    TypeError
        If it is another kind of estimator.
    sklearn.exceptions.NotFittedError
    ValueError
        If a parameter or `offset_` was set after the fit to something out of its range,
        or to what contradicts the fit.
    OSError
        If the file cannot be written; nothing is left behind then.
    """
    kinds = (k for k in KINDS.values() if type(detector) is k.detector)
    kind = next(kinds, None)
    if kind is None:
        raise TypeError(
            f"save stores a {' or a '.join(KINDS)}, and no subclass; got "
            f"{type(detector).__name__}. Take it out of its pipeline or search first, "
            "or use joblib.dump."
        )
    check_is_fitted(detector)
    fitted = detector.fitted  # once: another thread may calibrate meanwhile
    description = _describe(detector, fitted, kind)
    threshold = fitted.threshold
    scores = np.empty(0) if threshold is None else threshold.calibration_scores
    _check_consistent(detector, kind, description, scores)
    arrays = kind.to_arrays(fitted.mapper)
    arrays["calibration_scores"] = scores
    arrays["trained_on"] = fitted.trained_on
    if threshold is not None and threshold.statistics is not None:
        arrays["statistics"] = threshold.statistics
    arrays = {
        name: np.require(array, requirements="C") for name, array in arrays.items()
    }
    description["checksum"] = checksum(arrays, description)
    try:
        kind.check_header(description)
    except Unfit as error:
        raise ValueError(f"the detector cannot be stored: {error}") from None
    content = to_bytes(arrays, {"skad": json.dumps(description)})
    path = make_room_for(path)
    try:
        write_atomically(path, content)
    except OSError as error:
        raise OSError(
            error.errno,
            f"{error.strerror or error}; the detector is not stored. Free some room, "
            "or name a file in another folder",
            str(path),
        ) from error


@limit_threads()
def load(path: str | os.PathLike, device: str | None = None) -> ImageDetector:
    """Load a detector that `save` stored.

    Parameters
    ----------
    path : str or os.PathLike
    device : str, default=None
        Becomes the detector's parameter `device`: "auto", "cpu", "cuda", "cuda:1", …
        None = as stored.

    Returns
    -------
    detector : PatchAutoencoderDetector or DenseAutoencoderDetector
        Fitted, on the device that its parameter `device` names. A stored device that
        this machine does not have becomes the CPU.

    Raises
    ------
    FileNotFoundError
    PermissionError
        If the file cannot be read.
    ValueError
        If the file is truncated, damaged, of another kind or version, or inconsistent;
        if this machine does not have the `device` that you ask for.
    """
    if device is not None:
        resolve_device(device)
    path = Path(os.path.expanduser(path))
    if not path.is_file():
        raise FileNotFoundError(f"There is no model file at {str(path)!r}.")
    path.open("rb").close()  # safe_open says of any that it cannot open, "no such file"
    try:
        with safe_open(path, framework="numpy") as file:
            description = parse((file.metadata() or {}).get("skad"))
            kind = kind_of(description)
            kind.check_header(description)
            slices = {name: file.get_slice(name) for name in file.keys()}
            _check_layout(
                {k: (tuple(s.get_shape()), s.get_dtype()) for k, s in slices.items()},
                kind,
                description,
            )
            arrays = {name: file.get_tensor(name) for name in slices}
        _check_numbers(arrays, kind, description)
        if checksum(arrays, description) != description["checksum"]:
            raise Unfit("its checksum is another, so some of it was changed or damaged")
        return _build(arrays, kind, description, device)
    except (SafetensorError, Unfit) as error:
        raise ValueError(
            f"{str(path)!r} is not a model file that skad {__version__} can read: "
            f"{error}. Train and store the detector again; a file written by joblib is "
            "read by joblib.load, a model of the old script by skad convert."
        ) from error


def _describe(detector: Any, fitted: Fitted, kind: Kind) -> dict[str, Any]:
    """Return what the header tells: everything that is not an array."""
    parameters = detector.get_params(deep=False)
    description = {
        "format_version": FORMAT_VERSION,
        "skad_version": __version__,
        "kind": kind.detector.__name__,
        "parameters": {
            k: v for k, v in parameters.items() if k not in kind.not_in_header
        },
        "format": fitted.format._asdict(),
        "feature_names": getattr(detector, "feature_names_in_", None),
        **kind.describe(fitted.mapper),
        "history": fitted.history,
        "provenance": fitted.provenance,
        **_describe_threshold(fitted.threshold),
    }
    return plain(description)


def _describe_threshold(threshold: Threshold | None) -> dict[str, Any]:
    if threshold is None:
        return dict.fromkeys(_OF_A_THRESHOLD)
    promised, labelled = threshold.promised_fpr, threshold.labelled
    return {
        "offset": threshold.offset,
        "mean_map": threshold.mean_map,
        "promised_fpr": None if math.isnan(promised) else promised,
        "labelled_threshold": None if labelled is None else asdict(labelled),
    }


def checksum(arrays: dict[str, np.ndarray], description: dict[str, Any]) -> int:
    """Return a number that is another when bits of a file are damaged: its CRC-32."""
    told = {name: value for name, value in description.items() if name != "checksum"}
    found = crc32(json.dumps(told, sort_keys=True).encode())
    for name in sorted(arrays):
        found = crc32(arrays[name].tobytes(), found)
    return found


def _check_layout(
    layout: dict[str, tuple[tuple[int, ...], str]],
    kind: Kind,
    description: dict[str, Any],
) -> None:
    """Compare the arrays' names, shapes and types with those that belong here."""
    shapes = kind.shapes(description, set(layout))
    for name in ("calibration_scores", "trained_on"):  # of any length
        length, _ = layout.get(name, ((), ""))
        shapes[name] = length[:1]
    if "statistics" in layout:  # of any number of images, at least 1
        n_images = (*layout["statistics"][0], 1)[0]
        n_channels = description["format"]["image_shape"][2]
        shapes["statistics"] = (max(1, n_images), 3, n_channels)
    expected = {name: (shape, _type_of(name)) for name, shape in shapes.items()}
    for name in sorted(expected.keys() | layout.keys()):
        found, right = layout.get(name, "missing"), expected.get(name, "nothing")
        if found != right:
            raise Unfit(f"{name} is {found} where {right} belongs")


def _type_of(name: str) -> str:
    """Name the type of an array as safetensors does."""
    if name.endswith("num_batches_tracked"):
        return "I64"
    if name == "trained_on":
        return "U64"
    of_doubles = ("mean", "calibration_scores", "statistics")
    return "F64" if name in of_doubles else "F32"


def _check_numbers(
    arrays: dict[str, np.ndarray], kind: Kind, description: dict[str, Any]
) -> None:
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise Unfit(f"{name} has values that are not finite")
        most = _LARGEST_WEIGHT if name.endswith((".weight", ".bias")) else _LARGEST
        if _type_of(name) == "F32" and abs(array).max() > most:
            raise Unfit(f"{name} has values above {most:g}, as no training gives")
    scores = arrays["calibration_scores"]
    if not len(scores) and description["offset"] is None:  # no threshold yet
        pass
    elif not len(scores) or (np.diff(scores) < 0).any():
        raise Unfit("calibration_scores are not a sorted list of numbers")
    elif description["offset"] is None:
        raise Unfit("it has calibration_scores and no offset")
    trained_on = arrays["trained_on"]
    if (trained_on[1:] <= trained_on[:-1]).any():
        raise Unfit("trained_on is not a sorted list of numbers, each once")
    if "statistics" in arrays and description["offset"] is None:
        raise Unfit("it has statistics of no threshold")
    kind.check_arrays(arrays)


def _build(
    arrays: dict[str, np.ndarray],
    kind: Kind,
    description: dict[str, Any],
    device: str | None,
) -> ImageDetector:
    parameters = {k: tupled(v) for k, v in description["parameters"].items()}
    detector = kind.detector(**parameters, **kind.parameters(arrays))
    calibration_scores = arrays.pop("calibration_scores")
    trained_on = arrays.pop("trained_on")
    statistics = arrays.pop("statistics", None)
    format = format_in(description)
    try:
        _check_consistent(detector, kind, description, calibration_scores)
        mapper = kind.from_arrays(arrays, description)
        check_finite_maps(mapper, format, *kind.sizes(description))
    except ValueError as error:
        raise Unfit(str(error)) from None
    if device is not None:
        detector.set_params(device=device)
    mapper.to(device_at_hand(detector.device))
    if description["feature_names"] is not None:
        detector.feature_names_in_ = np.array(description["feature_names"], object)
    detector.fitted = Fitted(
        mapper,
        format,
        description["history"],
        trained_on,
        description.get("provenance", {}),
        threshold=_threshold_in(description, calibration_scores, statistics),
    )
    return detector


def _threshold_in(
    description: dict[str, Any],
    calibration_scores: np.ndarray,
    statistics: np.ndarray | None,
) -> Threshold | None:
    if description["offset"] is None:
        return None
    promised, labelled = description["promised_fpr"], description["labelled_threshold"]
    if labelled is not None:
        labelled = LabelledThreshold(**{k: tupled(v) for k, v in labelled.items()})
    return Threshold(
        offset=float(description["offset"]),
        calibration_scores=calibration_scores,
        mean_map=float(description["mean_map"]),
        promised_fpr=math.nan if promised is None else float(promised),
        labelled=labelled,
        statistics=statistics,
    )


def _check_consistent(
    detector: Any,
    kind: Kind,
    description: dict[str, Any],
    calibration_scores: np.ndarray,
) -> None:
    """Raise a ValueError where values are out of their ranges or contradict others."""
    detector._validate_params()
    check_format(
        format_in(description),
        detector.image_shape,
        description["feature_names"],
    )
    kind.check(detector, description)
    check_history(description["history"])
    check_threshold(description, calibration_scores)
