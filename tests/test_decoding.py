"""Reading one image file: pixel rules, resizing, and files that are refused."""

import os
import re
import struct
import zlib

import numpy as np
import pytest
import tifffile
from numpy.testing import assert_array_equal
from PIL import Image, ImageOps

from skad.images import decoding as _decoding
from skad.images import formats as _formats
from skad.images import read_image
from skad.images import tiff as _tiff

ORIENTATION = 0x0112  # EXIF and TIFF tag 274


def noise(*shape, dtype=np.uint8, seed=0):
    top = np.iinfo(dtype).max + 1
    return np.random.default_rng(seed).integers(0, top, shape).astype(dtype)


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


def chunk(kind, data):
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def png_bytes(array, colour_type, *, width=None, height=None):
    """A PNG file written by hand, with any claim of size."""
    rows = [b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in array]
    size = (width or array.shape[1], height or array.shape[0])
    depth = 8 * array.itemsize
    header = struct.pack(">IIBBBBB", *size, depth, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"".join(rows)))
        + chunk(b"IEND", b"")
    )


@pytest.fixture
def picture(tmp_path):
    return save(tmp_path / "0.png", noise(6, 5))


@pytest.fixture
def bad_files(tmp_path):
    """One file of each way to be unreadable: path -> words of the reason."""
    place = tmp_path / "bad"
    place.mkdir()
    photo = save(place / "cut.jpg", noise(64, 64, 3), quality=95).read_bytes()
    picture = save(place / "cut.png", noise(64, 64, 3)).read_bytes()
    bitmap = save(place / "cut.bmp", noise(64, 64, 3)).read_bytes()
    tifffile.imwrite(place / "cut.tif", noise(64, 64, dtype=np.uint16))
    page = (place / "cut.tif").read_bytes()
    flipped = bytearray(picture)
    flipped[60] ^= 0xFF
    shallow = noise(4, 4, 3)
    deep = noise(4, 4, 3, dtype=np.uint16)
    contents = {
        "cut.jpg": (photo[: len(photo) // 2], "truncated"),
        "cut.png": (picture[: len(picture) // 2], "truncated"),
        "cut.bmp": (bitmap[: len(bitmap) // 2], "truncated"),
        "cut.tif": (page[: len(page) // 2], ""),
        "start.tif": (page[:6], ""),
        "start.png": (picture[:20], ""),
        "start.jpg": (photo[:20], ""),
        "flipped.png": (bytes(flipped), ""),
        "text.png": (b"this is no image", "contents are not an image .*JPEG.*WEBP"),
        "empty.png": (b"", "the file is empty"),
        "huge.png": (
            png_bytes(shallow, 2, width=100_000, height=100_000),
            "claims 100000 x 100000 pixels .*268435456",
        ),
        "deep.png": (png_bytes(deep, 2), "16-bit PNG .*save it as 16-bit TIFF"),
    }
    for name, (data, _) in contents.items():
        (place / name).write_bytes(data)
    return {place / name: words for name, (_, words) in contents.items()}


# --- Pixels ---------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "TIFF", "PNG"])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (1, 1), (1, 1, 3), (1, 9)])
def test_lossless_file_gives_its_pixels(tmp_path, suffix, shape):
    array = noise(*shape)
    read = read_image(save(tmp_path / f"a.{suffix}", array))
    assert read.dtype == np.uint8
    assert read.flags.writeable
    assert_array_equal(read, array)


def test_jpeg_gives_about_its_pixels(tmp_path):
    ramp = np.add.outer(np.arange(32), np.arange(32)).astype(np.uint8)
    read = read_image(save(tmp_path / "a.JPEG", ramp, quality=95))
    assert np.abs(read.astype(int) - ramp).max() <= 3


def test_str_path_and_contents_decide_not_the_name(tmp_path):
    array = noise(4, 4)
    save(tmp_path / "a.bmp", array)
    (tmp_path / "a.bmp").rename(tmp_path / "a.png")
    assert_array_equal(read_image(str(tmp_path / "a.png")), array)


def test_gray_is_bt601_luminance(tmp_path):
    array = noise(8, 8, 3)
    path = save(tmp_path / "a.png", array)
    expected = array @ [0.299, 0.587, 0.114]
    read = read_image(path, gray=True)
    assert read.shape == (8, 8)
    assert read.dtype == np.uint8
    assert np.abs(read - expected).max() <= 0.51


def test_16_bit_gray_png_stays_16_bit(tmp_path):
    array = noise(5, 7, dtype=np.uint16)
    path = save(tmp_path / "a.png", array)
    for gray in (False, True):
        read = read_image(path, gray=gray)
        assert read.dtype == np.uint16
        assert_array_equal(read, array)


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_16_bit_png_that_pillow_would_cut_is_refused(tmp_path, colour_type, channels):
    path = tmp_path / "a.png"
    path.write_bytes(png_bytes(noise(3, 3, channels, dtype=np.uint16), colour_type))
    with pytest.raises(ValueError, match=r"a\.png.*16-bit PNG.*save it as 16-bit TIFF"):
        read_image(path)


def test_palette_becomes_rgb_even_if_gray(tmp_path):
    image = Image.fromarray(noise(6, 6) % 4).convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60, 7, 7, 7, 0, 0, 255])
    table = np.array(image.getpalette()).reshape(-1, 3)
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "transparent.png", transparency=bytes([0, 100, 255, 255]))
    expected = table[np.array(image)]
    assert_array_equal(read_image(tmp_path / "a.png"), expected)
    assert_array_equal(read_image(tmp_path / "transparent.png"), expected)
    luminance = expected @ [0.299, 0.587, 0.114]
    gray = read_image(tmp_path / "transparent.png", gray=True)
    assert np.abs(gray - luminance).max() <= 0.51


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_one_bit_becomes_0_and_255(tmp_path, suffix):
    array = noise(5, 9) > 127
    read = read_image(save(tmp_path / f"a.{suffix}", array))
    assert read.dtype == np.uint8
    assert_array_equal(read, array * np.uint8(255))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_alpha_is_dropped_and_colours_kept(tmp_path, suffix):
    colour = noise(6, 6, 4)
    colour[:3, :, 3] = 0
    read = read_image(save(tmp_path / f"colour.{suffix}", colour))
    assert_array_equal(read, colour[..., :3])
    Image.fromarray(colour[..., :2].copy()).save(tmp_path / f"g.{suffix}")
    assert_array_equal(read_image(tmp_path / f"g.{suffix}"), colour[..., 0])


def test_transparent_colour_key_is_ignored(tmp_path):
    array = noise(4, 4, 3)
    path = save(tmp_path / "a.png", array, transparency=(1, 2, 3))
    assert_array_equal(read_image(path), array)
    assert read_image(path, gray=True).shape == (4, 4)


def test_cmyk_becomes_rgb(tmp_path):
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    image.save(tmp_path / "a.jpg", quality=100)
    read = read_image(tmp_path / "a.jpg")
    assert np.abs(read.astype(int) - [255, 0, 0]).max() <= 3


@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, turn):
    exif = Image.Exif()
    exif[ORIENTATION] = turn
    array = noise(5, 7, 3)
    path = save(tmp_path / "a.png", array, exif=exif)
    stored = Image.fromarray(array)
    stored.getexif()[ORIENTATION] = turn
    expected = np.asarray(ImageOps.exif_transpose(stored))
    assert_array_equal(read_image(path), expected)
    for dtype in (np.uint8, np.uint16):  # two decoders
        tag = (ORIENTATION, "H", 1, turn, True)
        tifffile.imwrite(
            tmp_path / "a.tif",
            array.astype(dtype),
            extratags=[tag],
            photometric="rgb",
        )
        assert_array_equal(read_image(tmp_path / "a.tif"), expected)
    deep = noise(5, 7, dtype=np.uint16)
    path = save(tmp_path / "deep.png", deep, exif=exif)
    assert_array_equal(read_image(path), _tiff.orient(deep, turn))


def test_rotated_jpeg_is_upright(tmp_path):
    array = np.zeros((16, 32), np.uint8)
    array[:, :16] = 255  # the left half is bright
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # a quarter turn clockwise shows it upright
    path = save(tmp_path / "a.jpg", array, exif=exif, quality=100)
    read = read_image(path)
    assert read.shape == (32, 16)
    assert read[:16].min() > 250
    assert read[16:].max() < 5
    assert read_image(path, image_size=(8, 4)).shape == (8, 4)


# --- TIFF ---------------------------------------------------------------------------


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("channels", [3, 4])
def test_16_bit_colour_tiff(tmp_path, planar, channels):
    array = noise(5, 7, channels, dtype=np.uint16)
    stored = np.moveaxis(array, -1, 0) if planar == "separate" else array
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stored, photometric="rgb", planarconfig=planar)
    read = read_image(path)
    assert read.dtype == np.uint16
    assert_array_equal(read, array[..., :3])
    gray = read_image(path, gray=True)
    assert gray.dtype == np.uint16
    assert np.abs(gray - array[..., :3] @ [0.299, 0.587, 0.114]).max() <= 0.5


def test_16_bit_gray_tiff_compressed_or_with_alpha_or_inverted(tmp_path):
    array = noise(5, 7, dtype=np.uint16)
    Image.fromarray(array).save(tmp_path / "lzw.tif", compression="tiff_lzw")
    assert_array_equal(read_image(tmp_path / "lzw.tif"), array)
    tifffile.imwrite(tmp_path / "big.tif", array, byteorder=">")
    assert_array_equal(read_image(tmp_path / "big.tif"), array)
    tifffile.imwrite(tmp_path / "white.tif", array, photometric="miniswhite")
    assert_array_equal(read_image(tmp_path / "white.tif"), 65535 - array)
    pair = np.stack([array, array // 2], axis=-1)
    tifffile.imwrite(
        tmp_path / "alpha.tif",
        pair,
        photometric="minisblack",
        planarconfig="contig",
        extrasamples=["unassalpha"],
    )
    assert_array_equal(read_image(tmp_path / "alpha.tif"), array)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_float_tiff_is_float32_as_stored(tmp_path, dtype, shape):
    array = np.random.default_rng(0).normal(size=shape).astype(dtype)
    kind = "rgb" if len(shape) == 3 else "minisblack"
    tifffile.imwrite(tmp_path / "a.tif", array, photometric=kind)
    read = read_image(tmp_path / "a.tif")
    assert read.dtype == np.float32
    assert_array_equal(read, array.astype(np.float32))
    small = read_image(tmp_path / "a.tif", image_size=2, gray=True)
    assert small.shape == (2, 2)
    assert small.dtype == np.float32


@pytest.mark.parametrize(
    ("array", "photometric"),
    [
        (noise(5, 7, dtype=np.uint32), "minisblack"),
        (noise(5, 7, dtype=np.int16), "minisblack"),
        (noise(5, 7, 4, dtype=np.uint16), "separated"),
        (noise(5, 7, 6, dtype=np.uint16), "rgb"),
    ],
)
def test_other_tiff_is_refused_with_remedy(tmp_path, array, photometric):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, array, photometric=photometric, planarconfig="contig")
    with pytest.raises(ValueError, match=r"a\.tif.*not supported; save it as"):
        read_image(path)


# --- Resizing and options -----------------------------------------------------------


@pytest.mark.parametrize("channels", [(), (3,)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("size", [(3, 4), (20, 30), (6, 40), (1, 1)])
def test_resize_keeps_dtype_and_constant_images(tmp_path, channels, dtype, size):
    top = np.iinfo(dtype).max
    path = tmp_path / "a.tif"
    array = np.full((12, 17, *channels), top, dtype)
    kind = "rgb" if channels else "minisblack"
    tifffile.imwrite(path, array, photometric=kind)
    read = read_image(path, image_size=size)
    assert read.dtype == dtype
    assert read.shape == (*size, *channels)
    assert (read == top).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("colour", [False, True])
def test_shrinking_does_not_alias(tmp_path, dtype, colour):
    board = np.indices((64, 64)).sum(axis=0) % 2 * np.iinfo(dtype).max
    array = np.stack([board] * 3, axis=-1) if colour else board
    kind = "rgb" if colour else "minisblack"
    tifffile.imwrite(tmp_path / "a.tif", array.astype(dtype), photometric=kind)
    read = read_image(tmp_path / "a.tif", image_size=8)
    half = np.iinfo(dtype).max / 2
    assert np.abs(read - half).max() < 0.05 * half  # subsampling gives 0 or the top


def test_16_and_8_bits_resize_alike(tmp_path):
    array = noise(40, 30, 3)
    save(tmp_path / "a.png", array)
    deep = array.astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "a.tif", deep, photometric="rgb")
    small = read_image(tmp_path / "a.png", image_size=(10, 12))
    deep_small = read_image(tmp_path / "a.tif", image_size=(10, 12))
    assert np.abs(deep_small / 257 - small).max() <= 1


def test_int_image_size_is_a_square_and_pair_is_height_width(picture):
    assert read_image(picture, image_size=np.int64(9)).shape == (9, 9)
    assert read_image(picture, image_size=[4, 9]).shape == (4, 9)
    assert read_image(picture, image_size=(6, 5)).shape == (6, 5)
    assert read_image(picture, image_size=None).shape == (6, 5)


@pytest.mark.parametrize(
    "image_size", [0, -3, 2.5, "64", True, (4,), (4, 0), (4, 5, 3), (4, 2.0), {4: 5}]
)
def test_wrong_image_size(picture, image_size):
    words = f"image_size must be .*got {re.escape(repr(image_size))}"
    with pytest.raises(ValueError, match=words):
        read_image(picture, image_size)


def test_wrong_flag_and_enormous_size(picture):
    with pytest.raises(ValueError, match="gray must be True or False; got 'no'"):
        read_image(picture, gray="no")
    with pytest.raises(ValueError, match="at most 268435456 pixels"):
        read_image(picture, image_size=10**6)


# --- Bad files ----------------------------------------------------------------------


def test_bad_file_is_named_with_its_reason(bad_files):
    for path, words in bad_files.items():
        with pytest.raises(ValueError, match=f"{re.escape(path.name)}: .*{words}"):
            read_image(path)


def test_missing_file_and_folder_as_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such image file.*absent\.png"):
        read_image(tmp_path / "absent.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ValueError, match=r"folder\.png: it is a folder"):
        read_image(tmp_path / "folder.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_refused_and_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ValueError, match="not a file"):
        read_image(tmp_path / "pipe.png")


@pytest.mark.parametrize(
    "kind", [MemoryError, KeyError, struct.error, zlib.error, SyntaxError, EOFError]
)
def test_any_exception_of_a_decoder_names_the_file(picture, monkeypatch, kind):
    def fail(file):
        raise kind

    monkeypatch.setattr(_decoding, "find_plug_in", lambda start, path: fail)
    with pytest.raises(ValueError, match=r"0\.png: (it is damaged|there is not)"):
        read_image(picture)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif"])
def test_random_damage_only_ever_raises_value_error(tmp_path, suffix):
    path = save(tmp_path / f"a.{suffix}", noise(16, 16, 3))
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(150):
        data = np.frombuffer(good, np.uint8).copy()
        where = rng.integers(0, min(len(data), 300), rng.integers(1, 6))
        data[where] = rng.integers(0, 256, len(where))
        path.write_bytes(data[: rng.integers(1, len(data) + 1)].tobytes())
        try:
            read = read_image(path)
        except ValueError as error:
            assert path.name in str(error)
        else:
            assert read.dtype in (np.uint8, np.uint16, np.float32)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif"])
def test_pillows_own_limit_neither_warns_nor_changes(tmp_path, monkeypatch, suffix):
    path = save(tmp_path / f"a.{suffix}", noise(16, 16, 3))
    for limit in (200, 20):  # Pillow warns above it, and raises above twice of it
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert read_image(path).shape == (16, 16, 3)
        assert limit == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif"])
def test_more_than_max_pixels_is_refused(tmp_path, monkeypatch, suffix):
    path = save(tmp_path / f"a.{suffix}", noise(16, 18))
    monkeypatch.setattr(_formats, "MAX_PIXELS", 16 * 18)
    assert read_image(path).shape == (16, 18)
    monkeypatch.setattr(_formats, "MAX_PIXELS", 16 * 18 - 1)
    with pytest.raises(ValueError, match=rf"a\.{suffix}: .*claims 18 x 16 .*1 to 287"):
        read_image(path)
