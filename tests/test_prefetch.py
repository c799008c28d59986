"""Reading ahead: the same items in the same order, and no thread left behind."""

import threading
import warnings
import weakref

import numpy as np
import pytest
import torch
from PIL import Image

from skad import ImageFolder, PatchAutoencoderDetector
from skad.images.batches import batches_of, batchwise, read_ahead
from skad.images.inputs import as_images
from skad.network.augmentation import Variation
from skad.network.model import new_network
from skad.network.training import train

SECONDS = 10  # to wait for what must happen


class Lazy:
    """A lazy sequence that remembers in which threads it was read."""

    def __init__(self, array):
        self.array = array
        self.threads = []

    def __len__(self):
        return len(self.array)

    def __getitem__(self, i):
        self.threads.append(threading.current_thread())
        return self.array[i]


class Item:
    """Something that one can tell to be held or not."""


@pytest.fixture(autouse=True)
def no_thread_survives():
    before = threading.enumerate()
    yield
    assert set(threading.enumerate()) <= set(before)


def draw(n, *shape):
    rng = np.random.default_rng(0)
    return rng.integers(0, 255, (n, *shape), endpoint=True, dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("images")
    for i, image in enumerate(draw(9, 32, 24)):
        Image.fromarray(image).save(path / f"{i}.png")
    return path


@pytest.fixture(scope="module")
def fitted(folder):
    return new_detector().fit(ImageFolder(folder))


def new_detector():
    return PatchAutoencoderDetector(
        8, epochs=2, batch_size=2, target_fpr=0.5, random_state=0
    )


# One step ahead.


@pytest.mark.parametrize("n", [0, 1, 2, 10])
def test_items_come_in_their_order(n):
    assert list(read_ahead(range(n))) == list(range(n))
    assert list(read_ahead(iter([None] * n))) == [None] * n


def test_the_next_item_and_no_more_is_made_while_one_is_in_use():
    made = [threading.Event() for _ in range(4)]
    threads = []

    def items():
        for event in made:
            threads.append(threading.current_thread())
            event.set()
            yield event

    for i, event in enumerate(read_ahead(items())):
        assert event is made[i]
        assert all(event.wait(SECONDS) for event in made[: i + 2])
        assert not any(event.is_set() for event in made[i + 2 :])
    assert len(set(threads)) == 1
    assert threads[0] is not threading.main_thread()


def test_two_items_are_held_and_no_more():
    alive = weakref.WeakSet()
    seen = []

    def items():
        for _ in range(6):
            item = Item()
            alive.add(item)
            seen.append(len(alive))
            yield item
            del item

    # While one is handed over, the one before it may still be in its name.
    for _ in read_ahead(items()):
        assert len(alive) <= 2
    assert len(seen) == 6
    assert max(seen) <= 3


def test_nothing_starts_before_the_first_item_is_asked_for():
    made = []
    unused = read_ahead(made.append(i) for i in range(3))
    assert made == []
    unused.close()


@pytest.mark.parametrize("kind", [ValueError, StopIteration, KeyboardInterrupt])
def test_an_error_comes_where_its_item_would_have(kind):
    def item(i):
        if i == 2:
            raise kind("of item 2")
        return i

    got = []
    # A generator must not end quietly by StopIteration: Python makes it an error.
    expected = RuntimeError if kind is StopIteration else kind
    with pytest.raises(expected, match=r"of item 2|raised StopIteration"):
        for i in read_ahead(item(i) for i in range(5)):
            got.append(i)
    assert got == [0, 1]


def test_closing_ends_the_thread():
    made = []
    items = read_ahead(made.append(i) for i in range(100))
    next(items)
    assert any("skad-read-ahead" in thread.name for thread in threading.enumerate())
    items.close()
    assert not any("skad-read-ahead" in thread.name for thread in threading.enumerate())
    assert len(made) <= 2


def test_an_error_of_the_user_ends_the_thread():
    def use():
        for i in read_ahead(range(100)):
            raise ValueError(f"used {i}")

    with pytest.raises(ValueError, match="used 0"):
        use()


def test_settings_of_the_context_hold_in_the_thread():
    zero = np.zeros(1)
    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        list(read_ahead(1 / zero for _ in range(2)))
    with np.errstate(divide="ignore"):
        assert list(read_ahead(1 / zero for _ in range(2))) == [np.inf] * 2


def test_warnings_come_through():
    def items():
        warnings.warn("of an item", UserWarning, stacklevel=2)
        yield 1

    with pytest.warns(UserWarning, match="of an item"):
        assert list(read_ahead(items())) == [1]


# Batches of images.


@pytest.mark.parametrize("lazy", [False, True])
def test_batches_are_those_that_are_asked_for(lazy):
    X = draw(7, 5, 6)
    source = Lazy(X) if lazy else X
    images = as_images(source, None)
    places = [np.array([3, 1]), np.array([6]), np.array([0, 0, 2])]
    for subject, whole in [(images, X), (images.subset(np.arange(7)[::-1]), X[::-1])]:
        batches = list(batches_of(subject, places))
        assert len(batches) == 3
        for batch, indices in zip(batches, places, strict=True):
            np.testing.assert_array_equal(batch, whole[indices][..., None])


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize(("n", "size"), [(7, 3), (6, 3), (2, 5), (1, 1)])
def test_batches_have_one_size_and_give_every_image_once(n, size, lazy):
    X, sizes = draw(n, 5, 6), []

    def compute(batch):
        sizes.append(len(batch))
        return batch[..., 0]

    images = as_images(Lazy(X) if lazy else X, None)
    found = np.concatenate(list(batchwise(images, size, compute, 1)))
    np.testing.assert_array_equal(found, X)
    assert set(sizes) == {size}


def test_only_lazy_sequences_are_read_in_a_thread():
    source = Lazy(draw(4, 5, 6))
    images = as_images(source, None)
    source.threads.clear()
    computing = [
        threading.current_thread()
        for _ in batchwise(images, 2, lambda batch: [threading.active_count()] * 2, 1)
    ]
    assert set(computing) == {threading.main_thread()}
    assert len(source.threads) == 4
    assert threading.main_thread() not in source.threads
    n_threads = threading.active_count()
    counts = batchwise(
        as_images(source.array, None),
        2,
        lambda batch: [threading.active_count()] * 2,
        1,
    )
    assert [c for chunk in counts for c in chunk] == [n_threads] * 4


def test_an_error_of_a_computation_ends_the_thread():
    def compute(batch):
        raise ValueError("cannot compute")

    images = as_images(Lazy(draw(40, 5, 6)), None)
    with pytest.raises(ValueError, match="cannot compute"):
        list(batchwise(images, 2, compute, 1))


def test_an_image_that_cannot_be_read_is_named():
    X = list(draw(7, 5, 6))
    X[4] = X[4][:3]
    images = as_images(Lazy(X), None)
    got = []
    with pytest.raises(ValueError, match=r"image 4 of the sequence: .* \(3, 6\)"):
        got.extend(batchwise(images, 2, lambda batch: batch, 1))
    X[4] = None
    with pytest.raises(ValueError, match="image 4 of X must hold real numbers"):
        list(batchwise(images, 2, lambda batch: batch, 1))


# Training and scoring.


def test_folders_train_and_score_as_arrays_do(folder, fitted):
    X = draw(9, 32, 24)
    other = new_detector().fit(X)
    assert fitted.history_ == other.history_
    np.testing.assert_array_equal(fitted.calibration_scores_, other.calibration_scores_)
    np.testing.assert_array_equal(
        fitted.anomaly_map(ImageFolder(folder)), other.anomaly_map(X)
    )
    np.testing.assert_array_equal(
        fitted.reconstruct(ImageFolder(folder)), other.reconstruct(X)
    )


def test_training_that_is_given_up_ends_the_thread():
    images = torch.randn(8, 1, 16, 16, generator=torch.Generator().manual_seed(0))

    def read(places):
        return read_ahead(images[indices] for indices in places)

    losses = train(
        new_network(1, torch.Generator().manual_seed(0)),
        read,
        len(images),
        n_steps=20,
        batch_size=2,
        learning_rate=0.001,
        patch_sizes=(8,),
        variation=Variation(0.1, 0.0, 0.0, 0.0, ()),
        roi=None,
        generator=torch.Generator().manual_seed(0),
    )
    next(losses)
    losses.close()


def test_four_threads_may_predict_at_once(folder, fitted):
    images = ImageFolder(folder)
    expected, found = fitted.score_samples(images), {}

    def score(k):
        found[k] = fitted.score_samples(images)

    threads = [threading.Thread(target=score, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for scores in found.values():
        np.testing.assert_array_equal(scores, expected)


def test_a_file_that_is_gone_is_named(fitted, tmp_path):
    for i, image in enumerate(draw(5, 32, 24)):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    images = ImageFolder(tmp_path)
    (tmp_path / "3.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"no such image file: .*3\.png"):
        fitted.predict(images)
