"""Which formats are read, what of them is refused, and that decoders keep quiet."""

import logging
import warnings
from io import BytesIO

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image, features
from test_decoding import noise, png_bytes, save
from test_loading import photo

from skad.images import find_images, read_image
from skad.images.formats import _is_deep_avif, formats, quiet

LOSSLESS = {
    "webp": {"lossless": True},
    "gif": {},
    "jp2": {},
    "ppm": {},
    "tga": {},
    "pcx": {},
    "sgi": {},
    "apng": {"format": "PNG"},
    "dds": {},
    "jfif": {"quality": 100, "subsampling": 0},
    "avif": {"quality": 100, "subsampling": "4:4:4"},
}
OPTIONAL = {"webp": "webp", "jp2": "jpg_2000"}


def needs(suffix):
    known = "AVIF" in formats() if suffix == "avif" else True
    if not known or (suffix in OPTIONAL and not features.check(OPTIONAL[suffix])):
        pytest.skip(f"Pillow here cannot read .{suffix}")


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_what_pillow_reads_is_found_and_read(tmp_path, suffix):
    needs(suffix)
    array = np.asarray(photo().quantize(64).convert("RGB"))  # as GIF needs it
    path = save(tmp_path / f"a.{suffix}", array, **LOSSLESS[suffix])
    assert find_images(tmp_path) == [path]
    assert np.abs(read_image(path).astype(int) - array).mean() <= 3
    path.rename(tmp_path / "a.any")
    if suffix != "tga":  # has no magic number
        assert read_image(tmp_path / "a.any").shape == array.shape


def test_documents_movies_and_icons_are_no_images(tmp_path):
    unwanted = {"EPS", "PDF", "MPEG", "WMF", "FLI", "ICO", "PSD", "GRIB", "HDF5"}
    assert unwanted.isdisjoint(formats())
    photo().save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png: its contents are not an image of"):
        read_image(tmp_path / "a.png")
    (tmp_path / "a.tga").write_bytes(b"any text that is no image" * 10)
    (tmp_path / "text.png").write_bytes(b"any text that is no image" * 10)
    for name in ("a.tga", "text.png"):
        with pytest.raises(ValueError, match=f"cannot read the image .*{name}"):
            read_image(tmp_path / name)


def test_deep_images_keep_their_bits_or_are_refused(tmp_path):
    deep = noise(6, 5, dtype=np.uint16)
    assert_array_equal(read_image(save(tmp_path / "a.pgm", deep)), deep)
    if features.check("jpg_2000"):
        assert_array_equal(read_image(save(tmp_path / "a.jp2", deep)), deep)
    real = deep / np.float32(7)
    assert_array_equal(read_image(save(tmp_path / "a.pfm", real)), real)
    colour = noise(4, 4, 3, dtype=np.uint16)
    words = "has more than 8 bits per channel .*save it as 16-bit TIFF"
    big_endian = colour.astype(">u2").tobytes()
    (tmp_path / "a.ppm").write_bytes(b"P6 4 4 65535\n" + big_endian)
    plain = " ".join(map(str, colour.ravel())).encode()
    (tmp_path / "b.ppm").write_bytes(b"P3 4 4 65535\n" + plain)
    (tmp_path / "c.png").write_bytes(png_bytes(colour, 2))
    header = b"\x01\xda\0\x02\0\x03\0\x04\0\x04\0\x03" + bytes(8) + bytes(492)
    (tmp_path / "d.sgi").write_bytes(header + big_endian)
    for name in ("a.ppm", "b.ppm", "c.png", "d.sgi"):
        with pytest.raises(ValueError, match=f"{name}: .*{words}"):
            read_image(tmp_path / name)


def test_deep_colour_of_jpeg_2000_and_avif_is_known_by_their_headers(tmp_path):
    assert _is_deep_avif(b"\0\0\0\x0cav1C\x81\x04\x4c\0")
    assert not _is_deep_avif(b"\0\0\0\x0cav1C\x81\x04\x0c\0")
    needs("jp2")
    path = save(tmp_path / "a.jp2", noise(16, 16, 3))
    data = bytearray(path.read_bytes())
    start = data.index(b"\xff\x4f\xff\x51") + 42
    assert data[start : start + 7 : 3] == b"\7\7\7"  # bits less 1
    data[start : start + 7 : 3] = b"\x0b\x0b\x0b"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="more than 8 bits per channel"):
        read_image(path)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "avif", "tif", "dcx"])
def test_several_frames_or_pages_are_refused_with_their_number(tmp_path, suffix):
    needs(suffix)
    frames = [Image.fromarray(noise(16, 16, 3, seed=seed)) for seed in range(3)]
    path = tmp_path / f"a.{suffix}"
    if suffix == "dcx":
        pages = [BytesIO() for _ in frames]
        for frame, page in zip(frames, pages, strict=True):
            frame.save(page, "PCX")
        start, places = 4 * 4 + 4, []
        for page in pages:
            places.append(start)
            start += len(page.getvalue())
        numbers = [0x3ADE68B1, *places, 0]
        head = b"".join(number.to_bytes(4, "little") for number in numbers)
        path.write_bytes(head + b"".join(page.getvalue() for page in pages))
    else:
        frames[0].save(path, save_all=True, append_images=frames[1:])
    words = rf"a\.{suffix}: it has 3 (frames|pages), and one image is wanted; split it"
    with pytest.raises(ValueError, match=words):
        read_image(path)


def test_previews_in_a_camera_s_file_are_no_further_frames(tmp_path):
    path, large, small = tmp_path / "a.mpo", photo(), photo(size=(48, 36))
    large.save(path, "MPO", save_all=True, append_images=[small])
    assert read_image(path).shape == (72, 96, 3)
    large.save(path, "MPO", save_all=True, append_images=[large])
    with pytest.raises(ValueError, match="it has 2 frames"):
        read_image(path)


def test_what_decoders_say_stays_with_them_and_others_are_heard(capfd):
    logger = logging.getLogger("tifffile")
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        filters = list(warnings.filters)
        with quiet(), quiet():
            warnings.warn_explicit("a", UserWarning, "", 1, module="PIL.Image")
            logger.error("unheard")
        assert warnings.filters == filters
        with quiet():
            warnings.warn("b", UserWarning, stacklevel=1)
    assert [str(one.message) for one in record] == ["b"]
    logger.error("heard")
    assert capfd.readouterr().err in ("heard\n", "")  # pytest may take it
