"""TIFF files: deep colour and floating point, several pages, and damaged ones."""

import numpy as np
import pytest
import tifffile
from image_files import noise
from numpy.testing import assert_array_equal
from PIL import Image

from skad import read_image


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("dtype", [np.uint16, np.float64])
def test_deep_colour(tmp_path, planar, channels, dtype):
    array = noise(5, 7, channels, dtype=np.uint16).astype(dtype)
    stored = np.moveaxis(array, -1, 0) if planar == "separate" else array
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stored, photometric="rgb", planarconfig=planar)
    read = read_image(path)
    assert read.dtype == (np.uint16 if dtype == np.uint16 else np.float32)
    assert_array_equal(read, array[..., :3])
    small = read_image(path, image_size=2, gray=True)
    assert (small.shape, small.dtype) == ((2, 2), read.dtype)


def test_16_bit_gray_big_endian_or_inverted_or_with_alpha(tmp_path):
    array = noise(5, 7, dtype=np.uint16)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, array, byteorder=">")
    assert_array_equal(read_image(path), array)
    tifffile.imwrite(path, array, photometric="miniswhite")
    assert_array_equal(read_image(path), 65535 - array)
    options = {"photometric": "minisblack", "planarconfig": "contig"}
    pair = np.stack([array, array // 2], axis=-1)
    tifffile.imwrite(path, pair, extrasamples=["unassalpha"], **options)
    assert_array_equal(read_image(path), array)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_are_float32_as_stored(tmp_path, dtype):
    array = np.random.default_rng(0).normal(size=(5, 7)).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", array)
    read = read_image(tmp_path / "a.tif")
    assert read.dtype == np.float32
    assert_array_equal(read, array.astype(np.float32))


def test_compressed_pages_keep_their_pixels_or_need_imagecodecs(tmp_path):
    path = tmp_path / "a.tif"
    for array in (noise(50, 70, dtype=np.uint16), noise(50, 70) / np.float32(3)):
        for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits"):
            Image.fromarray(array).save(path, compression=compression)
            assert_array_equal(read_image(path), array)
        tifffile.imwrite(path, array, compression="zlib", tile=(16, 32))
        assert_array_equal(read_image(path), array)
    array = noise(50, 70, 3, dtype=np.uint16)
    tifffile.imwrite(path, array, compression="zlib", photometric="rgb")
    try:
        assert_array_equal(read_image(path), array)
    except ValueError as error:
        assert "needs the package imagecodecs; install it, or save" in str(error)


@pytest.mark.parametrize(
    ("array", "photometric"),
    [
        (noise(5, 7, dtype=np.uint32), "minisblack"),
        (noise(5, 7, dtype=np.int16), "minisblack"),
        (noise(5, 7, 4, dtype=np.uint16), "separated"),
        (noise(5, 7, 6, dtype=np.uint16), "rgb"),
    ],
)
def test_other_pages_are_refused_with_a_remedy(tmp_path, array, photometric):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, array, photometric=photometric, planarconfig="contig")
    with pytest.raises(ValueError, match=r"a\.tif.*not supported; save it as"):
        read_image(path)


def test_previews_are_no_further_pages(tmp_path):
    path = tmp_path / "a.tif"
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


def test_stacks_of_one_page_of_imagej_are_refused(tmp_path):
    stack = noise(4, 20, 30, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True)
    with pytest.raises(ValueError, match="it has 4 pages"):
        read_image(tmp_path / "a.tif")


def test_missing_strips_are_noticed(tmp_path):
    path = tmp_path / "a.tif"
    for array in (noise(64, 64), noise(64, 64).astype(float)):
        for name, values in (
            ("StripByteCounts", [0] * 8),
            ("StripOffsets", [10**6] * 8),
            ("RowsPerStrip", 1),
        ):
            tifffile.imwrite(path, array, rowsperstrip=8)
            with tifffile.TiffFile(path, mode="r+b") as tiff:
                tiff.pages[0].tags[name].overwrite(values)
            with pytest.raises(ValueError, match="the image data are truncated"):
                read_image(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_pixels_that_are_no_numbers_are_told_with_the_file(tmp_path, value):
    array = np.zeros((6, 5))
    array[2, 3] = value
    tifffile.imwrite(tmp_path / "a.tif", array)
    words = r"a\.tif: pixels must be finite numbers; the one in row 2, column 3 is"
    with pytest.raises(ValueError, match=words):
        read_image(tmp_path / "a.tif")
