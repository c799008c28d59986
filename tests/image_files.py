"""Image files for tests: written by Pillow, or by hand with any claim in them."""

import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

ORIENTATION = 0x0112  # EXIF and TIFF tag 274


def noise(*shape, dtype=np.uint8, seed=0):
    top = np.iinfo(dtype).max + 1
    return np.random.default_rng(seed).integers(0, top, shape).astype(dtype)


def save(path, array, **options):
    """Save an array as an image, in a folder that is made where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def photo(mode="RGB", size=(96, 72)):
    """Smooth areas and edges, as in a photograph."""
    return Image.effect_mandelbrot(size, (-2, -1, 1, 1), 60).convert(mode)


def encoded(name, mode="RGB", **options):
    file = BytesIO()
    photo(mode).save(file, name, **options)
    return file.getvalue()


def chunk(kind, body):
    check = zlib.crc32(kind + body).to_bytes(4, "big")
    return len(body).to_bytes(4, "big") + kind + body + check


def png(rows, *, depth=8, colour=2, interlace=0, width=48, height=40, more=()):
    """A PNG file whose data are whole, as zlib sees it, and of any length."""
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    header += bytes([depth, colour, 0, 0, interlace])
    parts = [(b"IHDR", header), *more, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def needs(suffix):
    """Skip a test where Pillow is built without a format."""
    if Image.registered_extensions().get(f".{suffix}") not in Image.SAVE:
        pytest.skip(f"Pillow here has no .{suffix}")
