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
from pathlib import Path
from reprlib import repr as short_repr
from typing import Any
from zlib import crc32

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from skad import __version__
from skad.common.files import make_room_for, write_atomically
from skad.common.torch_settings import limit_threads
from skad.common.warnings import warn
from skad.detectors.base import ImageDetector
from skad.detectors.fitted import Fitted, Threshold
from skad.detectors.parameters import device_at_hand, resolve_device
from skad.encoders.efficientnet_lite import NOTICE
from skad.encoders.frozen import FrozenEncoder
from skad.images.inputs import Format
from skad.model_io.agreement import (
    Arrays,
    check_layout,
    check_numbers,
    check_parameters,
)
from skad.model_io.header import (
    DETECTORS,
    SETTINGS,
    Header,
    header_of,
    read_header,
)
from skad.model_io.version_8 import WARNING, from_8, is_of_other_scores
from skad.scoring.anomaly_map import AnomalyMapper, Mapper
from skad.scoring.dense_map import DenseMapper
from skad.threshold.conformal import LabelledThreshold


def save(
    detector: ImageDetector,
    path: str | os.PathLike,
    *,
    without_encoder: bool = False,
) -> None:
    """Store a fitted detector in one file.

    All of a new file is on the disk before it replaces an old one of its name.

    Parameters
    ----------
    detector : PatchAutoencoderDetector or DenseAutoencoderDetector
        Fitted. Its `memory`, its `model` and a `random_state` that is a RandomState are
        not stored: the loaded detector has None there.
    path : str or os.PathLike
        Usually ends in ".safetensors". Its folder is made if absent.
    without_encoder : bool, default=False
        True: leave an `encoder` of your own out, which `load` must be given again.

    Raises
    ------
    TypeError
        If it is another estimator, or of a subclass; if its `encoder` is a module of
        your own, whose code no file can hold, without `without_encoder`.
    sklearn.exceptions.NotFittedError
    ValueError
        If a parameter or `offset_` was set after the fit to something out of its range,
        or to what contradicts the fit.
    OSError
        If the file cannot be written.
    """
    if type(detector) not in DETECTORS.values():
        raise TypeError(
            f"save stores a {' or a '.join(DETECTORS)}, and no subclass; got "
            f"{type(detector).__name__}. Take it out of its pipeline or search first, "
            "or use joblib.dump."
        )
    fitted = detector.fitted  # once: another thread may calibrate meanwhile
    if (fitted.mapper.settings.get("encoder") or {}).get("digest"):
        if not without_encoder:
            raise TypeError(
                "the detector has an encoder of your own, and a file holds no code. "
                "Pass without_encoder=True here and the encoder to load, or use "
                "joblib.dump."
            )
    arrays = fitted.mapper.to_arrays()
    arrays |= {"trained_on": fitted.trained_on, "calibration_scores": np.empty(0)}
    if fitted.threshold is not None:
        arrays["calibration_scores"] = fitted.threshold.calibration_scores
        if fitted.threshold.statistics is not None:
            arrays["statistics"] = fitted.threshold.statistics
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    try:
        header = header_of(detector, fitted)
        check_parameters(header)
        check_numbers(header, arrays)
    except ValueError as error:
        raise ValueError(f"the detector cannot be stored: {error}") from None
    if (header.get("encoder") or {}).get("name"):
        header["notice"] = NOTICE  # of the weights' licence
    header["checksum"] = checksum(header, arrays)
    # One entry: safetensors writes several in any order.
    content = to_bytes(arrays, {"skad": json.dumps(header)})
    write_atomically(make_room_for(path), content)


@limit_threads()
def load(
    path: str | os.PathLike,
    device: str | None = None,
    *,
    encoder: FrozenEncoder | None = None,
) -> ImageDetector:
    """Load a detector that `save` stored.

    Parameters
    ----------
    path : str or os.PathLike
    device : str, default=None
        Becomes the detector's parameter `device`: "auto", "cpu", "cuda", "cuda:1", …
        None = as stored; a stored device that this machine lacks becomes the CPU.
    encoder : FrozenEncoder, default=None
        That of a file which was stored without it.

    Returns
    -------
    detector : PatchAutoencoderDetector or DenseAutoencoderDetector
        Fitted.

    Raises
    ------
    OSError
        If the file is missing or cannot be read.
    ValueError
        If the file is truncated, damaged, of another program or version, or contradicts
        itself; if this machine lacks the `device` that you ask for; if the `encoder` is
        missing, or not that of the file.
    """
    if device is not None:
        resolve_device(device)
    path = Path(os.path.expanduser(path))
    path.open("rb").close()  # safe_open says of any that it cannot open, "no such file"
    try:
        header, arrays = _read(path, encoder)
        detector = _build(header, arrays, encoder)
    except (SafetensorError, ValueError) as error:
        raise ValueError(
            f"{str(path)!r} is not a model file that skad {__version__} can read: "
            f"{error}. Files of joblib are read by joblib.load, models of the old "
            "script by AD; otherwise fit and save the detector again."
        ) from error
    if is_of_other_scores(header):
        warn(WARNING)
    if device is not None:
        detector.set_params(device=device)
    detector.fitted.mapper.to(device_at_hand(detector.device))
    return detector


def _read(path: Path, encoder: FrozenEncoder | None) -> tuple[Header, Arrays]:
    """Return what a file holds; raise a ValueError unless all of it is right."""
    with safe_open(path, framework="numpy") as file:
        text = (file.metadata() or {}).get("skad", "null")
        header = read_header(text)
        check_parameters(header)
        _check_encoder(header, encoder)
        parts = {name: file.get_slice(name) for name in file.keys()}
        layout = {k: (v.get_shape(), v.get_dtype()) for k, v in parts.items()}
        check_layout(header, layout, encoder)
        arrays = {name: file.get_tensor(name) for name in parts}
    if header.get("checksum") != checksum(json.loads(text), arrays):
        raise ValueError("its checksum is another, so it was changed or damaged")
    is_other = is_of_other_scores(header)
    arrays = from_8(arrays) if is_other else arrays
    check_numbers(header, arrays)
    if is_other:  # so the threshold promises nothing any more
        header |= {"promised_fpr": None, "labelled_threshold": None}
    return header, arrays


def _check_encoder(header: Header, encoder: FrozenEncoder | None) -> None:
    """Raise a ValueError unless an encoder was given where one is left out."""
    wanted = (header.get("encoder") or {}).get("digest")
    given = None if encoder is None else encoder.digest()
    if wanted is not None and given is None:
        raise ValueError(
            "it was stored without its encoder. Pass the same skad.FrozenEncoder as "
            "encoder"
        )
    if wanted != given:
        raise ValueError(
            f"encoder has the digest {short_repr(given)}; that of the file is "
            f"{short_repr(wanted)}. Pass the encoder that it was fitted with"
        )


def _build(header: Header, arrays: Arrays, encoder: FrozenEncoder | None) -> Any:
    """Build a detector, on the CPU, of what was checked."""
    detector: Any = DETECTORS[header["kind"]](**header["parameters"])
    if encoder is not None:
        detector.set_params(encoder=encoder)
    if "roi" in arrays:
        detector.set_params(roi=arrays["roi"] > 0)
    if header["feature_names"] is not None:
        detector.feature_names_in_ = np.array(header["feature_names"], object)
    format = Format(**header["format"])
    trained_on, threshold = arrays.pop("trained_on"), _threshold_of(header, arrays)
    settings = {name: header[name] for name in SETTINGS[header["kind"]]}
    settings["input_size"] = format.image_shape[:2]
    of_dense = "network_shape" in header
    mapper_class: type[Mapper] = DenseMapper if of_dense else AnomalyMapper
    if encoder is not None:
        settings["own_encoder"] = encoder
    mapper = mapper_class.from_arrays(arrays, **settings)
    history, provenance = list(header["history"]), header["provenance"]
    detector.fitted = Fitted(mapper, format, history, trained_on, provenance, threshold)
    return detector


def _threshold_of(header: Header, arrays: Arrays) -> Threshold | None:
    """Take a threshold out of the arrays."""
    scores = arrays.pop("calibration_scores")
    statistics = arrays.pop("statistics", None)
    if header["offset"] is None:
        return None
    promised, labelled = header["promised_fpr"], header["labelled_threshold"]
    return Threshold(
        offset=float(header["offset"]),
        calibration_scores=scores,
        mean_map=float(header["mean_map"]),
        promised_fpr=math.nan if promised is None else float(promised),
        labelled=labelled and LabelledThreshold(**labelled),
        is_cross=header["is_cross"],
        statistics=statistics,
    )


def checksum(header: Header, arrays: Arrays) -> int:
    """Return a number that is another when bits of a file are damaged: its CRC-32."""
    told = {name: value for name, value in header.items() if name != "checksum"}
    found = crc32(json.dumps(told, sort_keys=True).encode())
    for name in sorted(arrays):
        found = crc32(arrays[name].tobytes(), found)
    return found
