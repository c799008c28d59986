"""Files that end early: refused and named, or read as far as they go."""

import zlib
from io import BytesIO

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image
from test_decoding import chunk, noise, save

from skad import ImageFolder, read_image, read_images
from skad.images.jpeg import read_layout

HEADER = b"\x89PNG\r\n\x1a\n"
JPEG_WAYS = [
    {},
    {"quality": 95, "subsampling": 0},
    {"progressive": True},
    {"optimize": True, "quality": 20},
    {"restart_marker_blocks": 3},
    {"restart_marker_rows": 1, "progressive": True},
]


def photo(mode="RGB", size=(96, 72)):
    """Smooth areas and edges, as in a photograph."""
    return Image.effect_mandelbrot(size, (-2, -1, 1, 1), 60).convert(mode)


def jpeg(mode="RGB", **options):
    file = BytesIO()
    photo(mode).save(file, "JPEG", **options)
    return file.getvalue()


def png(rows, *, depth=8, colour=2, interlace=0, width=48, height=40, more=()):
    """A PNG file whose data are whole, as zlib sees it, and of any length."""
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    header += bytes([depth, colour, 0, 0, interlace])
    parts = [(b"IHDR", header), *more, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return HEADER + b"".join(chunk(*part) for part in parts)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("options", JPEG_WAYS)
def test_whole_jpeg_is_read_and_a_cut_one_refused(tmp_path, mode, options):
    data, path = jpeg(mode, **options), tmp_path / "a.jpg"
    # Cameras write behind the image; markers may be filled up.
    for whole in (data, data + b"trailer", data[:-2] + b"\xff\xff\xff\xd9"):
        path.write_bytes(whole)
        with Image.open(BytesIO(data)) as image:
            expected = np.asarray(image.convert("L" if mode == "L" else "RGB"))
        assert_array_equal(read_image(path), expected)
    start = read_layout(data).scans[0].end if "progressive" in options else len(data)
    for part in (start // 2, start * 3 // 4, len(data) - 40):
        path.write_bytes(data[:part] + b"\xff\xd9")
        with pytest.raises(ValueError, match=r"a\.jpg: .*(truncated|damaged)"):
            read_image(path)
    for lack in (1, 2, 3, 5, 9):  # the end marker, and what may pass for whole
        path.write_bytes(data[:-lack])
        with pytest.raises(ValueError, match=r"a\.jpg: .*truncated"):
            read_image(path)


def test_progressive_jpeg_cut_between_two_scans_is_refused(tmp_path):
    data = jpeg(progressive=True)
    scans = read_layout(data).scans
    assert len(scans) > 5
    for scan in scans[:-1]:
        (tmp_path / "a.jpg").write_bytes(data[: scan.end] + b"\xff\xd9")
        with pytest.raises(ValueError, match=r"a\.jpg: .*truncated"):
            read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize(("depth", "colour", "n_bytes"), [(8, 2, 3), (16, 0, 2)])
def test_png_whose_data_end_early_is_refused(tmp_path, depth, colour, n_bytes):
    rows = b"".join(b"\0" + noise(48 * n_bytes, seed=i).tobytes() for i in range(40))
    kind, path = {"depth": depth, "colour": colour}, tmp_path / "a.png"
    path.write_bytes(png(rows, **kind))
    assert read_image(path).shape[:2] == (40, 48)
    for end in (len(rows) // 2, len(rows) - 48 * n_bytes - 1, len(rows) - 1):
        path.write_bytes(png(rows[:end], **kind))
        with pytest.raises(ValueError, match=r"a\.png: the image data are truncated"):
            read_image(path)


def test_no_pixels_are_mistaken_for_missing_ones(tmp_path):
    for value in range(256):  # one of them is what the decoder writes over
        array = np.full((1, 1), value, np.uint8)
        assert_array_equal(read_image(save(tmp_path / "a.png", array)), array)
        assert_array_equal(read_image(save(tmp_path / "a.gif", array))[..., 0], array)


def test_interlaced_png_and_gif_whose_data_end_early(tmp_path):
    rows = []
    for x0, y0, dx, dy in (
        *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
        *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),  # Adam7
    ):
        n = len(range(x0, 48, dx))
        rows += [b"\0" + noise(3 * n).tobytes() for _ in range(y0, 40, dy)]
    for n_rows in (None, -1, len(rows) // 2):
        (tmp_path / "a.png").write_bytes(png(b"".join(rows[:n_rows]), interlace=1))
        if n_rows is None:
            assert read_image(tmp_path / "a.png").shape == (40, 48, 3)
        else:
            with pytest.raises(ValueError, match="truncated"):
                read_image(tmp_path / "a.png")
    path = tmp_path / "a.gif"
    Image.new("L", (20, 20), 7).save(path)
    data = path.read_bytes()
    start = data.rindex(b"\x2c") + 10
    start += 3 * 2 ** ((data[start - 1] & 7) + 1) if data[start - 1] & 128 else 0
    codes = [256, *[7] * 50, 257]  # clear, pixels, end, of 9 bits each
    bits = sum(code << 9 * i for i, code in enumerate(codes))
    stream = bits.to_bytes(9 * len(codes) // 8 + 1, "little")
    path.write_bytes(data[:start] + b"\x08" + bytes([len(stream)]) + stream + b"\0;")
    with pytest.raises(ValueError, match=r"a\.gif: the image data are truncated"):
        read_image(path)


def test_truncated_files_are_read_where_asked_for(tmp_path):
    whole = np.asarray(photo())
    for name in ("a.png", "b.png", "c.png"):
        save(tmp_path / name, whole)
    data = (tmp_path / "b.png").read_bytes()
    (tmp_path / "b.png").write_bytes(data[: len(data) // 2])
    with pytest.warns(UserWarning, match=r"1 truncated image file\(s\):\n.*b\.png: "):
        half = read_image(tmp_path / "b.png", truncated="warn")
    assert_array_equal(half[:20], whole[:20])
    assert not half[-1].any()
    for read in (read_images, ImageFolder):
        with pytest.warns(UserWarning, match=r"left out, cannot read 1 .*\n.*b\.png"):
            assert len(read(tmp_path)) == 2
        with pytest.warns(UserWarning, match=r"1 truncated .*\n.*b\.png") as record:
            images = read(tmp_path, truncated="warn")
            assert_array_equal(images[1], half)
        assert len(record) == 1
        with pytest.raises(ValueError, match="truncated must be 'error' or 'warn'; go"):
            read(tmp_path, truncated=True)
    (tmp_path / "a.jpg").write_bytes(jpeg()[:1500])
    with pytest.warns(UserWarning, match=r"a\.jpg: the image data are truncated"):
        half = read_image(tmp_path / "a.jpg", truncated="warn")
    assert half.shape == (72, 96, 3)


@pytest.mark.parametrize("exif", [b"nonsense", b"MM\0*\0\0\0\x08\0\x01\x01\x12", b""])
def test_png_with_a_broken_exif_block_is_read_as_stored(tmp_path, exif):
    rows = b"".join(b"\0" + noise(48 * 3, seed=i).tobytes() for i in range(40))
    expected = np.frombuffer(rows, np.uint8).reshape(40, -1)[:, 1:].reshape(40, 48, 3)
    data = png(rows, more=[(b"eXIf", exif)])
    (tmp_path / "a.png").write_bytes(data)
    assert_array_equal(read_image(tmp_path / "a.png"), expected)
    place = data.index(b"eXIf") + 4
    broken = data[:place] + b"?" + data[place + 1 :]  # a wrong checksum
    (tmp_path / "a.png").write_bytes(broken)
    assert_array_equal(read_image(tmp_path / "a.png"), expected)


def test_damaged_pixels_of_a_png_are_told_by_their_checksum(tmp_path):
    data = bytearray(png(bytes(40 * (1 + 48 * 3))))
    data[data.index(b"IDAT") + 8] ^= 1
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.png: it is damaged: checksum .* IDAT"):
        read_image(tmp_path / "a.png")
