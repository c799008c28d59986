"""TIFF files of several pages, and such as claim less than they hold."""

import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import tifffile
from numpy.testing import assert_array_equal
from test_decoding import noise

from skad import read_image


def test_further_pages_that_are_previews_or_masks_are_passed_over(tmp_path):
    path = tmp_path / "a.tif"
    for array in (noise(20, 30), noise(20, 30, 3, dtype=np.uint16)):
        for kinds in ((1,), (1, 1)):
            with tifffile.TiffWriter(path) as file:
                file.write(array)
                for kind in kinds:  # NewSubfileType
                    file.write(array[::2, ::2], subfiletype=kind)
            assert_array_equal(read_image(path), array)
        with tifffile.TiffWriter(path) as file:
            file.write(array[::2, ::2], subfiletype=1)
            file.write(array)
        with pytest.raises(ValueError, match="first page is a preview"):
            read_image(path)


def test_stacks_of_one_page_of_imagej_are_refused(tmp_path):
    stack = noise(4, 20, 30, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True)
    with pytest.raises(ValueError, match="it has 4 pages"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("compression", ["zlib", "lzma"])
@pytest.mark.parametrize("tile", [None, (16, 32)])
@pytest.mark.parametrize("shape", [(50, 70), (50, 70, 3)])
def test_compressed_deep_pages_keep_their_pixels(tmp_path, compression, tile, shape):
    array = noise(*shape, dtype=np.uint16)
    array = array if len(shape) == 3 else array / np.float32(3)
    kind = "rgb" if len(shape) == 3 else "minisblack"
    options = {"compression": compression, "tile": tile, "photometric": kind}
    for planar in ("contig", "separate") if len(shape) == 3 else ("contig",):
        stored = np.moveaxis(array, -1, 0) if planar == "separate" else array
        if len(shape) == 3:
            options["planarconfig"] = planar
        tifffile.imwrite(tmp_path / "a.tif", stored, rowsperstrip=9, **options)
        assert_array_equal(read_image(tmp_path / "a.tif"), array)


@pytest.mark.parametrize("predictor", [False, True])
def test_horizontal_differences_are_undone(tmp_path, predictor):
    array = noise(50, 70, 3, dtype=np.uint16)
    options = {"compression": "zlib", "photometric": "rgb", "predictor": predictor}
    tifffile.imwrite(tmp_path / "a.tif", array, **options)
    assert_array_equal(read_image(tmp_path / "a.tif"), array)


def write_lying(path, data, compression, dtype="float32"):
    """A page of 16 x 16 whose only strip is what is given."""
    tifffile.imwrite(path, np.zeros((16, 16), dtype), compression="zlib")
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        end = path.stat().st_size
        tags = tiff.pages[0].tags
        tags["StripOffsets"].overwrite([end])
        tags["StripByteCounts"].overwrite([len(data)])
        tags["Compression"].overwrite(compression)
    with path.open("ab") as file:
        file.write(data)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("kind", ["deflate", "lzma", "packbits"])
def test_a_strip_that_inflates_beyond_its_page_is_refused(tmp_path, kind, dtype):
    if kind == "deflate":
        squeeze = zlib.compressobj(9)
        zeros = bytes(2**20)
        data = b"".join(squeeze.compress(zeros) for _ in range(64)) + squeeze.flush()
        code = 8
    elif kind == "lzma":
        lzma = pytest.importorskip("lzma")
        data, code = lzma.compress(bytes(2**25), preset=0), 34925
    else:
        data, code = b"\x81\0" * 2**18, 32773
    path = tmp_path / "bomb.tif"
    write_lying(path, data, code, dtype)
    tracemalloc.start()
    try:
        image = read_image(path)
    except ValueError as error:
        assert "bomb.tif" in str(error)
    else:  # libtiff stops at the end of the strip
        assert dtype == "uint8"
        assert image.shape == (16, 16)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2**22 + 2 * len(data)


def test_missing_strips_and_enormous_tiles_are_refused(tmp_path):
    path = tmp_path / "a.tif"
    for array in (noise(64, 64), noise(64, 64).astype(np.float32)):
        tifffile.imwrite(path, array, compression="zlib", rowsperstrip=8)
        whole = path.read_bytes()
        for name, values in (
            ("StripByteCounts", [0] * 8),
            ("StripOffsets", [10**6] * 8),
            ("RowsPerStrip", 1),
        ):
            path.write_bytes(whole)
            with tifffile.TiffFile(path, mode="r+b") as tiff:
                tiff.pages[0].tags[name].overwrite(values)
            with pytest.raises(ValueError, match="the image data are truncated"):
                read_image(path)
    tifffile.imwrite(path, noise(16, 16).astype(float), tile=(16, 16))
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        for name in ("TileWidth", "TileLength"):
            tiff.pages[0].tags[name].overwrite(8192)
    with pytest.raises(ValueError, match="tiles of 8192 x 8192 pixels are larger than"):
        read_image(path)


def test_a_million_pages_are_not_all_looked_at(tmp_path):
    """Each page is 14 bytes that only point to the next."""
    tifffile.imwrite(tmp_path / "a.tif", noise(16, 16))
    data = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        n_tags = len(tiff.pages[0].tags)
        place = tiff.pages[0].offset + 2 + 12 * n_tags
    pages = range(10**6)
    start = len(data) + len(data) % 2
    data[place : place + 4] = struct.pack("<I", start)
    data += bytes(len(data) % 2)
    tag = struct.pack("<HHII", 256, 4, 1, 16)
    size = 2 + len(tag) + 4
    for i in pages:
        data += b"\1\0" + tag + struct.pack("<I", start + size * (i + 1))
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(ValueError, match="it has 1000 pages or more"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_pixels_that_are_no_numbers_are_told_with_the_file(tmp_path, value):
    array = np.zeros((6, 5))
    array[2, 3] = value
    tifffile.imwrite(tmp_path / "a.tif", array)
    words = r"a\.tif: pixels must be finite numbers; the one in row 2, column 3 is"
    with pytest.raises(ValueError, match=words):
        read_image(tmp_path / "a.tif")
