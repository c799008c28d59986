import os
import sys

import numpy as np
import pytest
from PIL import Image

from skad.benchmark.mvtec import find_categories, fingerprint, load_category


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(path)


def gray(level, shape=(6, 8)):
    return np.full(shape, level, dtype=np.uint8)


@pytest.fixture
def category(tmp_path):
    """Two good images to learn from; one good, one dented and one cut to test."""
    folder = tmp_path / "part"
    for name, level in (("train/good/0", 10), ("train/good/1", 11)):
        write(folder / f"{name}.png", gray(level))
    write(folder / "test/good/0.png", gray(20))
    write(folder / "test/dent/0.png", gray(30))
    write(folder / "test/cut/0.png", gray(40))
    for name, column in (("dent/0_mask", 1), ("cut/0", 2)):
        mask = gray(0)
        mask[:, column] = 255
        write(folder / f"ground_truth/{name}.png", mask)
    (folder / "readme.txt").write_text("not an image")
    (folder / "test/cut/notes.txt").write_text("not an image either")
    return folder


def test_categories_are_found_and_sorted(tmp_path):
    for name in ("b", "a"):
        write(tmp_path / name / "train/good/0.png", gray(0))
        write(tmp_path / name / "test/good/0.png", gray(0))
    write(tmp_path / "half" / "train/good/0.png", gray(0))
    assert find_categories(tmp_path) == [tmp_path / "a", tmp_path / "b"]


def test_a_category_alone_is_found(category):
    assert [folder.name for folder in find_categories(category)] == ["part"]


def test_no_folder_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such folder: .*absent"):
        find_categories(tmp_path / "absent")


def test_a_folder_without_category_is_told_the_layout(tmp_path):
    with pytest.raises(ValueError, match=r"no category in the folder .*train/good"):
        find_categories(tmp_path)


def test_images_labels_and_masks_keep_step(category):
    loaded = load_category(category)
    assert loaded.name == "part"
    assert loaded.train[:, 0, 0].tolist() == [10, 11]
    assert loaded.test[:, 0, 0].tolist() == [40, 30, 20]  # cut, dent, good
    assert loaded.y.tolist() == [-1, -1, 1]
    columns = [np.flatnonzero(mask.any(axis=0)).tolist() for mask in loaded.masks]
    assert columns == [[2], [1], []]
    assert loaded.unmasked == []


def test_a_missing_mask_is_named_and_leaves_no_masks(category):
    (category / "ground_truth/dent/0_mask.png").unlink()
    loaded = load_category(category)
    assert loaded.masks is None
    assert loaded.unmasked == [category / "test/dent/0.png"]


def test_without_ground_truth_all_masks_are_missing(category):
    (category / "ground_truth").rename(category / "elsewhere")
    assert len(load_category(category).unmasked) == 2


def test_a_mask_of_another_size_is_an_error(category):
    write(category / "ground_truth/dent/0_mask.png", gray(255, (3, 4)))
    with pytest.raises(ValueError, match=r"6 x 8 .*0_mask\.png has 3 x 4"):
        load_category(category)


def test_a_mask_with_soft_edges_is_read_at_half_of_its_largest_value(category):
    mask = gray(3)
    mask[:, 1:3] = [[250, 140]]
    write(category / "ground_truth/dent/0_mask.png", mask)
    with pytest.warns(UserWarning, match=r"1 mask\(s\) .*0_mask.png: pixels above"):
        loaded = load_category(category)
    np.testing.assert_array_equal(loaded.masks[1], mask > 125)


def test_no_test_image_is_an_error(category):
    for file in category.glob("test/*/*.png"):
        file.unlink()
    with pytest.raises(ValueError, match="no test image"):
        load_category(category)


def test_an_image_that_cannot_be_read_is_an_error(category):
    (category / "test/good/1.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"good.1\.png"):
        load_category(category)


def test_the_fingerprint_knows_names_and_contents_but_no_place(category, tmp_path):
    before = fingerprint(category)
    moved = category.rename(tmp_path / "moved")
    assert fingerprint(moved) == before
    write(moved / "test/good/1.png", gray(20))
    assert fingerprint(moved) != before
    (moved / "test/good/1.png").unlink()
    (moved / "test/cut/notes.txt").write_text("other words")
    assert fingerprint(moved) == before
    mask = moved / "ground_truth/cut/0.png"
    mask.write_bytes(mask.read_bytes()[:-1] + b"\0")  # of the same size
    assert fingerprint(moved) != before


def test_the_fingerprint_takes_links_that_lead_nowhere(category):
    before = fingerprint(category)
    (category / "test/good/gone.png").symlink_to(category / "gone.png")
    assert fingerprint(category) != before


@pytest.mark.skipif(sys.platform != "linux", reason="names are any bytes on Linux")
def test_the_fingerprint_takes_any_name(category):
    before = fingerprint(category)
    write(category / "test/good" / os.fsdecode(b"\xff.png"), gray(20))
    assert fingerprint(category) != before
