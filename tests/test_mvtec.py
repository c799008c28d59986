import numpy as np
import pytest
from PIL import Image

from skad.benchmark.mvtec import find_categories, fingerprint, load_category


def write(path, level, column=None, size=(6, 8)):
    """Write a gray image of (height, width), with a white column."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full(size, level, dtype=np.uint8)
    if column is not None:
        pixels[:, column] = 255
    Image.fromarray(pixels).save(path)


@pytest.fixture
def category(tmp_path):
    """Two good images to learn from; one good, one dented and one cut to test."""
    folder = tmp_path / "part"
    levels = {"train/good/0": 10, "train/good/1": 11}
    levels |= {"test/good/0": 20, "test/dent/0": 30, "test/cut/0": 40}
    for name, level in levels.items():
        write(folder / f"{name}.png", level)
    write(folder / "ground_truth/dent/0_mask.png", 0, column=1)
    write(folder / "ground_truth/cut/0.png", 0, column=2)
    (folder / "test/cut/notes.txt").write_text("not an image")
    return folder


def columns_of(masks):
    return [np.flatnonzero(mask.any(axis=0)).tolist() for mask in masks]


def test_categories_are_found_and_chosen(category):
    root = category.parent
    write(root / "half" / "train/good/0.png", 0)
    for name in ("b", "a"):
        write(root / name / "train/good/0.png", 0)
        write(root / name / "test/good/0.png", 0)
    assert [f.name for f in find_categories(root)] == ["a", "b", "part"]
    assert [f.name for f in find_categories(root, ["b", "a", "b"])] == ["b", "a"]
    assert [f.name for f in find_categories(category)] == ["part"]
    with pytest.raises(ValueError, match=r"no category 'c'; there are a, b, part"):
        find_categories(root, ["c"])
    with pytest.raises(ValueError, match=r"no category in the folder .*train/good"):
        find_categories(root / "half")


def test_images_labels_and_masks_keep_step(category):
    loaded = load_category(category, image_size=4)  # all have one size: as they are
    assert loaded.name == "part"
    assert loaded.train[:, 0, 0].tolist() == [10, 11]
    assert loaded.test[:, 0, 0].tolist() == [40, 30, 20]
    assert loaded.kinds.tolist() == ["cut", "dent", "good"]
    assert loaded.y.tolist() == [-1, -1, 1]
    assert columns_of(loaded.masks) == [[2], [1], []]


def test_images_of_several_sizes_and_their_masks_are_resized(category):
    write(category / "test/dent/0.png", 30, size=(12, 16))
    write(category / "ground_truth/dent/0_mask.png", 0, column=9, size=(12, 16))
    with pytest.raises(ValueError, match=r"must have one size .*pass image_size"):
        load_category(category)
    loaded = load_category(category, image_size=[3, 8])
    assert loaded.train.shape == (2, 3, 8)
    assert loaded.test.shape == (3, 3, 8)
    assert [mask.shape for mask in loaded.masks] == [(3, 8)] * 3
    assert columns_of(loaded.masks) == [[2], [4], []]


def test_a_missing_mask_is_named_and_leaves_no_masks(category):
    (category / "ground_truth/dent/0_mask.png").unlink()
    with pytest.warns(UserWarning, match=r"1 anomalous .* first is .*dent.0\.png"):
        assert load_category(category).masks is None


def test_what_cannot_be_read_is_an_error(category):
    mask = category / "ground_truth/dent/0_mask.png"
    Image.new("L", (4, 3)).save(mask)
    with pytest.raises(ValueError, match=r"6 x 8; .*0_mask\.png has 3 x 4"):
        load_category(category)
    mask.unlink()
    (category / "test/good/1.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"good.1\.png"):
        load_category(category)
    for file in category.glob("test/*/*.png"):
        file.unlink()
    with pytest.raises(ValueError, match="no test image"):
        load_category(category)


def test_the_fingerprint_knows_names_and_contents_but_no_place(category, tmp_path):
    before = fingerprint(category)
    moved = category.rename(tmp_path / "moved")
    (moved / "test/cut/notes.txt").write_text("other words")
    assert fingerprint(moved) == before
    mask = moved / "ground_truth/cut/0.png"
    content = mask.read_bytes()
    mask.write_bytes(content[:-1] + b"\0")  # of the same size
    assert fingerprint(moved) != before
    mask.write_bytes(content)
    mask.rename(mask.with_name("1.png"))
    assert fingerprint(moved) != before
