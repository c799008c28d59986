"""TIFF files: deep colour and floating point, several pages, and damaged ones."""

import numpy as np
import pytest
import tifffile
from image_files import noise
from numpy.testing import assert_array_equal
from PIL import Image

from skad import read_image


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.tif"


@pytest.mark.parametrize("dtype", ["uint16", "float16", "float64"])
@pytest.mark.parametrize("channels", [1, 4])
def test_deep_pages_keep_their_numbers(path, dtype, channels):
    array = noise(5, 7, channels).astype(dtype) * 256  # what float16 holds, too
    array = array[..., 0] if channels == 1 else array
    kind = "minisblack" if channels == 1 else "rgb"
    for planar in ("contig", "separate") if channels > 1 else (None,):
        stored = np.moveaxis(array, -1, 0) if planar == "separate" else array
        tifffile.imwrite(path, stored, photometric=kind, planarconfig=planar)
        read = read_image(path)
        assert read.dtype == ("uint16" if dtype == "uint16" else "float32")
        assert_array_equal(read, array[..., :3] if channels > 1 else array)
        small = read_image(path, image_size=2, gray=True)
        assert (small.shape, small.dtype) == ((2, 2), read.dtype)


def test_16_bit_gray_big_endian_or_inverted_or_with_alpha(path):
    array = noise(5, 7, dtype=np.uint16)
    pair = np.stack([array, array // 2], axis=-1)
    alpha = {"planarconfig": "contig", "extrasamples": ["unassalpha"]}
    for stored, expected, options in (
        (array, array, {"byteorder": ">"}),
        (array, 65535 - array, {"photometric": "miniswhite"}),
        (pair, array, {"photometric": "minisblack", **alpha}),
    ):
        tifffile.imwrite(path, stored, **options)
        assert_array_equal(read_image(path), expected)


def test_compressed_pages_keep_their_pixels_or_need_imagecodecs(path):
    for array in (noise(50, 70, dtype=np.uint16), noise(50, 70) / np.float32(3)):
        for compression in ("tiff_lzw", "tiff_adobe_deflate"):
            Image.fromarray(array).save(path, compression=compression)
            assert_array_equal(read_image(path), array)
    array = noise(50, 70, 3, dtype=np.uint16)
    tifffile.imwrite(path, array, compression="zlib", photometric="rgb")
    try:
        assert_array_equal(read_image(path), array)
    except ValueError as error:
        assert "needs the package imagecodecs; install it, or save" in str(error)


def test_other_pages_are_refused_with_a_remedy(path):
    for array, kind in (
        (noise(5, 7, dtype=np.int16), "minisblack"),
        (noise(5, 7, 4, dtype=np.uint16), "separated"),
        (noise(5, 7, 6, dtype=np.uint16), "rgb"),
    ):
        tifffile.imwrite(path, array, photometric=kind, planarconfig="contig")
        with pytest.raises(ValueError, match=r"a\.tif.*not supported; save it as"):
            read_image(path)


def test_previews_are_no_further_pages_and_stacks_are_refused(path):
    for array in (noise(20, 30), noise(20, 30, 3, dtype=np.uint16)):
        with tifffile.TiffWriter(path) as file:
            file.write(array)
            file.write(array[::2, ::2], subfiletype=1)
        assert_array_equal(read_image(path), array)
        with tifffile.TiffWriter(path) as file:
            file.write(array[::2, ::2], subfiletype=1)
            file.write(array)
        with pytest.raises(ValueError, match="first page is a preview"):
            read_image(path)
    tifffile.imwrite(path, noise(4, 20, 30, dtype=np.uint16), imagej=True)
    with pytest.raises(ValueError, match="it has 4 pages"):
        read_image(path)


def test_missing_strips_are_noticed(path):
    wrong = {"StripByteCounts": [0] * 8, "StripOffsets": [10**6] * 8, "RowsPerStrip": 1}
    for array in (noise(64, 64), noise(64, 64).astype(float)):
        for name, values in wrong.items():
            tifffile.imwrite(path, array, rowsperstrip=8)
            with tifffile.TiffFile(path, mode="r+b") as tiff:
                tiff.pages[0].tags[name].overwrite(values)
            with pytest.raises(ValueError, match="the image data are truncated"):
                read_image(path)


def test_pixels_that_are_no_numbers_are_told_with_the_file(path):
    array = np.zeros((6, 5))
    for array[2, 3] in (np.nan, np.inf, 1e300):
        tifffile.imwrite(path, array)
        words = r"a\.tif: pixels must be finite numbers; the one in row 2, column 3 is"
        with pytest.raises(ValueError, match=words):
            read_image(path)
