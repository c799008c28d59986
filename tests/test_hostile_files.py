"""Files that are damaged or lie: read or refused, in bounded memory, silently."""

import os
import subprocess
import sys
import zlib
from io import BytesIO

import numpy as np
import tifffile
from image_files import chunk, encoded, noise
from PIL import Image

# Reads every file of a folder within so many bytes, and prints how many are images.
READ_ALL = """
import sys
from pathlib import Path
from skad import read_image
from skad.images.pillow import suffixes
suffixes()  # imports what decodes
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


def samples():
    """A small file of each kind of decoder, by suffix."""
    deep = BytesIO()
    tifffile.imwrite(deep, noise(40, 48, dtype=np.uint16))
    found = {
        "png": encoded("PNG"),
        "jpg": encoded("JPEG"),
        "bmp": encoded("BMP"),
        "lzw.tif": encoded("TIFF", compression="tiff_lzw"),
        "jpeg.tif": encoded("TIFF", compression="jpeg"),
        "deep.tif": deep.getvalue(),
    }
    return found | ({"webp": encoded("WEBP")} if "WEBP" in Image.SAVE else {})


def damage(data, rng, i):
    """Cut a file, flip some bits, or let its header (of TIFF: its end) lie."""
    changed = np.frombuffer(data, np.uint8).copy()
    if i % 3 == 0:
        return data[: rng.integers(1, len(data))]
    if i % 3 == 1:
        where = rng.integers(0, len(data), 4)
        changed[where] ^= (1 << rng.integers(0, 8, 4)).astype(np.uint8)
        return changed.tobytes()
    where = rng.integers(0, min(len(data), 200), 3)
    where = len(data) - 1 - where if data[:2] in (b"II", b"MM") else where
    changed[where] = rng.choice([0, 1, 127, 128, 255], 3)
    if data.startswith(b"\x89PNG"):  # with a sound checksum
        changed[29:33] = list(zlib.crc32(changed[12:29].tobytes()).to_bytes(4, "big"))
    return changed.tobytes()


def test_damaged_and_lying_files_are_read_or_refused(tmp_path):
    rng = np.random.default_rng(0)
    for name, data in samples().items():
        for i in range(18):
            (tmp_path / f"{i}.{name}").write_bytes(damage(data, rng, i))
    assert read_all(tmp_path, 2**31) > 30


def test_what_unpacks_to_gigabytes_takes_little_memory(tmp_path):
    data, bomb = encoded("PNG"), zlib.compress(bytes(2**27))
    for name, start in ((b"zTXt", b"a\0\0"), (b"iCCP", b"a\0\0")):
        text = chunk(name, start + bomb)
        (tmp_path / f"{name.decode()}.png").write_bytes(data[:33] + text + data[33:])
    for dtype in ("uint8", "float32"):
        path = tmp_path / f"{dtype}.tif"
        tifffile.imwrite(path, np.zeros((16, 16), dtype), compression="zlib")
        with tifffile.TiffFile(path, mode="r+b") as tiff:
            tags = tiff.pages[0].tags
            tags["StripOffsets"].overwrite([path.stat().st_size])
            tags["StripByteCounts"].overwrite([len(bomb)])
        with path.open("ab") as file:
            file.write(bomb)
    assert read_all(tmp_path, 2**26) <= 4
