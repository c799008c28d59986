"""Reading many images: folders, bad files, and scikit-learn's ways of use."""

import os
import pickle
import re

import joblib
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image
from skimage.io import imsave
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import _safe_indexing, get_tags
from sklearn.utils.validation import check_is_fitted

from skad import images
from skad.images import (
    ImageFolder,
    ImageReader,
    find_images,
    read_images,
    resize_image,
)
from skad.images import survey as _survey


def noise(*shape, dtype=np.uint8, seed=0):
    top = np.iinfo(dtype).max + 1
    return np.random.default_rng(seed).integers(0, top, shape).astype(dtype)


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path):
    """Eight gray images of 6 x 5, image i filled with i."""
    for i in range(8):
        save(tmp_path / f"{i}.png", np.full((6, 5), i, np.uint8))
    return tmp_path


@pytest.fixture
def bad_files(tmp_path):
    """Twelve files that cannot be read, the first of them a truncated JPEG."""
    place = tmp_path / "bad"
    place.mkdir()
    photo = save(place / "cut.jpg", noise(64, 64), quality=95).read_bytes()
    (place / "cut.jpg").write_bytes(photo[: len(photo) // 2])
    (place / "empty.png").touch()
    for number in range(10):
        (place / f"text{number}.png").write_bytes(b"this is no image")
    return find_images(place)


# --- find_images --------------------------------------------------------------------


def test_find_images_in_a_folder(tmp_path):
    names = ["10.PNG", "2.png", "a.JPG", "b.jpeg", "c.Bmp", "d.tif", "e.TIFF"]
    names += ["f.gif", "g.WebP", "h.jp2"]
    for name in reversed(names):
        (tmp_path / name).touch()
    (tmp_path / "sub.png").mkdir()
    (tmp_path / "sub.png" / "deeper.png").touch()
    assert find_images(tmp_path) == [tmp_path / name for name in names]
    assert find_images(str(tmp_path)) == find_images(tmp_path)


def test_what_is_no_image_in_a_folder_is_named_once(folder):
    for name in ("._0.png", ".hidden.png", ".DS_Store", "Thumbs.db", "desktop.ini"):
        (folder / name).touch()
    assert len(find_images(folder)) == 8  # without a warning
    for name in ("notes.txt", "model.safetensors", "png"):
        (folder / name).touch()
    words = r"^3 files are no images and not taken: model\.safetensors, notes\.txt, png"
    for read in (find_images, read_images, ImageFolder):
        with pytest.warns(UserWarning, match=words) as record:
            assert len(read(folder)) == 8
        assert len(record) == 1


def test_folders_in_a_folder_are_searched_where_asked_for(folder, monkeypatch):
    for name in ("b/good/1.png", "b/good/0.png", "b.png", "a/2.png", ".trash/3.png"):
        (folder / "all" / name).parent.mkdir(parents=True, exist_ok=True)
        save(folder / "all" / name, np.zeros((6, 5), np.uint8))
    found = find_images(folder / "all", recursive=True)
    names = ["a/2.png", "b/good/0.png", "b/good/1.png", "b.png"]
    assert [file.relative_to(folder / "all").as_posix() for file in found] == names
    assert ImageFolder(folder / "all", recursive=True).paths == found
    assert len(read_images(folder / "all", recursive=True)) == 4
    hint = r"no image in the folder .*b, but 2 in .*good: pass that, or recursive=True"
    with pytest.raises(ValueError, match=hint):
        find_images(folder / "all" / "b")
    with pytest.raises(ValueError, match="recursive must be True or False; got 1"):
        find_images(folder, recursive=1)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("USERPROFILE", str(folder))  # on Windows
    assert find_images("~/all/b/good/*.png") == found[1:3]
    assert find_images("~/all/b*/**/[01].png") == found[1:3]
    assert find_images(["~/all/b.png"]) == found[3:]
    assert images.read_image("~/all/b.png").shape == (6, 5)
    with pytest.raises(FileNotFoundError, match=r"no image .* matches .*\*\.jpg"):
        find_images(folder / "*.jpg")


def test_find_images_takes_files_in_order(tmp_path):
    paths = [tmp_path / name for name in ("b.png", "a.any")]
    for path in paths:
        path.touch()
    assert find_images(paths[1]) == paths[1:]
    assert find_images(tuple(paths)) == paths
    assert find_images(np.array([str(path) for path in paths])) == paths


def test_find_images_errors(tmp_path):
    with pytest.raises(
        ValueError,
        match=r"no image in the folder.*\*\.jpg, .*\*\.tiff.*any case, not in",
    ):
        find_images(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no such image file or folder.*gone"):
        find_images(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        find_images([tmp_path, tmp_path / "gone.png"])
    with pytest.raises(ValueError, match="no image paths"):
        find_images([])


@pytest.mark.parametrize("call", [find_images, read_images, ImageFolder])
@pytest.mark.parametrize(
    ("source", "got"),
    [
        (5, "got 5"),
        (None, "got None"),
        (b"/tmp", "got b'/tmp'"),
        ([1, 2], "item 0 is 1"),
        (["/", None], "item 1 is None"),
        ([["a.png"], ["b.png"]], r"item 0 is \['a.png'\]"),
        (np.array([["a", "b"]]), r"item 0 is array\(\['a', 'b'\]"),
    ],
)
def test_what_is_no_path_is_named(call, source, got):
    rule = r"image paths must be a str or a pathlib\.Path, or a sequence of these; "
    with pytest.raises(ValueError, match=rule + got):
        call(source)


# --- Many files ---------------------------------------------------------------------


@pytest.mark.parametrize("read", [read_images, ImageFolder])
def test_folder_gives_all_images_in_order(folder, read):
    result = read(folder)
    assert result.shape == (8, 6, 5)
    assert result.dtype == np.uint8
    assert result.ndim == 3
    assert_array_equal([image[0, 0] for image in result], np.arange(8))


def test_read_images_and_folder_agree_on_colour(tmp_path):
    for i in range(3):
        save(tmp_path / f"{i}.png", noise(9, 8, 3, seed=i))
    for options in ({}, {"gray": True}, {"image_size": (4, 5)}):
        lazy = ImageFolder(tmp_path, **options)
        array = read_images(tmp_path, **options)
        assert array.shape == lazy.shape
        assert lazy.ndim == array.ndim
        assert_array_equal(np.asarray(lazy), array)


def test_read_images_decodes_each_file_once(folder, monkeypatch):
    seen = []
    inner = _survey.decode_or_say_why

    def decode(path, **options):
        seen.append(path)
        return inner(path, **options)

    monkeypatch.setattr(_survey, "decode_or_say_why", decode)
    read_images(folder)
    assert sorted(seen) == find_images(folder)


def test_more_files_than_wait_in_memory(folder, monkeypatch):
    monkeypatch.setattr(_survey, "_AT_ONCE", 3)
    assert_array_equal(read_images(folder)[:, 0, 0], np.arange(8))


@pytest.mark.parametrize(
    "call",
    [
        lambda folder, size, gray: read_images(folder, size, gray),
        lambda folder, size, gray: ImageFolder(folder, image_size=size, gray=gray),
        lambda folder, size, gray: ImageReader(size, gray).fit([]),
        lambda folder, size, gray: ImageReader(size, gray).transform([folder]),
    ],
)
def test_wrong_options(folder, call):
    with pytest.raises(ValueError, match=r"image_size must be .*got \(4, 0\)"):
        call(folder, (4, 0), False)
    with pytest.raises(ValueError, match="gray must be True or False; got 'no'"):
        call(folder, None, "no")


@pytest.mark.parametrize("read", [read_images, ImageFolder])
def test_bad_files_among_good_are_left_out_with_one_warning(folder, bad_files, read):
    for path in bad_files:
        path.rename(folder / f"4{path.name}")
    with pytest.warns(UserWarning, match="left out, cannot read 12") as record:
        result = read(folder)
    assert len(record) == 1
    assert record[0].filename == __file__
    text = str(record[0].message)
    assert len(text.splitlines()) == 1 + 10 + 1
    assert re.search(r"4cut\.jpg: .*truncated", text)
    assert text.endswith("and 2 more")
    assert_array_equal([image[0, 0] for image in result], np.arange(8))
    if read is ImageFolder:
        names = {f"4{path.name}" for path in bad_files}
        assert {path.name for path, _ in result.left_out} == names
        assert len(result) == len(result.paths) == 8
        assert dict(result.left_out)[folder / "4empty.png"] == "the file is empty"


@pytest.mark.parametrize("read", [read_images, ImageFolder])
def test_one_truncated_jpeg_first_among_good(tmp_path, read):
    for name in "abc":
        save(tmp_path / f"{name}.jpg", noise(64, 64), quality=95)
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2])
    with pytest.warns(UserWarning, match=r"cannot read 1 image.*\n.*a\.jpg: .*trunc"):
        result = read(tmp_path)
    assert result.shape == (2, 64, 64)


@pytest.mark.parametrize("read", [read_images, ImageFolder])
def test_broken_link_is_named_not_ignored(folder, read):
    (folder / "link.png").symlink_to(folder / "gone.png")
    with pytest.warns(UserWarning, match=r"link\.png: no such image file"):
        assert len(read(folder)) == 8


@pytest.mark.parametrize("read", [read_images, ImageFolder])
def test_nothing_readable(bad_files, read):
    place = bad_files[0].parent
    with pytest.raises(ValueError, match=r"no image can be read; (.|\n)*cut\.jpg: "):
        read(place)


@pytest.mark.parametrize(
    "read",
    [
        read_images,
        ImageFolder,
        lambda place: ImageReader().transform(find_images(place)),
    ],
)
def test_images_that_do_not_fit_together(tmp_path, read):
    save(tmp_path / "a.png", noise(6, 5))
    save(tmp_path / "b.png", noise(6, 5))
    for other, what, remedy in (
        (noise(7, 5), "7 x 5 gray uint8", r"pass image_size=\(6, 5\) to resize them"),
        (noise(6, 5, 3), "6 x 5 colour uint8", "pass gray=True to read all as gray"),
        (noise(6, 5).astype(np.uint16), "6 x 5 gray uint16", "convert the files to"),
    ):
        save(tmp_path / "c.png", other)
        words = rf"a\.png is 6 x 5 gray uint8, .*c\.png is {what}; {remedy}"
        with pytest.raises(ValueError, match=words):
            read(tmp_path)


def test_remedies_work(tmp_path):
    save(tmp_path / "a.png", noise(6, 5))
    save(tmp_path / "b.png", noise(7, 9, 3))
    assert read_images(tmp_path, image_size=4, gray=True).shape == (2, 4, 4)
    assert ImageFolder(tmp_path, image_size=4, gray=True).shape == (2, 4, 4)


# --- ImageFolder --------------------------------------------------------------------


def test_unchecked_folder_trusts_the_first_image(folder):
    (folder / "1.png").write_bytes(b"nonsense")
    save(folder / "2.png", noise(3, 3))
    lazy = ImageFolder(folder, check=False)
    assert lazy.shape == (8, 6, 5)
    assert lazy.left_out == []
    assert_array_equal(lazy[3], np.full((6, 5), 3))
    with pytest.raises(ValueError, match=r"1\.png: its contents are not"):
        lazy[1]
    with pytest.raises(ValueError, match=r"0\.png is 6 x 5 gray.*2\.png is 3 x 3"):
        lazy[1:][1]
    (folder / "0.png").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"0\.png"):
        ImageFolder(folder, check=False)
    with pytest.raises(ValueError, match="check must be True or False; got 1"):
        ImageFolder(folder, check=1)


def test_file_changed_after_the_check(folder):
    lazy = ImageFolder(folder)
    save(folder / "2.png", noise(6, 5, 3))
    with pytest.raises(ValueError, match=r"2\.png is 6 x 5 colour"):
        lazy[2]
    (folder / "2.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"2\.png"):
        lazy[2]


@pytest.mark.parametrize("index", [0, 7, -1, -8, np.int64(3), np.uint8(3)])
def test_int_index_is_an_image(folder, index):
    image = ImageFolder(folder)[index]
    assert isinstance(image, np.ndarray)
    assert_array_equal(image, np.full((6, 5), np.arange(8)[index]))


@pytest.mark.parametrize(
    "key",
    [
        slice(2, 5),
        slice(None, None, -2),
        slice(3, 3),
        [0, 5, -1],
        [],
        np.array([4, 4, 0]),
        np.array([2], np.uint8),
        np.arange(8) % 3 == 0,
        [True, False] * 4,
        np.zeros(8, bool),
    ],
)
def test_other_indices_are_folders_as_in_numpy(folder, key):
    values = np.arange(8)[key]
    part = ImageFolder(folder, image_size=4)[key]
    assert isinstance(part, ImageFolder)
    assert part.shape == (len(values), 4, 4)
    assert part.image_size == (4, 4)
    assert_array_equal([image[0, 0] for image in part], values)
    assert "4 x 4" in repr(part)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (8, "index 8 is out of bounds"),
        (-9, "index -9 is out of bounds"),
        ([0, 8], "index 8 is out of bounds"),
        ([True], "boolean index did not match .* is 8 but .* is 1"),
        (1.0, ""),
        ("0", ""),
        (True, "got True"),
        (None, "got None"),
        ([0.5], "integer"),
        ((0, 1, 2), "too many indices"),
        ((0, slice(2)), "too many indices"),
        ([[0], [1]], r"got \[\[0\], \[1\]\]"),
    ],
)
def test_wrong_index(folder, key, words):
    lazy = ImageFolder(folder)
    rule = "an ImageFolder of 8 images is indexed by an int, a slice, a list of ints"
    with pytest.raises(IndexError, match=f"{rule} .*: .*{words}"):
        lazy[key]


def test_subsets_are_not_checked_again(folder, monkeypatch):
    lazy = ImageFolder(folder)
    monkeypatch.setattr(_survey, "decode_or_say_why", None)
    assert len(lazy[2:6][[0, 1]]) == 2


def test_folder_pickles_and_repr(folder):
    lazy = ImageFolder(folder, image_size=(4, 3))
    again = pickle.loads(pickle.dumps(lazy))
    assert again.paths == lazy.paths
    assert_array_equal(again[3], lazy[3])
    assert repr(lazy) == f"<ImageFolder: 8 images, 4 x 3 gray uint8 from {folder}>"
    assert not hasattr(lazy, "__array__")


def test_folders_built_alike_hash_alike(folder, bad_files):
    for path in bad_files:
        path.rename(folder / f"4{path.name}")
    with pytest.warns(UserWarning, match="left out"):
        lazy, other = ImageFolder(folder), ImageFolder(folder)
    expected = joblib.hash(lazy)
    assert joblib.hash(other) == expected
    assert joblib.hash(lazy[:4]) == joblib.hash(other[:4]) != expected
    assert joblib.hash(lazy[[0, 2]]) == joblib.hash(other[np.array([0, 2])])
    np.asarray(lazy)
    assert joblib.hash(lazy) == expected
    assert joblib.hash(pickle.loads(pickle.dumps(lazy))) == expected


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("n_bytes", [0, 1])
def test_hash_tells_an_overwritten_file(folder, check, n_bytes):
    before = ImageFolder(folder, check=check)
    path, status = before.paths[2], before.paths[2].stat()
    later = status.st_mtime_ns + 1_000_000 * (n_bytes == 0)
    save(path, np.full((6, 5), 9, np.uint8))
    content = path.read_bytes().ljust(status.st_size, b"\0") + b"\0" * n_bytes
    path.write_bytes(content)
    os.utime(path, ns=(later, later))
    assert path.stat().st_size == status.st_size + n_bytes
    after = ImageFolder(folder, check=check)
    assert joblib.hash(after) != joblib.hash(before)
    assert joblib.hash(after[2:3]) != joblib.hash(before[2:3])
    assert joblib.hash(after[[0, 1, 7]]) == joblib.hash(before[[0, 1, 7]])


def test_memory_computes_anew_for_an_overwritten_file(folder):
    memory = joblib.Memory(folder / "cache", verbose=0)
    total = memory.cache(lambda lazy: int(sum(image[0, 0] for image in lazy)))
    assert total(ImageFolder(folder)) == sum(range(8))
    assert total.check_call_in_cache(ImageFolder(folder))
    save(folder / "0.png", np.full((6, 5), 100, np.uint8))
    os.utime(folder / "0.png", ns=(0, 0))
    assert total(ImageFolder(folder)) == 100 + sum(range(8))


def test_unchecked_folder_with_a_broken_link(folder):
    (folder / "link.png").symlink_to(folder / "gone.png")
    lazy = ImageFolder(folder, check=False)
    with pytest.raises(FileNotFoundError, match=r"link\.png"):
        lazy[-1]


def test_scikit_learn_splits_a_folder(folder):
    lazy = ImageFolder(folder)
    for key in ([1, 2], np.array([1, 2]), np.arange(8) < 3, slice(1, 3)):
        assert isinstance(_safe_indexing(lazy, key), ImageFolder)
    assert_array_equal(_safe_indexing(lazy, 2), lazy[2])
    train, test = train_test_split(lazy, test_size=0.25, random_state=0)
    assert isinstance(train, ImageFolder)
    assert sorted(train.paths + test.paths) == lazy.paths
    for fitted, held_out in KFold(4).split(lazy):
        part = _safe_indexing(lazy, held_out)
        assert part.paths == [lazy.paths[i] for i in held_out]
        assert len(fitted) == 6


# --- ImageReader --------------------------------------------------------------------


def test_reader_reads_and_keeps_step(folder, bad_files):
    paths = find_images(folder)
    reader = ImageReader(image_size=(3, 4))
    assert reader.fit(paths) is reader
    read = reader.transform(paths[::-1])
    assert read.shape == (8, 3, 4)
    assert_array_equal(read[:, 0, 0], np.arange(8)[::-1])
    with pytest.raises(ValueError, match=r"cannot read 1 .*\n.*cut\.jpg: "):
        reader.transform([*paths, bad_files[0]])
    with pytest.raises(FileNotFoundError, match="gone"):
        reader.transform([*paths, folder / "gone.png"])


def test_reader_wants_files_not_a_folder(folder):
    with pytest.raises(ValueError, match=r"single path.*find_images\(folder\)"):
        ImageReader().transform(str(folder))
    with pytest.raises(ValueError, match="the sequence of paths is empty"):
        ImageReader().transform([])
    with pytest.raises(ValueError, match="it is a folder"):
        ImageReader().transform([folder])


def test_reader_takes_a_table_of_one_column(folder):
    pandas = pytest.importorskip("pandas")
    paths = [str(path) for path in find_images(folder)]
    expected = ImageReader().transform(paths)
    frame = pandas.DataFrame({"p": paths, "q": paths})
    for table in (frame[["p"]], np.array(paths)[:, None], frame["p"]):
        np.testing.assert_array_equal(ImageReader().transform(table), expected)
    with pytest.raises(ValueError, match=r"image paths must be .*; item 0 is arr"):
        ImageReader().transform(frame)


def test_reader_is_a_scikit_learn_transformer(folder):
    reader = ImageReader(image_size=8)
    assert clone(reader).get_params() == {"image_size": 8, "gray": False}
    assert reader.set_params(gray=True, image_size=(3, 4)).gray is True
    assert repr(reader) == "ImageReader(gray=True, image_size=(3, 4))"
    assert get_tags(reader).requires_fit is False
    check_is_fitted(ImageReader())
    assert pickle.loads(pickle.dumps(reader)).image_size == (3, 4)
    with pytest.raises(ValueError, match="gray must be True or False"):
        ImageReader(gray=0).fit([])


def test_reader_in_a_pipeline(folder):
    paths = np.array([str(path) for path in find_images(folder)])
    flat = FunctionTransformer(lambda array: array.reshape(len(array), -1))
    rows = make_pipeline(ImageReader(), flat).fit_transform(paths)
    assert rows.shape == (8, 30)
    y = np.array([0, 1] * 4)
    model = make_pipeline(ImageReader(), flat, LogisticRegression())
    assert len(cross_val_score(model, paths, y, cv=2)) == 2


# --- Resizing what is in memory ---------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, ">u2"])
@pytest.mark.parametrize("colours", [(), (3,)])
def test_arrays_are_resized_as_files_are(tmp_path, dtype, colours):
    if colours and dtype == ">u2":
        dtype = np.uint8
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, *colours))
    pixels = pixels.astype(dtype)
    path = tmp_path / "a.tif"
    imsave(path, pixels, check_contrast=False)
    for size in (20, (13, 31), (80, 60)):
        found = resize_image(pixels, size)
        expected = images.read_image(path, size)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("image", "size", "words"),
    [
        (np.zeros((4, 4, 2), np.uint8), 2, r"uint8 and shape \(4, 4, 2\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), 2, r"shape \(2, 4, 4, 3\)"),
        (np.zeros((4, 4)), 2, "got ndarray of float64"),
        (np.zeros((0, 4), np.uint8), 2, r"shape \(0, 4\)"),
        (Image.new("P", (4, 4)), 2, "no palette image; got Image"),
        (np.ma.masked_less(np.ones((4, 4), np.uint8), 2), 2, "image must have no mask"),
        (np.zeros((4, 4), np.uint8), None, "image_size must be .* got None"),
        (np.zeros((4, 4), np.uint8), 0, "image_size must be .* got 0"),
    ],
)
def test_what_cannot_be_resized_is_told(image, size, words):
    with pytest.raises(ValueError, match=words):
        resize_image(image, size)


def test_a_frame_may_be_used_again():
    frame = np.zeros((4, 4), np.uint8)
    assert not np.shares_memory(resize_image(frame, 4), frame)
