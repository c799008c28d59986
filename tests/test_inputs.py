"""What may be passed as images, what is refused, and batches of them."""

import re
import threading

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from skad import ImageFolder, PatchAutoencoderDetector
from skad.images.inputs import Format, as_images, batches_of, read_ahead

SIZE = (20, 24)


class Lazy:
    """A sequence of images read on access, into one array."""

    def __init__(self, items):
        self.items = items
        self.frame = np.empty_like(items[0]) if isinstance(items, np.ndarray) else None

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        assert type(i) is int
        if self.frame is None:
            return self.items[i]
        self.frame[:] = self.items[i]
        return self.frame


def draw(n, *shape, dtype=np.uint8, seed=0):
    numbers = np.random.default_rng(seed).integers(0, 256, (n, *shape))
    return numbers.astype(dtype)


def fit(X, **parameters):
    parameters = {"target_fpr": 0.5, "random_state": 0, "epochs": 1} | parameters
    return PatchAutoencoderDetector(8, **parameters).fit(X)


@pytest.fixture(scope="module")
def gray():
    return fit(draw(4, *SIZE))


@pytest.fixture(autouse=True)
def no_thread_survives():
    before = threading.enumerate()
    yield
    assert set(threading.enumerate()) <= set(before)


def with_value(value, place, dtype=np.float64):
    X = draw(6, *SIZE, dtype=dtype)
    X[place, 3] = value
    return X


def with_item(item, place):
    items = list(draw(6, *SIZE))
    items[place] = item
    return items


def read_all(X, image_shape=None, fitted=None):
    images = as_images(X, image_shape, fitted)
    return images.take(np.arange(len(images)))


# What is refused, whatever holds it.


@pytest.mark.parametrize(
    ("X", "words"),
    [
        (Lazy(with_value(np.nan, 4)), ["Input X contains NaN", "image 4 is the first"]),
        (with_value(np.inf, 5, np.float16), ["infinity", "image 5"]),
        (with_value([1e200, -1e200] * 12, 1), ["values above 1e100", "image 1"]),
        (draw(6, 8, 2, 3, 1), ["(n, H, W, C)", "shape (8, 2, 3, 1)"]),
        (draw(20, 24, 3), ["one image", "batch axis", "X[None]", "(20, 24, 3)"]),
        (Lazy(draw(4, 3, *SIZE)), ["channels came first", "moveaxis(X, 1, -1)"]),
        (np.arange(9.0), ["1D array", "Reshape your data"]),
        (draw(0, *SIZE), ["0 sample(s)", "minimum of 1"]),
        (draw(3, 8, 8, 0), ["at least one pixel and one channel", "(8, 8, 0)"]),
        (Lazy([]), ["empty sequence", "at least one image"]),
        (np.array(["a.png", "b.png"]), ["got a path", "skad.ImageFolder"]),
        ((image for image in draw(6, *SIZE)), ["got generator", "a list of images"]),
        (np.ma.masked_less(draw(6, *SIZE), 0.5), ["masked array", "X.data", "roi"]),
        ([[1.0, 2.0], [1.0]], ["expecting 2 features", "as image 0 has"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) and value else None,
)
def test_what_cannot_be_images_is_refused(X, words):
    with pytest.raises((ValueError, TypeError)) as caught:
        read_all(X)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize("container", [list, Lazy])
@pytest.mark.parametrize(
    ("place", "bad", "words"),
    [
        (3, draw(1, 10, 24)[0], "shape (20, 24) and number type uint8, as those of"),
        (1, draw(1, *SIZE, 3)[0], "got shape (20, 24, 3)"),
        (2, draw(1, *SIZE, dtype=np.uint16)[0], "got shape (20, 24) of uint16"),
        (2, [[1, 2], [3]], "must be an array (H, W)"),
        (0, None, "real numbers; got NoneType"),
        (5, (torch.zeros(SIZE), 1), "got tuple of object. Leave labels out"),
        (3, np.ma.masked_less(draw(1, *SIZE)[0], 99), "must have no mask"),
        (2, Image.new("P", (24, 20)), 'image.convert("RGB")'),
    ],
)
def test_the_bad_image_of_a_sequence_is_named(container, place, bad, words):
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        read_all(container(with_item(bad, place)))
    assert f"image {place} of X" in str(caught.value)


def test_rows_must_have_the_values_of_image_shape():
    for X, image_shape in (
        *((draw(4, 24), shape) for shape in [(5, 5), (24,), (-4, -6), (4.0, 6.0)]),
        (draw(4, 4, 6), (4, 6)),
    ):
        words = f"got image_shape={image_shape} and items of shape {X.shape[1:]}"
        with pytest.raises(ValueError, match=re.escape(words)):
            as_images(X, image_shape)


GRAY = Format(SIZE, (*SIZE, 1), "integer")
COLOUR = Format((*SIZE, 3), (*SIZE, 3), "integer")
FLOAT = Format(SIZE, (*SIZE, 1), "float")
ROWS = Format((480,), (*SIZE, 1), "integer")


@pytest.mark.parametrize("container", [np.array, Lazy])
@pytest.mark.parametrize(
    ("fitted", "X", "words"),
    [
        (GRAY, draw(2, 24, 20), "the fit or image 0 have; got shape (24, 20)"),
        (GRAY, draw(2, *SIZE, dtype=int), "number type integer"),
        (FLOAT, draw(2, *SIZE), "number type float"),
        (COLOUR, draw(20, 24, 3), "Pass X[None] for one image"),
        (ROWS, draw(2, 24), "X has 24 features, but skad is expecting 480 features"),
    ],
)
def test_images_unlike_those_of_the_fit_are_refused(container, fitted, X, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        as_images(container(X), None, fitted)


def test_every_method_checks_its_images(gray):
    for method in (
        "anomaly_map anomaly_regions calibrate decision_function p_value predict "
        "inspect predict_mask reconstruct score_samples fit"
    ).split():
        with pytest.raises(ValueError, match="got a path"):
            getattr(gray, method)("photo.png")


# What is taken.


@pytest.mark.parametrize(
    "container",
    [
        list,
        Lazy,
        lambda X: pd.Series(list(X)),
        torch.from_numpy,
        lambda X: [Image.fromarray(image) for image in X],
        lambda X: X[..., None],
        lambda X: Lazy([X[0], X[1, ..., None], *X[2:]]),
    ],
)
def test_arrays_lists_and_sequences_are_one(container):
    X = draw(5, *SIZE)
    for fitted in (None, GRAY):
        found = read_all(container(X), None, fitted)
        np.testing.assert_array_equal(found, X[..., None])


def test_rows_may_be_lists_of_numbers_of_one_kind():
    assert read_all([[0.5] * 60, [1.0] * 60], (20, 3)).shape == (2, 20, 3, 1)
    with pytest.raises(ValueError, match=r"image 1 of X must have .* float"):
        read_all([[0.5] * 60, [1] * 60], (20, 3))


def test_rows_are_flattened_images():
    X = draw(6, *SIZE, 3)
    detector = fit(X)
    flat = X.reshape(6, -1)
    rows = fit(flat, image_shape=(*SIZE, 3))
    rows.set_params(image_shape=None)  # that of the fit counts
    np.testing.assert_array_equal(rows.anomaly_map(Lazy(flat)), detector.anomaly_map(X))
    np.testing.assert_array_equal(
        rows.reconstruct(flat), detector.reconstruct(X).reshape(6, -1)
    )
    assert read_all(flat / 255).shape == (6, 1, 1440, 1)


@pytest.mark.parametrize(
    ("fitted", "other"), [("u2", ">u2"), ("f8", "f2"), ("i8", "?")]
)
def test_the_byte_order_and_width_of_numbers_do_not_matter(fitted, other):
    X = (draw(4, *SIZE) > 99).astype(fitted)
    detector, same = fit(X), X.astype(other)
    np.testing.assert_array_equal(detector.anomaly_map(same), detector.anomaly_map(X))
    assert detector.reconstruct(same).dtype == other


# Batches.


@pytest.mark.parametrize("container", [np.asfortranarray, Lazy])
def test_batches_are_those_that_are_asked_for(container):
    X = draw(7, 5, 6, 2, dtype=">u2")
    images = as_images(container(X), None)
    places = [np.array([3, 1]), np.array([6]), np.array([0, 0, 2])]
    for some, whole in [(images, X), (images.subset(np.arange(7)[::-1]), X[::-1])]:
        batches = list(batches_of(some, places))
        assert len(some) == 7 and len(batches) == 3
        for batch, indices in zip(batches, places, strict=True):
            np.testing.assert_array_equal(batch, whole[indices])
            assert batch.flags.c_contiguous and batch.dtype.isnative


def test_the_next_item_and_no_more_is_read_while_one_is_in_use():
    read = [threading.Event() for _ in range(4)]
    threads = set()

    def note(event):
        threads.add(threading.current_thread())
        event.set()
        return event

    for i, event in enumerate(read_ahead(note, read)):
        assert event is read[i]
        assert all(event.wait(10) for event in read[: i + 2])
        assert not any(event.is_set() for event in read[i + 2 :])
    assert len(threads) == 1 and threading.main_thread() not in threads


def test_an_error_comes_in_its_place_and_ends_the_thread():
    results = read_ahead(lambda i: 6 // (2 - i), range(5))
    assert [next(results), next(results)] == [3, 6]
    with pytest.raises(ZeroDivisionError):
        next(results)
    unused = read_ahead(abs, range(9))
    next(unused)
    unused.close()


def test_folders_are_scored_as_arrays_are(gray, tmp_path):
    X = draw(4, *SIZE)
    for i, image in enumerate(X):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    folder = ImageFolder(tmp_path)
    np.testing.assert_array_equal(gray.anomaly_map(folder), gray.anomaly_map(X))
    (tmp_path / "3.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"no such image file: .*3\.png"):
        gray.predict(folder)
