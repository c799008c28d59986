"""Many images: one array or a lazy folder, bad files, scikit-learn's ways of use."""

import os
import pickle
import re

import joblib
import numpy as np
import pytest
from image_files import noise, save
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skad.images import ImageFolder, ImageReader, find_images, read_images


@pytest.fixture
def folder(tmp_path):
    """Twenty gray images of 6 x 5, image i filled with i."""
    for i in range(20):
        save(tmp_path / f"{i:02}.png", np.full((6, 5), i, np.uint8))
    return tmp_path


# --- read_images and ImageFolder ----------------------------------------------------


def test_array_and_folder_have_all_images_in_order(folder):
    for i in range(20):
        save(folder / f"{i:02}.png", np.full((9, 8, 3), i, np.uint8))
    options = {"image_size": (4, 5), "gray": True}
    lazy, array = ImageFolder(folder, **options), read_images(folder, **options)
    assert (lazy.shape, lazy.dtype) == (array.shape, array.dtype)
    assert_array_equal(np.asarray(lazy), array)
    assert_array_equal(lazy.in_memory(), array)
    assert_array_equal(array.max(axis=(1, 2)), np.arange(20))
    assert lazy.frame_sizes == [(9, 8)] * 20


@pytest.mark.parametrize("read", [read_images, ImageFolder])
def test_bad_files_are_left_out_with_one_warning(folder, read):
    (folder / "00.png").write_bytes(b"")
    for i in range(2, 13):
        (folder / f"{i:02}.png").write_bytes(b"this is no image")
    with pytest.warns(UserWarning, match="12 image file.* left out") as record:
        result = read(folder)
    assert len(record) == 1
    assert record[0].filename == __file__
    text = str(record[0].message)
    assert len(text.splitlines()) == 1 + 10 + 1
    assert re.search(r"00\.png: the file is empty", text)
    assert text.endswith("\n  ...")
    assert_array_equal([image[0, 0] for image in result], [1, *range(13, 20)])
    for file in folder.iterdir():
        file.write_bytes(b"")
    with pytest.raises(ValueError, match=r"no image can be read; (.|\n)*00\.png: "):
        read(folder)


def test_images_that_do_not_fit_together(tmp_path):
    save(tmp_path / "a.png", noise(6, 5))
    for read, other, what in (
        (read_images, noise(7, 5), "7 x 5 gray uint8"),
        (ImageFolder, noise(6, 5, 3), "6 x 5 colour uint8"),
        (ImageFolder, noise(6, 5).astype(np.uint16), "6 x 5 gray uint16"),
    ):
        save(tmp_path / "c.png", other)
        words = rf"a\.png is 6 x 5 gray uint8, .*c\.png is {what}; pass image_size="
        with pytest.raises(ValueError, match=words):
            read(tmp_path)


def test_indices_are_those_of_numpy(folder):
    lazy = ImageFolder(folder, image_size=4)
    mask = np.arange(20) % 3 == 0
    for key in (slice(None, None, -2), slice(3, 3), [0, 5, -1], np.array([4, 4]), mask):
        values, part = np.arange(20)[key], lazy[key]
        assert part.shape == (len(values), 4, 4)
        assert_array_equal([image[0, 0] for image in part], values)
    for i in (0, -1, np.uint8(3)):
        assert_array_equal(lazy[i], np.full((4, 4), np.arange(20)[i]))
    train, test = train_test_split(lazy, test_size=0.25, random_state=0)
    assert isinstance(train, ImageFolder)
    assert sorted(train.paths + test.paths) == lazy.paths
    for wrong in (20, [0, 20], [True], 1.0, (0, 1)):
        with pytest.raises(IndexError):
            lazy[wrong]


def test_folder_pickles_hashes_and_repr(folder):
    lazy = ImageFolder(folder, image_size=(4, 3))
    again = pickle.loads(pickle.dumps(lazy))
    assert_array_equal(again[3], lazy[3])
    assert repr(lazy) == "<ImageFolder of shape (20, 4, 3), uint8>"
    other = ImageFolder(folder, image_size=(4, 3))
    assert joblib.hash(lazy) == joblib.hash(other) == joblib.hash(again)
    assert joblib.hash(lazy[[0, 2]]) == joblib.hash(other[np.array([0, 2])])
    save(folder / "02.png", np.full((6, 5), 9, np.uint8))
    os.utime(folder / "02.png", ns=(0, 0))
    after = ImageFolder(folder, image_size=(4, 3))
    assert joblib.hash(after) != joblib.hash(lazy)
    assert joblib.hash(after[:2]) == joblib.hash(lazy[:2])


# --- ImageReader --------------------------------------------------------------------


def test_reader_reads_and_keeps_step(folder):
    paths = find_images(folder)
    reader = ImageReader(image_size=(3, 4))
    assert reader.fit(paths) is reader
    read = reader.transform(paths[::-1])
    assert read.shape == (20, 3, 4)
    assert_array_equal(read[:, 0, 0], np.arange(20)[::-1])
    (folder / "03.png").write_bytes(b"this is no image")
    with pytest.raises(ValueError, match=r"1 image .*\n.*03\.png: "):
        reader.transform(paths)
    with pytest.raises(FileNotFoundError, match="gone"):
        reader.transform([*paths, folder / "gone.png"])
    with pytest.raises(ValueError, match="it is a folder"):
        reader.transform([folder])


def test_reader_is_a_scikit_learn_transformer(folder):
    reader = ImageReader(image_size=8)
    assert clone(reader).get_params() == {"image_size": 8, "gray": False}
    with pytest.raises(ValueError, match="gray must be True or False"):
        ImageReader(gray=0).fit([])
    paths = np.array([str(path) for path in find_images(folder)])
    flat = FunctionTransformer(lambda array: array.reshape(len(array), -1))
    model = make_pipeline(ImageReader(), flat, LogisticRegression())
    assert len(cross_val_score(model, paths, np.arange(20) % 2, cv=2)) == 2
