"""Files that are damaged or lie: read or refused, in bounded memory, silently."""

import os
import subprocess
import sys
import zlib
from io import BytesIO

import numpy as np
import tifffile
from PIL import Image, features

# Reads every file of a folder within so many bytes, and prints how many are images.
READ_ALL = """
import sys
from pathlib import Path
import numpy, tifffile
from skad import read_image
from skad.images.formats import formats
formats()  # imports what decodes
if sys.platform == "linux":
    import resource
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[2]),) * 2)
n_read = 0
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        image = read_image(path)
    except ValueError as error:
        assert str(path) in str(error), path
    else:
        assert image.dtype in ("uint8", "uint16", "float32"), path
        n_read += 1
print(n_read)
"""


def read_all(folder, n_bytes):
    """Number of readable files; fails if anything but that is printed."""
    call = [sys.executable, "-c", READ_ALL, str(folder), str(n_bytes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(call, capture_output=True, timeout=120, env=environment)
    assert done.stderr.decode() == ""
    assert done.returncode == 0
    return int(done.stdout)


def encoded(name, mode="RGB", **options):
    image = Image.effect_mandelbrot((48, 40), (-2, -1, 1, 1), 50).convert(mode)
    file = BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


def tiff(array, **options):
    file = BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def samples():
    """A small file of each kind of decoder, by suffix."""
    deep = np.random.default_rng(0).integers(0, 65536, (40, 48, 3)).astype(np.uint16)
    found = {
        "png": encoded("PNG"),
        "palette.png": encoded("PNG", "P"),
        "jpg": encoded("JPEG"),
        "progressive.jpg": encoded("JPEG", progressive=True),
        "bmp": encoded("BMP"),
        "gif": encoded("GIF", "L"),
        "lzw.tif": encoded("TIFF", compression="tiff_lzw"),
        "jpeg.tif": encoded("TIFF", compression="jpeg"),
        "plain.tif": tiff(deep, photometric="rgb"),
        "zip.tif": tiff(deep, photometric="rgb", compression="zlib", predictor=True),
        "tile.tif": tiff(deep[..., 0] / 7, compression="zlib", tile=(16, 16)),
        "ppm": encoded("PPM"),
        "tga": encoded("TGA", compression="tga_rle"),
        "pcx": encoded("PCX"),
        "sgi": encoded("SGI"),
        "qoi": encoded("QOI") if "QOI" in Image.SAVE else encoded("DDS"),
    }
    for suffix, name, feature in (
        ("webp", "WEBP", "webp"),
        ("jp2", "JPEG2000", "jpg_2000"),
    ):
        if name in Image.SAVE and features.check(feature):
            found[suffix] = encoded(name)
    if "AVIF" in Image.SAVE:
        found["avif"] = encoded("AVIF")
    return found


def damage(data, rng, i):
    """Cut a file, flip some bits, or let its header lie."""
    if i % 4 == 0:
        return data[: rng.integers(1, len(data))]
    changed = np.frombuffer(data, np.uint8).copy()
    if i % 4 == 1:
        where = rng.integers(0, len(data), 4)
        changed[where] ^= (1 << rng.integers(0, 8, 4)).astype(np.uint8)
    else:
        where = rng.integers(0, min(len(data), 200), 3)
        changed[where] = rng.choice([0, 1, 127, 128, 255], 3)
        if i % 4 == 3:  # as if the end of TIFF files, with their tags, were the start
            changed = changed[::-1].copy() if data[:2] in (b"II", b"MM") else changed
            where = rng.integers(0, min(len(data), 200), 3)
            changed[where] = rng.choice([0, 1, 127, 128, 255], 3)
            changed = changed[::-1] if data[:2] in (b"II", b"MM") else changed
    if data.startswith(b"\x89PNG"):  # headers that lie have sound checksums
        body = changed[12:29].tobytes()
        changed[29:33] = np.frombuffer(zlib.crc32(body).to_bytes(4, "big"), np.uint8)
    return changed.tobytes()


def test_bombs_beside_the_pixels_do_not_matter(tmp_path):
    data, bomb = encoded("PNG"), zlib.compress(bytes(2**27))
    for name, start in ((b"zTXt", b"a\0\0"), (b"iCCP", b"a\0\0"), (b"tEXt", b"a\0")):
        body = start + bomb
        chunk = len(body).to_bytes(4, "big") + name + body
        chunk += zlib.crc32(name + body).to_bytes(4, "big")
        (tmp_path / f"{name.decode()}.png").write_bytes(data[:33] + chunk + data[33:])
    assert read_all(tmp_path, 2**26) == 3


def test_damaged_and_lying_files_are_read_or_refused(tmp_path):
    rng = np.random.default_rng(0)
    for name, data in samples().items():
        for i in range(16):
            (tmp_path / f"{i}.{name}").write_bytes(damage(data, rng, i))
    assert read_all(tmp_path, 2**31) > 50
