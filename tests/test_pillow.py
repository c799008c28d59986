"""Files that are not whole are refused; TIFF files; decoders are quiet."""

import warnings

import numpy as np
import pytest
import tifffile
from image_files import encoded, noise, png, save
from numpy.testing import assert_array_equal
from PIL import Image

from skad import read_image
from skad.images.pillow import _quiet


def refuses(path, data, words="(truncated|damaged)"):
    path.write_bytes(data)
    with pytest.raises(ValueError, match=rf"{path.name}: .*{words}"):
        read_image(path)


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("L", {}),
        ("CMYK", {"progressive": True}),
        ("RGB", {"optimize": True, "quality": 20, "restart_marker_blocks": 3}),
    ],
)
def test_whole_jpeg_is_read_and_a_cut_one_refused(tmp_path, mode, options):
    path = tmp_path / "a.jpg"
    data = encoded("JPEG", mode, **options)
    path.write_bytes(data)
    with Image.open(path) as image:
        expected = np.asarray(image.convert("L" if mode == "L" else "RGB"))
    # Cameras write behind the image; markers may be filled up.
    for whole in (data, data + b"trailer", data[:-2] + b"\xff\xff\xff\xd9"):
        path.write_bytes(whole)
        assert_array_equal(read_image(path), expected)
    start = data.index(b"\xff\xda") + 20
    for part in (start, (start + len(data)) // 2, len(data) - 40):
        refuses(path, data[:part])
        refuses(path, data[:part] + b"\xff\xd9")
    for lack in (1, 2, 3, 9):  # the end marker, and what may pass for whole
        refuses(path, data[:-lack])


def test_other_cut_files_are_refused(tmp_path):
    for name in ("PNG", "BMP", "PPM", "GIF", "TIFF"):
        data = encoded(name)
        for part in (10, len(data) // 2, len(data) * 9 // 10):
            refuses(tmp_path / f"a.{name}", data[:part], "")


@pytest.mark.parametrize(("depth", "colour", "n_bytes"), [(8, 2, 3), (16, 0, 2)])
def test_png_whose_data_end_early_is_refused(tmp_path, depth, colour, n_bytes):
    rows = b"".join(b"\0" + noise(48 * n_bytes, seed=i).tobytes() for i in range(40))
    options, path = {"depth": depth, "colour": colour}, tmp_path / "a.png"
    path.write_bytes(png(rows, **options))
    assert read_image(path).shape[:2] == (40, 48)
    for value in (0, 1):  # the decoder writes over them
        array = np.full((3, 4), value, np.uint8)
        assert_array_equal(read_image(save(path, array)), array)
    for end in (len(rows) // 2, len(rows) - 48 * n_bytes - 1, len(rows) - 1):
        refuses(path, png(rows[:end], **options), "truncated")


def test_interlaced_png_whose_data_end_early_is_refused(tmp_path):
    rows = []
    for x0, y0, dx, dy in (
        *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
        *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),  # Adam7
    ):
        n = len(range(x0, 48, dx))
        rows += [b"\0" + noise(3 * n).tobytes() for _ in range(y0, 40, dy)]
    path = tmp_path / "a.png"
    path.write_bytes(png(b"".join(rows), interlace=1))
    assert read_image(path).shape == (40, 48, 3)
    for n_rows in (-1, len(rows) // 2):
        refuses(path, png(b"".join(rows[:n_rows]), interlace=1), "truncated")


def test_damaged_pixels_of_a_png_are_told_by_their_checksum(tmp_path):
    data = bytearray(png(bytes(40 * (1 + 48 * 3))))
    data[data.index(b"IEND") - 6] ^= 1  # the checksum of the chunk before it
    refuses(tmp_path / "a.png", data, "checksum")


@pytest.fixture
def tif(tmp_path):
    return tmp_path / "a.tif"


def test_gray_tiff_keeps_its_numbers(tif):
    deep = noise(50, 70, dtype=np.uint16)
    for stored, expected, options in (
        (deep, deep, {"byteorder": ">"}),
        (deep, 65535 - deep, {"photometric": "miniswhite"}),
        (deep / np.float32(3), deep / np.float32(3), {"imagej": True}),
    ):
        tifffile.imwrite(tif, stored, **options)
        read = read_image(tif)
        assert read.dtype == expected.dtype
        assert_array_equal(read, expected)
    for array in (deep, deep / np.float32(3)):
        Image.fromarray(array).save(tif, compression="tiff_lzw")
        assert_array_equal(read_image(tif), array)


def test_tiff_without_all_strips_is_refused(tif):
    for name, values in {"StripOffsets": [10**6] * 8, "RowsPerStrip": 1}.items():
        tifffile.imwrite(tif, noise(64, 64), rowsperstrip=8)
        with tifffile.TiffFile(tif, mode="r+b") as tiff:
            tiff.pages[0].tags[name].overwrite(values)
        refuses(tif, tif.read_bytes(), "truncated")


def test_pixels_that_are_no_numbers_are_told_with_the_file(tif):
    array = np.zeros((6, 5), np.float32)
    for array[2, 3] in (np.nan, np.inf):
        tifffile.imwrite(tif, array)
        with pytest.raises(ValueError, match=r"a\.tif: pixels must be finite numbers"):
            read_image(tif)


def test_warnings_of_decoders_alone_are_kept_back():
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        filters = list(warnings.filters)
        with _quiet(), _quiet():
            warnings.warn_explicit("a", UserWarning, "", 1, module="PIL.Image")
            warnings.warn_explicit("b", UserWarning, "", 1, module="other")
        assert warnings.filters == filters
    assert [str(one.message) for one in record] == ["b"]
