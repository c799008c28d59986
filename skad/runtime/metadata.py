"""What an exported file says about its detector: one JSON object beside the graph.

The object is the entry "skad" of the ONNX file's `metadata_props`. `skad.export` writes
it, and `skad.runtime` reads it; a file from anywhere may hold anything.
"""

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
_VARINT, _BYTES, _FIXED = 0, 2, {1: 8, 5: 4}  # wire types of protobuf; bytes of fixed
_BROKEN = "it is not an ONNX file, or ends early"


def _is_shape(value: Any) -> bool:
    is_image = fits(value, (2 * [is_side], 3 * [is_side]))
    return is_image and math.prod(value[:2]) <= MAX_PIXELS


def _are_scores(value: Any) -> bool:
    if not (isinstance(value, list) and value and all(map(is_number, value))):
        return False
    return value == sorted(value) and value[-1] <= 0


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
    "roi": (None, str),
    "channel_order": ("gray", "RGB", "as in training"),
    "provenance": dict,
    "digest": str,
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
                found = short_repr(fields[name])
                raise ValueError(f"{name} in its metadata is {found}")

    def to_json(self) -> str:
        """Return the JSON object."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Metadata":
        """Read the JSON object; raise a ValueError that says what is wrong with it."""
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"its metadata are not JSON ({error})") from None
        version = fields.get("format") if isinstance(fields, dict) else None
        if type(version) is not int:
            raise ValueError("its metadata have no format version")
        if version != FORMAT:
            advice = "update skad" if version > FORMAT else "export the detector again"
            found = short_repr(version)
            raise ValueError(f"its format is {found}, not {FORMAT}: {advice}")
        if fields.keys() != _FIELDS.keys():
            missing, more = _FIELDS.keys() - fields, fields.keys() - _FIELDS
            names = short_repr(", ".join(sorted(missing or more)))
            kind = "no" if missing else "unknown"
            raise ValueError(f"its metadata have {kind} fields {names}")
        for name, value in fields.items():
            is_sequence = name in ("image_shape", "calibration_scores")
            if is_sequence and isinstance(value, list):
                fields[name] = tuple(value)
        return cls(**fields)


def channel_order_of(image_shape: tuple[int, ...]) -> str:
    """Return what the channels of images (H, W) or (H, W, C) are."""
    known = {(): "gray", (1,): "gray", (3,): "RGB"}
    return known.get(tuple(image_shape[2:]), "as in training")


def metadata_of(model: bytes) -> Metadata:
    """Read the metadata of an ONNX file, and check that its graph is the exported one.

    Raises a ValueError that says what is wrong with the file.
    """
    text = None
    for field, _, entry in _fields_of(memoryview(model)):
        if field == _METADATA_PROPS:
            key_and_value = {n: bytes(value) for n, _, value in _fields_of(entry)}
            if key_and_value.get(1) == KEY.encode():
                text = key_and_value.get(2, b"")
    if text is None:
        raise ValueError("it has no metadata of skad; files of `skad export` have them")
    metadata = Metadata.from_json(text.decode(errors="replace"))
    if metadata.digest != digest_of(model):
        raise ValueError(
            "its graph is damaged, or not the exported one: copy or export it again"
        )
    return metadata


def digest_of(model: bytes) -> str:
    """Return the SHA-256 of an ONNX file without its `metadata_props`, in hex.

    So it is the same before the metadata are added and after. Raises a ValueError where
    the file is no whole protobuf message.
    """
    digest = sha256()
    for field, whole, _ in _fields_of(memoryview(model)):
        if field != _METADATA_PROPS:
            digest.update(whole)
    return digest.hexdigest()


def _fields_of(message: memoryview) -> Iterator[tuple[int, memoryview, memoryview]]:
    """Yield each field of a protobuf message [1]_: number, the whole, its content.

    .. [1] https://protobuf.dev/programming-guides/encoding
    """
    end = 0
    while end < len(message):
        start = end
        tag, end = _varint(message, end)
        field, kind = tag >> 3, tag & 7
        content = end
        if kind == _VARINT:
            _, end = _varint(message, end)
        elif kind == _BYTES:
            length, content = _varint(message, end)
            end = content + length
        elif kind in _FIXED:
            end += _FIXED[kind]
        if kind not in (_VARINT, _BYTES, *_FIXED) or not field or end > len(message):
            raise ValueError(_BROKEN)
        yield field, message[start:end], message[content:end]


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Read a number in groups of 7 bits, lowest first; return where it ends, too."""
    value = 0
    for shift, byte in zip(range(0, 64, 7), message[at : at + 10], strict=False):
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at + shift // 7 + 1
    raise ValueError(_BROKEN)
