"""What an exported file says about its detector: one JSON object beside the graph.

The object is the entry "skad" of the ONNX file's `metadata_props`. `skad.export` writes
it, and `skad.runtime` reads it; a file from anywhere may hold anything.
"""

import base64
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from reprlib import repr as short_repr
from typing import Any

from skad.common.checks import MAX_PIXELS
from skad.common.json_fields import fits, is_number, is_rate, is_side

KEY = "skad"  # of the entry in metadata_props
FORMAT = 1  # rises where fields change, or come to mean other verdicts
DTYPES = ("uint8", "uint16", "float32")

_METADATA_PROPS = 14  # field of ModelProto in onnx.proto
_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5  # wire types of protobuf


def _is_shape(value: Any) -> bool:
    is_image = fits(value, (2 * [is_side], 3 * [is_side]))
    return is_image and math.prod(value[:2]) <= MAX_PIXELS


def _are_scores(value: Any) -> bool:
    if not (isinstance(value, list) and value and all(map(is_number, value))):
        return False
    return value == sorted(value) and value[-1] <= 0


def _is_png(value: Any) -> bool:
    try:
        return base64.b64decode(value, validate=True).startswith(b"\x89PNG\r\n")
    except (TypeError, ValueError):
        return False


def _is_digest(value: Any) -> bool:
    return (
        type(value) is str
        and len(value) == 64
        and set(value) <= set("0123456789abcdef")
    )


_FIELDS: dict[str, Any] = {
    "format": FORMAT,
    "skad_version": str,
    "image_shape": _is_shape,
    "dtype": DTYPES,
    "any_size": bool,
    "threshold": is_number,
    "calibration_scores": _are_scores,
    "promised_fpr": (None, is_rate),
    "is_cross": bool,
    "promise": str,
    "roi": (None, _is_png),
    "channel_order": str,
    "provenance": dict,
    "digest": _is_digest,
    "parity": dict,
}


@dataclass(frozen=True)
class Metadata:
    """What an exported file says about its detector; a ValueError names a wrong field.

    `provenance` and `parity` may hold whatever JSON can.
    """

    skad_version: str  # that exported
    image_shape: tuple[int, ...]  # (H, W) or (H, W, C) of `images`, without the batch
    dtype: str  # of `images`: "uint8", "uint16" or "float32"
    any_size: bool  # frames of any size are resized to (H, W)
    threshold: float  # `pixel_threshold_`: larger values of the map are anomalous
    calibration_scores: tuple[float, ...]  # sorted, <= 0, at least one
    promised_fpr: float | None  # None: nothing is promised
    is_cross: bool  # the calibration images were trained on, too
    promise: str  # of the threshold, in words
    roi: str | None  # the mask, a PNG file in base64; the graph applies it
    channel_order: str  # "gray", "RGB" or "as in training"
    provenance: dict[str, Any]  # of the detector: when it was fitted, and on what
    digest: str  # `digest_of` the file
    parity: dict[str, Any]  # how far the graph's results are from the detector's
    format: int = FORMAT

    def __post_init__(self) -> None:
        """Check every field, as it is written."""
        fields = json.loads(self.to_json())
        for name, rule in _FIELDS.items():
            if not fits(fields[name], rule):
                raise ValueError(f"{name} in it is {short_repr(fields[name])}")
        if self.channel_order != channel_order_of(self.image_shape):
            rule = f"{self.channel_order!r} is not the order of {self.image_shape}"
            raise ValueError(f"channel_order in it is wrong: {rule}")

    def to_json(self) -> str:
        """Return the JSON object."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Metadata":
        """Read the JSON object; raise a ValueError that says what is wrong with it."""
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"it is not JSON ({error})") from None
        version = fields.get("format") if isinstance(fields, dict) else None
        if type(version) is not int:
            raise ValueError("it has no format version")
        if version != FORMAT:
            advice = "update skad" if version > FORMAT else "export the detector again"
            raise ValueError(f"its format is {version}, not {FORMAT}: {advice}")
        if fields.keys() != _FIELDS.keys():
            missing, more = _FIELDS.keys() - fields, fields.keys() - _FIELDS
            names = short_repr(", ".join(sorted(missing or more)))
            raise ValueError(f"it has {'no' if missing else 'unknown'} fields {names}")
        for name, value in fields.items():
            is_sequence = name in ("image_shape", "calibration_scores")
            if is_sequence and isinstance(value, list):
                fields[name] = tuple(value)
        return cls(**fields)


def channel_order_of(image_shape: tuple[int, ...]) -> str:
    """Return what the channels of images (H, W) or (H, W, C) are."""
    known = {(): "gray", (1,): "gray", (3,): "RGB"}
    return known.get(tuple(image_shape[2:]), "as in training")


def digest_of(model: bytes) -> str:
    """Return the SHA-256 of an ONNX file without its `metadata_props`, in hex.

    So it is the same before the metadata are added and after. Raises a ValueError where
    the file is no whole protobuf message.
    """
    digest = sha256()
    for field, start, end in _fields_of(memoryview(model)):
        if field != _METADATA_PROPS:
            digest.update(memoryview(model)[start:end])
    return digest.hexdigest()


def _fields_of(message: memoryview) -> Iterator[tuple[int, int, int]]:
    """Yield the number, the start and the end of each field at the top [1]_.

    .. [1] https://protobuf.dev/programming-guides/encoding
    """
    end = 0
    while end < len(message):
        start = end
        tag, end = _varint(message, end)
        kind = tag & 7
        if kind == _VARINT:
            _, end = _varint(message, end)
        elif kind == _BYTES:
            length, end = _varint(message, end)
            end += length
        elif kind in (_FIXED_64, _FIXED_32):
            end += 8 if kind == _FIXED_64 else 4
        else:
            raise ValueError("it is not an ONNX file")
        if end > len(message):
            raise ValueError("it ends early, or is not an ONNX file")
        yield tag >> 3, start, end


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Read a number in groups of 7 bits, lowest first; return where it ends, too."""
    value = 0
    for shift in range(0, 70, 7):
        if at + shift // 7 >= len(message):
            break
        byte = message[at + shift // 7]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at + shift // 7 + 1
    raise ValueError("it ends early, or is not an ONNX file")
