"""export_onnx: write a detector as one ONNX file, once it is proven to agree."""

import base64
import io
import math
import os
import pickle
from typing import Any

import numpy as np
import torch
from PIL import Image

from skad import __version__
from skad.common.files import make_room_for, write_atomically
from skad.detectors.base import ImageDetector
from skad.detectors.fitted import Fitted, no_threshold
from skad.export.graph import to_onnx
from skad.export.parity import certify
from skad.export.stand_ins import WORDS, stand_ins
from skad.images.inputs import Images, as_images
from skad.images.several_sizes import as_resized_images
from skad.runtime.metadata import KEY, Metadata, channel_order_of, digest_of
from skad.scoring.tiles import TILE
from skad.threshold.conformal import promise_in_words

_MOST_TILES = 4  # as measured: every one adds half a minute and 350 nodes
# Of the number kinds of a detector's images: what a graph takes.
_DTYPES = {"integer": ("uint8", "uint16"), "float": ("float32",)}


def export_onnx(
    detector: ImageDetector,
    path: str | os.PathLike[str],
    *,
    dtype: str | None = None,
    images: Any = None,
) -> Metadata:
    """Write a fitted detector as an ONNX file, which needs neither skad nor torch.

    The graph takes ``images``, (n, H, W) or (n, H, W, C) as the camera gives them, and
    returns ``anomaly_map``, (n, H, W) float32 >= 0, and ``peak``, (n,), the maxima. An
    image is anomalous where its peak exceeds the threshold, which is not in the graph
    but in the file's metadata, ``metadata_props["skad"]``.

    Before the file is written, graph and detector are compared on some images. No value
    of a map and no score may differ by more than 1e-4 of it or of the threshold,
    whichever is larger.

    Parameters
    ----------
    detector : PatchAutoencoderDetector or DenseAutoencoderDetector
        Fitted, with a threshold.
    path : str or os.PathLike
        Usually ends in ".onnx". Its folder is made if absent.
    dtype : {"uint8", "uint16", "float32"}, default=None
        Of the images that the graph takes. None: that of `images`; without these,
        "uint8" for a detector of integers and "float32" for one of floats.
    images : as in `fit`, default=None
        Images that both are compared on; some good and some anomalous ones are best.
        None: photographs of `skad.datasets` and noise, with the mean and the standard
        deviation of the training images.

    Returns
    -------
    Metadata
        What is written beside the graph; ``parity`` has the measured differences.

    Raises
    ------
    ImportError
        If onnx, onnxscript or onnxruntime is not installed.
    TypeError
        If `detector` is another estimator.
    sklearn.exceptions.NotFittedError
        If it is not fitted, or has no threshold.
    ValueError
        If the graph and the detector disagree; if torch cannot export the network of an
        own `FrozenEncoder`; if the detector works on more than 4 tiles of 1024 x 1024
        pixels; if `dtype` or `images` do not suit it.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import skad
    >>> metadata = skad.export_onnx(detector, "part.onnx")  # doctest: +SKIP
    >>> metadata.parity["map_difference"]  # doctest: +SKIP
    1.3e-06
    """
    _check_installed()
    if not isinstance(detector, ImageDetector):
        raise TypeError(
            "detector must be a PatchAutoencoderDetector or a "
            f"DenseAutoencoderDetector; got {type(detector).__name__}. Take it out of "
            "its pipeline or search."
        )
    path = make_room_for(path)
    fitted = detector.fitted
    if fitted.threshold is None:
        raise no_threshold()
    checked = None if images is None else _as_fitted(images, fitted)
    dtype = _dtype_for(fitted.format.kind, checked, dtype)
    mapper = fitted.mapper
    _check_size(mapper.network_size)
    if mapper.device.type != "cpu":  # which rounds otherwise
        mapper = pickle.loads(pickle.dumps(mapper)).to("cpu")
    shape = fitted.format.shape
    if len(shape) == 1:  # rows
        shape = fitted.format.image_shape
    try:
        model = to_onnx(mapper, shape, dtype)
    except torch.onnx.OnnxExporterError as error:
        raise _not_exported(mapper, error) from error
    content, words = model.SerializeToString(), "as given"
    if checked is None:
        found = stand_ins(mapper, fitted.format.image_shape, dtype)
        checked = _as_fitted(found.reshape(-1, *fitted.format.shape), fitted)
        words = WORDS
    parity = certify(mapper, detector.pixel_threshold_, content, checked, words)
    metadata = _metadata_of(detector, shape, dtype, digest_of(content), parity)
    model.metadata_props.add(key=KEY, value=metadata.to_json())
    write_atomically(path, model.SerializeToString())
    return metadata


def _check_installed() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "export_onnx needs onnx, onnxscript and onnxruntime: pip install "
            '"skad[onnx]"'
        ) from error


def _check_size(size: tuple[int, int]) -> None:
    height, width = size
    if math.ceil(height / TILE) * math.ceil(width / TILE) > _MOST_TILES:
        raise ValueError(
            f"Images of {height} x {width} pixels are too large to export: the graph "
            f"would hold a copy of itself for each {TILE} x {TILE} pixels, and at most "
            f"{_MOST_TILES} are made. Set image_size, and fit the detector again."
        )


def _as_fitted(images: Any, fitted: Fitted) -> Images:
    format = fitted.format
    if format.any_size:
        return as_resized_images(images, format.image_shape[:2], format)
    return as_images(images, None, format)


def _dtype_for(kind: str, images: Images | None, dtype: str | None) -> str:
    """Return the type of the numbers that the graph takes."""
    allowed = _DTYPES.get(kind, ())
    if not allowed:
        raise ValueError(
            f"The detector was fitted on images of {kind}s; a graph takes uint8, "
            "uint16 or float32. Fit it on images of one of these types."
        )
    found = None if images is None else images.dtype.name
    if kind == "float" and found is not None:
        found = "float32"  # which others are turned into
    dtype = dtype or found or allowed[0]
    if dtype not in allowed or found not in (None, dtype):
        of_images = "" if found is None else f", and the images are {found}"
        raise ValueError(
            f"dtype must be {' or '.join(allowed)}, as the detector was fitted on "
            f"{kind}s{of_images}; got {dtype!r}. Pass the type of your camera's images."
        )
    return dtype


def _metadata_of(
    detector: Any, shape: tuple[int, ...], dtype: str, digest: str, parity: Any
) -> Metadata:
    fitted, promised = detector.fitted, detector.promised_fpr_
    return Metadata(
        skad_version=__version__,
        image_shape=shape,
        dtype=dtype,
        any_size=fitted.format.any_size,
        threshold=detector.pixel_threshold_,
        calibration_scores=tuple(detector.calibration_scores_.tolist()),
        promised_fpr=None if math.isnan(promised) else promised,
        is_cross=fitted.threshold.is_cross,
        promise=promise_in_words(detector),
        roi=_png(fitted.mapper.roi),
        channel_order=channel_order_of(shape),
        provenance=fitted.provenance,
        digest=digest,
        parity=parity,
    )


def _not_exported(mapper: Any, error: Exception) -> ValueError:
    own = getattr(mapper, "own_encoder", None)
    what = "the detector" if own is None else "the network of your FrozenEncoder"
    why = str(error.__cause__ or error).strip().splitlines()[0]
    return ValueError(
        f"torch cannot export {what} to ONNX: {why} Use an encoder that skad knows, or "
        "a network that torch.export takes, which does not branch on values of images."
    )


def _png(mask: np.ndarray | None) -> str | None:
    """Return a mask (H, W), bool, as a PNG file in base64."""
    if mask is None:
        return None
    file = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
