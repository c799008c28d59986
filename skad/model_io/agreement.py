"""What must agree in a model file, so that it cannot contradict itself."""

from typing import Any

import numpy as np

from skad.detectors.parameters import check_untrained, image_size, patch_sizes
from skad.encoders.frozen import FrozenEncoder
from skad.images.inputs import Format, format_of
from skad.model_io.header import DETECTORS, Header
from skad.model_io.version_8 import GONE, shapes_in_8
from skad.scoring.anomaly_map import AnomalyMapper
from skad.scoring.dense_map import DenseMapper
from skad.threshold.conformal import conformal_rank

Arrays = dict[str, np.ndarray]

_TYPES = {  # of arrays, as safetensors names them; of all others, F32
    "mean": "F64",
    "calibration_scores": "F64",
    "statistics": "F64",
    "trained_on": "U64",
}


def check_parameters(header: Header) -> None:
    """Raise a ValueError where parameters are out of range or contradict the images."""
    detector: Any = DETECTORS[header["kind"]](**header["parameters"])
    detector._validate_params()
    format = Format(**header["format"])
    right = format_of(format.shape, np.dtype(int), detector.image_shape).image_shape
    if right != format.image_shape:
        raise ValueError(
            f"items of shape {format.shape} are images of shape {right}, and it was "
            f"fitted on {format.image_shape}; image_shape={detector.image_shape}"
        )
    if "network_shape" in header:
        if header["network_shape"][2] != right[2]:
            raise ValueError(f"images of shape {right} do not fit its network_shape")
        return
    patch_sizes(detector.patch_size)
    if header["encoder"] is None:
        check_untrained(detector)
    elif right[2] not in (1, 3):
        raise ValueError(f"images of shape {right} do not suit its encoder")
    encoder, known = detector.encoder, (header["encoder"] or {}).get("name")
    if encoder != known:
        raise ValueError(
            f"encoder={encoder!r}, and it was fitted with {known!r}. Set it back, or "
            "fit again"
        )
    size, fitted = detector.image_size, header["working_size"]
    expected = image_size(size, right[:2])
    if expected != fitted:
        raise ValueError(
            f"image_size={size} means a working size of {expected}, and it was fitted "
            f"at {fitted}. Set it back, or fit again"
        )


def check_layout(
    header: Header,
    layout: dict[str, tuple[list[int], str]],
    own_encoder: FrozenEncoder | None,
) -> None:
    """Raise a ValueError unless just the arrays are there that belong to a header.

    `layout` has the shape and the type of each array.
    """
    height, width, n_channels = header["format"]["image_shape"]
    if "network_shape" in header:
        shapes = DenseMapper.array_shapes(header["network_shape"])
    else:
        size, with_network = header["working_size"], header["has_network"]
        shapes = AnomalyMapper.array_shapes(
            n_channels, size, with_network, header["encoder"], own_encoder
        )
        if header["format_version"] == 8:
            shapes = shapes_in_8(shapes)
            layout = {k: v for k, v in layout.items() if not k.startswith(GONE)}
        shapes |= {"roi": (height, width)} if "roi" in layout else {}
    lengths = {name: (*shape, 0)[0] for name, (shape, _) in layout.items()}
    for name in ("calibration_scores", "trained_on"):  # of any length
        shapes[name] = (lengths.get(name, 0),)
    if "statistics" in layout:
        shapes["statistics"] = (lengths["statistics"], 3, n_channels)
    for name in sorted(shapes.keys() | layout.keys()):
        counts = name.endswith("num_batches_tracked")
        dtype = "I64" if counts else _TYPES.get(name, "F32")
        right = ([*shapes[name]], dtype) if name in shapes else "absent"
        found = layout.get(name, "missing")
        if found != right:
            raise ValueError(f"the array {name} is {found}; it should be {right}")


def check_numbers(header: Header, arrays: Arrays) -> None:
    """Raise a ValueError for numbers that would lead to wrong scores or verdicts."""
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(f"the array {name} has values that are not finite")
    if "tails" in arrays and (np.diff(arrays["tails"], axis=1) <= 0).any():
        raise ValueError("the array tails has values that do not rise")
    roi = arrays.get("roi", np.ones(1))
    if not (np.isin(roi, (0, 1)).all() and roi.any()):
        raise ValueError("the array roi has other values than 0 and 1, or no 1")
    scores, offset = arrays["calibration_scores"], header["offset"]
    mean, promised = header["mean_map"], header["promised_fpr"]
    labelled = header["labelled_threshold"]
    if offset is None:
        if len(scores) or (mean, promised, labelled) != (None, None, None):
            raise ValueError("it has no offset, and more of a threshold")
        return
    if not len(scores) or (np.diff(scores) < 0).any() or scores[-1] > 0:
        raise ValueError("calibration_scores are not a sorted list of numbers <= 0")
    if mean is None or mean < 0:
        raise ValueError(f"mean_map={mean} is not a number >= 0")
    if labelled is not None and (labelled["offset"] != offset or promised is not None):
        raise ValueError(f"{offset=} or {promised=} contradict the labelled_threshold")
    if promised is not None:
        rank = conformal_rank(len(scores), promised)
        if not rank or offset != scores[rank - 1]:
            raise ValueError(f"{offset=} does not promise promised_fpr={promised}")
