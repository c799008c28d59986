"""What may come in as images, and the words that turn away what may not."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import sparse

from skad import PatchAutoencoderDetector
from skad.images.inputs import Format, as_given, as_images, is_lazy

SIZE = (20, 24)


class Lazy:
    """A sequence of images that are read on access, and the places that were read."""

    def __init__(self, items):
        self.items = items
        self.read = []

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        assert type(i) is int
        self.read.append(i)
        return self.items[i]


def draw(n, *shape, dtype=np.uint8, seed=0):
    numbers = np.random.default_rng(seed).integers(0, 256, (n, *shape))
    return numbers.astype(dtype)


def fit(X, **parameters):
    parameters = {"target_fpr": 0.5, "random_state": 0, "epochs": 1} | parameters
    return PatchAutoencoderDetector(8, **parameters).fit(X)


@pytest.fixture(scope="module")
def fitted():
    """Detectors that were fitted on images of one format each."""
    return {
        "gray": fit(draw(4, *SIZE)),
        "colour": fit(draw(4, *SIZE, 3)),
        "float": fit(draw(4, *SIZE, dtype=np.float32)),
        "int64": fit(draw(4, *SIZE, dtype=np.int64)),
        "rows": fit(draw(4, 480), image_shape=SIZE),
    }


METHODS = (
    "anomaly_map anomaly_regions calibrate decision_function p_value predict "
    "inspect predict_mask reconstruct score_samples"
).split()


def with_value(value, place, dtype=np.float64):
    X = draw(6, *SIZE, dtype=dtype)
    X[place, 3] = value
    return X


# What fit turns away, with the words that say so.


@pytest.mark.parametrize(
    ("X", "words"),
    [
        (with_value(np.nan, 2), ["NaN", "image 2"]),
        (with_value(np.inf, 5), ["infinity", "image 5"]),
        (with_value(-np.inf, 0), ["infinity", "image 0"]),
        (with_value(np.nan, 3, np.float16), ["NaN", "image 3"]),
        (with_value(np.inf, 3, np.float32), ["infinity", "image 3"]),
        (with_value(1e200, 4), ["too large", "image 4"]),
        (with_value([np.inf, -np.inf] * 12, 1), ["infinity", "image 1"]),
        (with_value([1e200, -1e200] * 12, 1), ["too large", "image 1"]),
        (draw(6, 8, 2, 3, 1), ["(n, H, W, C)", "4 dimensions", "(8, 2, 3, 1)"]),
        (draw(20, 24), ["one gray image", "batch axis", "X[None]", "(20, 24)"]),
        (draw(20, 24, 1), ["one image", "batch axis", "X[None]", "(20, 24, 1)"]),
        (draw(20, 24, 3), ["one image", "batch axis", "X[None]", "(20, 24, 3)"]),
        (draw(20, 24, 4), ["one image", "batch axis", "X[None]", "(20, 24, 4)"]),
        (np.float64(3.0), ["array"]),
        (np.arange(9.0), ["1D array", "Reshape your data"]),
        (draw(0, *SIZE), ["0 sample(s)", "minimum of 1"]),
        (draw(3, 0, 8), ["at least one pixel", "(0, 8)"]),
        (draw(3, 8, 8, 0), ["at least one pixel and one channel", "(8, 8, 0)"]),
        ([], ["empty list", "at least one image"]),
        (Lazy([]), ["empty sequence", "at least one image"]),
        ("photos", ["path", "'photos'", "skad.ImageFolder"]),
        (["a.png", "b.png"], ["paths", "'a.png'", "skad.ImageFolder"]),
        (np.array(["a.png", "b.png"]), ["paths", "a.png", "skad.ImageFolder"]),
        (np.full((3, 8, 8), "1"), ["strings"]),
        ((image for image in draw(6, *SIZE)), ["got generator", "a list of images"]),
        ({"part 1": draw(*SIZE)}, ["got dict", "a list of images"]),
        (np.ma.masked_less(draw(6, *SIZE), 0.5), ["masked array", "X.data", "roi"]),
        (draw(4, *SIZE) * 1j, ["Complex data not supported"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) and value else None,
)
def test_fit_turns_away(X, words):
    with pytest.raises(ValueError) as caught:
        fit(X)
    for word in words:
        assert word in str(caught.value)


def test_sparse_matrices_are_turned_away():
    with pytest.raises(TypeError, match="Sparse data was passed"):
        fit(sparse.csr_array(np.eye(6)))


def test_of_many_bad_images_the_first_is_named():
    X = draw(9, *SIZE, dtype=float)
    X[[4, 7], 0, 0] = np.nan
    with pytest.raises(ValueError, match=r"image 4 is the first"):
        fit(X)


@pytest.mark.parametrize("container", [np.array, list, Lazy, torch.from_numpy])
def test_channels_that_come_first_are_refused(fitted, container):
    X = container(draw(4, 3, *SIZE))
    with pytest.raises(ValueError, match=r"channels came first.*moveaxis\(X, 1, -1\)"):
        fit(X)
    with pytest.raises(ValueError, match=r"Channels come last: pass np\.moveaxis"):
        fitted["colour"].predict(X)
    rows = fit(draw(4, 3 * 20 * 24), image_shape=(3, *SIZE))
    assert rows.anomaly_map(draw(1, 3 * 20 * 24)).shape == (1, 3, 20)


@pytest.mark.parametrize("container", [list, Lazy])
def test_whole_numbers_among_fractions_are_refused(fitted, container):
    X = list(draw(4, *SIZE) / 255)
    X[2] = draw(1, *SIZE, dtype=np.int64)[0]
    for method in (fit, fitted["float"].score_samples):
        with pytest.raises(ValueError, match=r"image 2 .* one number kind, as image 0"):
            method(container(X))


def test_rows_of_plain_numbers_may_mix_them():
    X = draw(4, 480) / 255
    rows = X.tolist()
    rows[2] = [1] * 480
    assert fit(rows, image_shape=SIZE).n_features_in_ == 480


def test_a_sequence_may_give_every_image_in_the_same_array(fitted):
    class Grabber(Lazy):
        frame = np.empty(SIZE, np.uint8)

        def __getitem__(self, i):
            self.frame[:] = super().__getitem__(i)
            return self.frame

    X = draw(5, *SIZE)
    expected = fitted["gray"].score_samples(X)
    np.testing.assert_array_equal(fitted["gray"].score_samples(Grabber(X)), expected)


def test_an_image_of_a_sequence_with_nan_is_named_once():
    X = draw(9, *SIZE) / 255
    X[7, 0, 0] = np.nan
    with pytest.raises(ValueError, match=r"image 7 .* NaN \(image 7 is the first\)"):
        fit(Lazy(X))


@pytest.mark.parametrize(
    ("place", "bad", "words"),
    [
        (3, draw(1, 10, 24)[0], "image 0 has shape (20, 24), image 3 has (10, 24)"),
        (
            1,
            draw(1, *SIZE, 3)[0],
            "image 0 has shape (20, 24), image 1 has (20, 24, 3)",
        ),
        (2, [[1, 2], [3]], "image 2 of X is no array: its parts differ in shape"),
        (0, [[1, 2], [3]], "image 0 of X is no array: its parts differ in shape"),
        (2, None, "image 2 of X must hold real numbers; got NoneType"),
        (4, np.full(SIZE, "1"), "image 4 of X must hold real numbers; got ndarray"),
        (3, np.ma.masked_less(draw(*SIZE), 99), "image 3 of X must have no mask"),
        (1, draw(1, *SIZE, dtype=float)[0], "image 1 of X: All images must have one"),
        (1, draw(1, *SIZE, dtype=np.uint16)[0], "uint8 as image 0 has; got uint16"),
        (2, Image.new("P", (24, 20)), "image 2 of X is a Pillow image whose numbers"),
    ],
)
def test_the_bad_image_of_a_list_is_named(place, bad, words):
    X = list(draw(5, *SIZE))
    X[place] = bad
    with pytest.raises(ValueError, match=re.escape(words)):
        fit(X)
    with pytest.raises(ValueError, match=re.escape(words)):
        fit(np.array([*X, None], dtype=object)[:-1])


def test_ragged_rows_are_turned_away():
    with pytest.raises(ValueError, match=r"image 0 has shape \(2,\), image 1 has"):
        fit([[1.0, 2.0], [1.0]])


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (draw(1, 10, 24)[0], "shape (20, 24), as image 0 has; got shape (10, 24)"),
        (draw(1, *SIZE, 3)[0], "as image 0 has; got shape (20, 24, 3)"),
        (draw(1, *SIZE, dtype=np.uint16)[0], "one number type, uint8 as image 0 has"),
        (draw(1, *SIZE, dtype=float)[0], "one number kind, as image 0 has: integer"),
        (with_value(np.nan, 0)[0], "one number kind"),
        ("a.png", "must hold real numbers; got str"),
        (None, "must hold real numbers; got NoneType"),
        ([[1, 2], [3]], "its parts differ in shape"),
        ((draw(1, *SIZE)[0], 3), "got a tuple of 2"),
        (np.ma.masked_less(draw(*SIZE), 99), "must have no mask"),
    ],
)
@pytest.mark.parametrize("place", [1, 5])
def test_the_bad_image_of_a_lazy_sequence_is_named(fitted, place, bad, words):
    items = list(draw(6, *SIZE))
    items[place] = bad
    for use in (fit, fitted["gray"].score_samples):
        with pytest.raises(ValueError) as caught:
            use(Lazy(items))
        assert words in str(caught.value)
        assert str(caught.value).startswith(f"image {place} of ")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_in_a_lazy_sequence_is_named(fitted, value):
    X = Lazy(with_value(value, 4, np.float32))
    for use in (fit, fitted["float"].predict):
        with pytest.raises(ValueError, match=r"^image 4 of the sequence: Input X cont"):
            use(X)


@pytest.mark.parametrize(
    ("image_shape", "words"),
    [
        ((5, 5), "image_shape=(5, 5) and rows of 24"),
        ((4, 6, 2), "image_shape=(4, 6, 2) and rows of 24"),
        ((24,), "image_shape must be (H, W) or (H, W, C)"),
        ((2, 3, 4, 1), "image_shape must be (H, W) or (H, W, C)"),
        ((-4, -6), "image_shape must be (H, W) or (H, W, C)"),
        ((4.0, 6.0), "image_shape must be (H, W) or (H, W, C)"),
    ],
)
def test_an_image_shape_that_rows_do_not_have(image_shape, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        fit(draw(4, 24), image_shape=image_shape)


def test_an_image_shape_is_for_rows_only():
    with pytest.raises(ValueError, match="only for 2-D input"):
        fit(draw(4, 4, 6), image_shape=(4, 6))


# What a fitted detector turns away.


@pytest.mark.parametrize(
    ("kind", "X", "words"),
    [
        ("gray", draw(2, 24, 20), ["shape (20, 24), as in fit", "shape (24, 20)"]),
        ("gray", draw(2, *SIZE, 3), ["shape (20, 24), as in fit", "channels"]),
        ("gray", draw(20, 24), ["batch axis is missing", "X[None]"]),
        ("gray", draw(2, 480), ["shape (20, 24), as in fit", "480 features"]),
        ("gray", draw(2, 1, *SIZE, 1), ["4 dimensions", "(1, 20, 24, 1)"]),
        ("gray", draw(2, *SIZE, dtype=float), ["number kind", "integer", "got float"]),
        ("gray", draw(2, *SIZE, dtype=int), ["number kind", "not scaled"]),
        ("gray", draw(2, *SIZE) > 9, ["number kind", "not scaled"]),
        ("int64", draw(2, *SIZE), ["number kind", "uint8 or uint16, scaled"]),
        ("float", draw(2, *SIZE), ["number kind", "float; got integer"]),
        ("float", draw(2, *SIZE, dtype=int), ["number kind", "float; got integer"]),
        ("float", with_value(np.nan, 2), ["NaN", "image 2"]),
        ("float", with_value(np.inf, 1), ["infinity", "image 1"]),
        ("float", draw(20, 24, dtype=float), ["batch axis is missing", "X[None]"]),
        ("colour", draw(20, 24, 3), ["batch axis is missing", "X[None]"]),
        ("colour", draw(2, *SIZE), ["channel axis is missing", "(20, 24, 3)"]),
        ("colour", draw(2, *SIZE, 4), ["shape (20, 24, 3)", "channels"]),
        ("rows", draw(2, 24), ["24 features", "expecting 480 features"]),
        ("rows", draw(2, *SIZE), ["480 features, as in fit", "shape (20, 24)"]),
        ("rows", draw(1, 480)[0], ["1D array", "Reshape your data"]),
        ("gray", draw(0, *SIZE), ["0 sample(s)", "minimum of 1"]),
        ("gray", [], ["empty list"]),
        ("gray", Lazy([]), ["empty sequence"]),
        ("gray", Lazy(draw(2, 24, 20)), ["shape (20, 24), as in fit"]),
        ("gray", "photo.png", ["path", "skad.ImageFolder"]),
    ],
)
def test_a_fitted_detector_turns_away(fitted, kind, X, words):
    for method in METHODS:
        with pytest.raises(ValueError) as caught:
            getattr(fitted[kind], method)(X)
        for word in words:
            assert word in str(caught.value)


# What comes in.


def same(detector, X, expected):
    np.testing.assert_array_equal(detector.score_samples(X), expected)


def test_lists_arrays_and_sequences_are_one(fitted):
    X = draw(5, *SIZE)
    expected = fitted["gray"].score_samples(X)
    same(fitted["gray"], list(X), expected)
    same(fitted["gray"], tuple(X), expected)
    same(fitted["gray"], Lazy(X), expected)
    same(fitted["gray"], [Image.fromarray(image) for image in X], expected)
    same(fitted["gray"], Lazy([Image.fromarray(image) for image in X]), expected)
    same(fitted["gray"], torch.from_numpy(X), expected)
    images = pd.Series(list(X))
    same(fitted["gray"], images, expected)
    same(fitted["gray"], images.to_numpy(), expected)


@pytest.mark.parametrize("labels", [(), (1,)])
def test_pairs_of_images_and_labels_are_no_images(fitted, labels):
    X = [(image, *labels) for image in torch.from_numpy(draw(5, *SIZE))]
    for given in (X, Lazy(X)):
        for call in (fit, fitted["gray"].score_samples):
            with pytest.raises(ValueError, match=r"image 0 of X .* got a tuple of \d"):
                call(given)


def test_lists_of_numbers_are_arrays(fitted):
    X = draw(2, *SIZE, dtype=np.int64)
    same(fitted["int64"], X.tolist(), fitted["int64"].score_samples(X))
    X = X + 0.5
    same(fitted["float"], X.tolist(), fitted["float"].score_samples(X))
    tuples = [tuple(map(tuple, image)) for image in X]
    same(fitted["float"], tuples, fitted["float"].score_samples(X))


def test_a_channel_axis_of_one_may_come_or_go(fitted):
    X = draw(3, *SIZE)
    expected = fitted["gray"].score_samples(X)
    same(fitted["gray"], X[..., None], expected)
    same(fitted["gray"], Lazy([X[0], X[1, ..., None], X[2]]), expected)
    assert fitted["gray"].reconstruct(X[..., None]).shape == (3, *SIZE, 1)
    same(fit(draw(4, *SIZE)[..., None]), X, expected)


def test_many_narrow_images_are_no_colour_image():
    X = draw(40, 20, 3)
    detector = fit(X[:16])
    assert detector.score_samples(X).shape == (40,)


def test_rows_are_images_in_disguise():
    X = draw(6, *SIZE, 3)
    detector = fit(X)
    rows = fit(X.reshape(6, -1), image_shape=(*SIZE, 3))
    same(rows, X.reshape(6, -1), detector.score_samples(X))
    same(rows, Lazy(X.reshape(6, -1)), detector.score_samples(X))
    np.testing.assert_array_equal(
        rows.anomaly_map(X.reshape(6, -1)), detector.anomaly_map(X)
    )
    np.testing.assert_array_equal(
        rows.reconstruct(X.reshape(6, -1)), detector.reconstruct(X).reshape(6, -1)
    )


def test_the_image_shape_is_that_of_the_fit(fitted):
    X = draw(3, 480)
    expected = fitted["rows"].score_samples(X)
    fitted["rows"].set_params(image_shape=(24, 20))
    same(fitted["rows"], X, expected)
    fitted["rows"].set_params(image_shape=SIZE)


def test_a_row_is_one_line_of_pixels():
    X = draw(6, 30, dtype=float)
    detector = fit(X)
    assert detector.anomaly_map(X).shape == (6, 1, 30)
    same(fit(X[:, None, :]), X[:, None, :], detector.score_samples(X))


def test_integers_are_scaled_by_their_type():
    X = draw(5, *SIZE)
    expected = fit(X).score_samples(X)
    wide = X.astype(np.uint16) * 257  # 255 * 257 = 65535
    np.testing.assert_allclose(fit(wide).score_samples(wide), expected, rtol=1e-4)
    np.testing.assert_allclose(fit(X).score_samples(wide), expected, rtol=1e-4)
    share = X / 255
    np.testing.assert_allclose(fit(share).score_samples(share), expected, rtol=1e-4)


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<f4", ">f4", ">i4", "f2", "g", "?"])
def test_the_byte_order_and_width_of_numbers_do_not_matter(dtype):
    X = draw(4, *SIZE)
    X = X > 99 if dtype == "?" else X.astype(dtype)
    native = {"u": np.uint16, "f": np.float64, "i": np.int64, "b": np.int64}
    plain = X.astype(native[X.dtype.kind])
    np.testing.assert_allclose(
        fit(X).score_samples(X), fit(plain).score_samples(plain), rtol=1e-4
    )
    assert fit(X).reconstruct(X).dtype == X.dtype


def test_huge_sums_are_not_taken_for_infinity():
    X = draw(4, *SIZE, dtype=np.float16) + np.float16(60_000)
    assert np.isfinite(fit(X).score_samples(X)).all()


def test_a_lazy_sequence_is_asked_only_for_what_is_needed(fitted):
    X = Lazy(draw(30, *SIZE))
    fitted["gray"].score_samples(X)
    assert X.read[0] == 0  # to see the format
    assert sorted(X.read) == [0, *range(30)]
    assert is_lazy(X)
    assert not any(map(is_lazy, (X.items, list(X.items), "text", b"", {}, None, 3)))
    assert not is_lazy(pd.DataFrame(np.eye(2)))
    assert not is_lazy(torch.eye(2))
    assert not is_lazy(sparse.csr_array(np.eye(2)))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((2, 5, 6), Format((5, 6), (5, 6, 1), "integer")),
        ((2, 5, 6, 3), Format((5, 6, 3), (5, 6, 3), "integer")),
    ],
)
def test_batches_have_four_axes(shape, expected):
    X = draw(*shape)
    images = as_images(X, None)
    assert images.format == expected
    assert len(images) == 2
    np.testing.assert_array_equal(
        images.take(np.array([1, 0])), X[::-1].reshape(2, *expected.image_shape)
    )
    some = images.subset(np.array([1]))
    assert len(some) == 1
    np.testing.assert_array_equal(some.take(np.array([0]))[0].ravel(), X[1].ravel())


@pytest.mark.parametrize("lazy", [False, True])
def test_batches_are_contiguous_and_native(lazy):
    X = np.asfortranarray(draw(3, 4, 5, 2, dtype=">u2"))
    batch = as_images(Lazy(X) if lazy else X, None).take(np.arange(3))
    assert batch.flags.c_contiguous
    assert batch.dtype == np.uint16
    assert batch.dtype.isnative
    np.testing.assert_array_equal(batch, X)


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        (np.uint8, [-0.1, 0.5001, 1.1], [0, 128, 255]),
        (np.uint16, [-0.1, 0.5, 1.1], [0, 32768, 65535]),
        (np.int8, [-200.0, 3.6, 1e9], [-128, 4, 127]),
        (np.int64, [-1e30, 3.6, 1e30], [-(2**63), 4, 2**63 - 1024]),
        (np.uint64, [-1.0, 3.6, 1e30], [0, 4, 2**64 - 2048]),
        (np.float16, [-0.1, 0.5, 2.0], np.array([-0.1, 0.5, 2.0], np.float16)),
        (bool, [-0.1, 0.4, 0.6], [False, False, True]),
    ],
)
def test_what_goes_out_has_the_type_of_what_came_in(dtype, values, expected):
    images = as_images(np.zeros((1, 1, 3), dtype), None)
    out = as_given(np.array(values, np.float64).reshape(1, 1, 3, 1), images)
    assert out.dtype == dtype
    assert out.shape == (1, 1, 3)
    np.testing.assert_array_equal(out[0, 0], expected)
