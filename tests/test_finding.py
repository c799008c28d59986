"""Which files are found in folders, by patterns and by name."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from image_files import noise, save

from skad.images import ImageFolder, find_images, read_image, read_images


@pytest.fixture
def folder(tmp_path):
    for i in range(3):
        save(tmp_path / f"{i}.png", noise(6, 5))
    return tmp_path


def test_find_images_in_a_folder(tmp_path):
    names = ["10.PNG", "2.png", "a.JPG", "b.jpeg", "c.Bmp", "d.tif", "g.WebP"]
    for name in reversed(names):
        (tmp_path / name).touch()
    (tmp_path / "sub.png").mkdir()
    (tmp_path / "sub.png" / "deeper.png").touch()
    assert find_images(str(tmp_path)) == [tmp_path / name for name in names]


def test_what_is_no_image_in_a_folder_is_named_once(folder):
    for name in ("._0.png", ".hidden.png", ".DS_Store", "Thumbs.db", "desktop.ini"):
        (folder / name).touch()
    assert len(find_images(folder)) == 3  # without a warning
    for name in ("notes.txt", "model.safetensors", "png"):
        (folder / name).touch()
    words = r"^3 file\(s\) are no images .*: model\.safetensors, notes\.txt, png"
    for read in (find_images, read_images, ImageFolder):
        with pytest.warns(UserWarning, match=words) as record:
            assert len(read(folder)) == 3
        assert len(record) == 1


def test_folders_in_a_folder_are_searched_where_asked_for(folder, monkeypatch):
    for name in ("b/good/1.png", "b/good/0.png", "b.png", "a/2.png", ".trash/3.png"):
        (folder / "all" / name).parent.mkdir(parents=True, exist_ok=True)
        save(folder / "all" / name, noise(6, 5))
    found = find_images(folder / "all", recursive=True)
    names = ["a/2.png", "b/good/0.png", "b/good/1.png", "b.png"]
    assert [file.relative_to(folder / "all").as_posix() for file in found] == names
    assert ImageFolder(folder / "all", recursive=True).paths == found
    assert len(read_images(folder / "all", recursive=True)) == 4
    hint = "no image in .*; recursive=True searches its subfolders, too"
    with pytest.raises(ValueError, match=hint):
        find_images(folder / "all" / "b")
    with pytest.raises(ValueError, match="recursive must be True or False; got 1"):
        find_images(folder, recursive=1)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("USERPROFILE", str(folder))  # on Windows
    assert find_images("~/all/b/good") == found[1:3]
    assert find_images(["~/all/b.png"]) == found[3:]
    assert read_image("~/all/b.png").shape == (6, 5)


def test_an_unreadable_subfolder_is_named(folder, monkeypatch):
    (folder / "locked").mkdir()
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "locked":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert len(find_images(folder)) == 3
    with pytest.raises(PermissionError, match="locked"):
        find_images(folder, recursive=True)


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no image in .*\*\.jpg, .*\*\.tif"):
        find_images(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no such image file or folder.*gone"):
        find_images(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        find_images([tmp_path, tmp_path / "gone.png"])
    with pytest.raises(ValueError, match="no image paths"):
        find_images([])


def test_named_files_keep_their_order_and_what_is_no_path_is_named(folder):
    paths = [folder / "2.png", folder / "0.png"]
    assert find_images(paths[0]) == paths[:1]
    assert find_images(tuple(paths)) == paths
    assert find_images(np.array([[str(path)] for path in paths])) == paths
    rule = r"image paths must be a str or a pathlib\.Path, or a sequence of these; "
    for source, got in (
        (b"/tmp", "item 0 is b'/tmp'"),
        (["/", None], "item 1 is None"),
        (np.array([["a", "b"]]), r"item 0 is array\(\['a', 'b'\]"),
    ):
        with pytest.raises(ValueError, match=rule + got):
            find_images(source)
