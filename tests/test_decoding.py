"""Reading one image file: its pixels, resizing, and files that are refused."""

import re

import numpy as np
import pytest
import tifffile
from image_files import ORIENTATION, needs, noise, photo, png, save
from numpy.testing import assert_array_equal
from PIL import Image, ImageOps

from skad.images import read_image

# --- Pixels ---------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (1, 1)])
def test_lossless_file_gives_its_pixels(tmp_path, shape):
    for suffix in ("png", "bmp", "TIFF", "ppm"):
        read = read_image(save(tmp_path / f"a.{suffix}", noise(*shape)))
        assert read.dtype == np.uint8
        assert_array_equal(read, noise(*shape))


@pytest.mark.parametrize("suffix", ["webp", "gif", "jfif"])
def test_other_formats_are_read_by_their_contents(tmp_path, suffix):
    needs(suffix)
    array = np.asarray(photo().quantize(64).convert("RGB"))  # as GIF needs it
    save(tmp_path / f"a.{suffix}", array, quality=95).rename(tmp_path / "a.png")
    read = read_image(str(tmp_path / "a.png"))
    assert np.abs(read.astype(int) - array).mean() <= 5


def test_gray_is_bt601_luminance(tmp_path):
    array = noise(8, 8, 3)
    read = read_image(save(tmp_path / "a.png", array), gray=True)
    assert read.dtype == np.uint8
    assert np.abs(read - array @ [0.299, 0.587, 0.114]).max() <= 0.51


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_deep_gray_keeps_its_bits(tmp_path, suffix):
    deep = noise(5, 7, dtype=np.uint16)
    path = save(tmp_path / f"a.{suffix}", deep)
    for gray in (False, True):
        assert read_image(path, gray=gray).dtype == np.uint16
        assert_array_equal(read_image(path, gray=gray), deep)


def test_deep_colour_that_pillow_would_cut_is_refused(tmp_path):
    (tmp_path / "a.ppm").write_bytes(b"P6 4 4 65535\n" + bytes(96))
    for kind, channels in ((2, 3), (4, 2), (6, 4)):
        data = png(bytes(4 * (1 + 8 * channels)), depth=16, colour=kind, width=4)
        (tmp_path / f"{channels}.png").write_bytes(data)
    tifffile.imwrite(tmp_path / "a.tif", noise(4, 4, 3, dtype=np.uint16))
    tifffile.imwrite(tmp_path / "b.tif", noise(4, 4, dtype=np.int16))
    for path in tmp_path.iterdir():
        words = rf"{path.name}: .* more than 8 bits per channel.* save it as 16-bit"
        with pytest.raises(ValueError, match=words):
            read_image(path)


def test_palette_becomes_rgb_even_if_gray(tmp_path):
    image = Image.fromarray(noise(6, 6) % 4).convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60, 7, 7, 7, 0, 0, 255])
    expected = np.array(image.getpalette()).reshape(-1, 3)[np.array(image)]
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "transparent.png", transparency=bytes([0, 100, 255, 255]))
    assert_array_equal(read_image(tmp_path / "a.png"), expected)
    assert_array_equal(read_image(tmp_path / "transparent.png"), expected)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_one_bit_and_alpha(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    for array in (noise(5, 9) > 127, np.ones((3, 9), bool)):
        assert_array_equal(read_image(save(path, array)), array * np.uint8(255))
    colour = noise(6, 6, 4)
    colour[:3, :, 3] = 0
    assert_array_equal(read_image(save(path, colour)), colour[..., :3])
    gray = colour[..., :2].copy()
    assert_array_equal(read_image(save(path, gray)), gray[..., 0])


@pytest.mark.parametrize("turn", [5, 8])
def test_orientation_is_applied(tmp_path, turn):
    exif = Image.Exif()
    exif[ORIENTATION] = turn
    array = noise(5, 7, 3)
    stored = Image.fromarray(array)
    stored.getexif()[ORIENTATION] = turn
    expected = np.asarray(ImageOps.exif_transpose(stored))
    assert_array_equal(read_image(save(tmp_path / "a.png", array, exif=exif)), expected)
    tags = [(ORIENTATION, "H", 1, turn, True)]
    tifffile.imwrite(tmp_path / "a.tif", array, extratags=tags, photometric="rgb")
    assert_array_equal(read_image(tmp_path / "a.tif"), expected)


def test_png_with_a_broken_exif_block_is_read_as_stored(tmp_path):
    rows = b"".join(b"\0" + noise(48 * 3, seed=i).tobytes() for i in range(40))
    expected = np.frombuffer(rows, np.uint8).reshape(40, -1)[:, 1:].reshape(40, 48, 3)
    for exif in (b"nonsense", b"MM\0*\0\0\0\x08\0\x01\x01\x12", b""):
        (tmp_path / "a.png").write_bytes(png(rows, more=[(b"eXIf", exif)]))
        assert_array_equal(read_image(tmp_path / "a.png"), expected)


# --- Resizing and options -----------------------------------------------------------


def test_options(tmp_path):
    picture = save(tmp_path / "0.png", noise(6, 5))
    assert read_image(picture, image_size=np.int64(9)).shape == (9, 9)
    assert read_image(picture, image_size=[4, 9]).shape == (4, 9)
    for image_size in (0, "64", (4, 5, 3), 10**6):
        words = f"image_size must be an int .*got {re.escape(repr(image_size))}"
        with pytest.raises(ValueError, match=words):
            read_image(picture, image_size)
    with pytest.raises(ValueError, match="gray must be True or False; got 'no'"):
        read_image(picture, gray="no")


# --- Files that are refused -----------------------------------------------------------


def test_what_is_no_image_is_named_with_the_reason(tmp_path):
    claim = png(noise(1, 13).tobytes(), width=100_000, height=100_000)
    contents = {
        "text.png": (b"any text that is no image", "not an image of .*JPEG.*WEBP"),
        "empty.png": (b"", "the file is empty"),
        "huge.png": (claim, "10000000000 pixels.* exceeds limit"),
    }
    for name, (data, words) in contents.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=f"cannot read .*{name}: .*{words}"):
            read_image(tmp_path / name)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ValueError, match=r"folder\.png: it is a folder or a device"):
        read_image(tmp_path / "folder.png")
    with pytest.raises(FileNotFoundError, match=r"no such image file.*absent\.png"):
        read_image(tmp_path / "absent.png")


@pytest.mark.parametrize("suffix", ["gif", "webp", "tif"])
def test_several_frames_or_pages_are_refused(tmp_path, suffix):
    needs(suffix)
    frames = [Image.fromarray(noise(16, 16, 3, seed=seed)) for seed in range(3)]
    path = tmp_path / f"a.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    words = rf"a\.{suffix}: it has several frames or pages, .*; split it"
    with pytest.raises(ValueError, match=words):
        read_image(path)


def test_of_a_camera_s_file_with_previews_the_image_is_read(tmp_path):
    path, previews = tmp_path / "a.mpo", [photo(size=(48, 36))]
    photo().save(path, "MPO", save_all=True, append_images=previews)
    assert read_image(path).shape == (72, 96, 3)
