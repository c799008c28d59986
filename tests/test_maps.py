"""From images to maps: preparation, evidence, one scale, and back to the pixels."""

import copy
import pickle

import joblib
import numpy as np
import pytest
import torch

from skad.images.inputs import as_images
from skad.network import model as _networks
from skad.network.model import FEATURE_STRIDES, MAP_STRIDE, STRIDE
from skad.network.preparation import Preparation, to_unit_range
from skad.scoring import anomaly_map as _maps
from skad.scoring import second_pass as _halos
from skad.scoring.anomaly_map import (
    VIEWS,
    AnomalyMapper,
    evidence,
)
from skad.scoring.fitting import fit_mapper
from skad.scoring.fusion import combine, on_one_scale

CPU = torch.device("cpu")


def draw(n=6, size=(32, 48), n_channels=1, dtype=np.uint8, seed=0):
    rng = np.random.default_rng(seed)
    shape = (n, *size, n_channels)
    if np.dtype(dtype).kind == "f":
        return rng.normal(3.0, 2.0, shape).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max, shape, endpoint=True, dtype=dtype)


def prepare(images, working_size=None, roi=None):
    unit, size = to_unit_range(images), images.shape[1:3]
    mean = unit.mean((0, 1, 2))
    std = float(np.sqrt(np.mean((unit - mean) ** 2)))
    return Preparation(mean, std, size, working_size or size, roi)


def new_network(n_channels=1):
    return _networks.new_network(n_channels, torch.Generator().manual_seed(0)).eval()


def fit(images, working_size=None, roi=None):
    network = new_network(images.shape[3])
    preparation = prepare(images, working_size, roi)
    return fit_mapper(
        network, preparation, as_images(images, None), np.arange(len(images)), ((),)
    )


def half(size):
    """A roi: the left half."""
    roi = torch.zeros(size)
    roi[:, : size[1] // 2] = 1.0
    return roi


@pytest.mark.parametrize(
    ("dtype", "top"),
    [
        (np.uint8, 255),
        (np.uint16, 65535),
        (np.int32, 1),
        (np.float32, 1),
        (np.float64, 1),
    ],
)
def test_numbers_are_scaled_by_their_type(dtype, top):
    values = np.array([[[[0], [1], [100]]]], dtype=dtype)
    unit = to_unit_range(values)
    assert unit.dtype == np.float64
    np.testing.assert_array_equal(unit.ravel(), np.array([0.0, 1.0, 100.0]) / top)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("n_channels", [1, 3])
def test_prepared_images_are_standardised(dtype, n_channels):
    images = draw(n_channels=n_channels, dtype=dtype)
    x = prepare(images)(images, CPU)
    assert x.shape == (6, n_channels, 32, 48)
    assert x.dtype == torch.float32
    assert abs(float(x.mean())) < 1e-5
    assert float(x.std(correction=0)) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("size", [(16, 16), (17, 31), (1, 40), (33, 1), (48, 64)])
def test_sizes_are_padded_by_the_edge_to_multiples_of_the_stride(size):
    images = draw(2, size)
    x = prepare(images)(images, CPU)
    height, width = size
    assert x.shape[2] % STRIDE == x.shape[3] % STRIDE == 0
    assert 0 <= x.shape[2] - height < STRIDE
    assert 0 <= x.shape[3] - width < STRIDE
    below, right = x[:, :, height:, :width], x[:, :, :, width:]
    assert torch.equal(below, x[:, :, height - 1 : height, :width].expand_as(below))
    assert torch.equal(right, x[:, :, :, width - 1 : width].expand_as(right))


@pytest.mark.parametrize("size", [(32, 48), (20, 19)])
def test_flipped_images_are_filled_up_at_the_same_end(size):
    images = draw(2, size)
    preparation = prepare(images)
    x = preparation(images, CPU)
    for axes in ((2,), (3,), (2, 3)):
        flipped = np.flip(images, [axis - 1 for axis in axes])
        expected = preparation(flipped.copy(), CPU)
        torch.testing.assert_close(preparation.flipped(x, axes), expected)
    assert preparation.flipped(x, ()) is x


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float64])
@pytest.mark.parametrize("size", [(32, 48), (20, 19)])
def test_undo_gives_the_images_back(dtype, size):
    images = draw(size=size, n_channels=3, dtype=dtype)
    preparation = prepare(images)
    back = preparation.undo(preparation(images, CPU))
    assert back.shape == images.shape
    np.testing.assert_allclose(back.numpy(), to_unit_range(images), atol=1e-5)


@pytest.mark.parametrize("working_size", [(16, 24), (50, 70)])
def test_undo_brings_back_the_size(working_size):
    images = np.full((2, 32, 48, 3), 100, np.uint8)
    images[..., 1] = 200
    preparation = Preparation(np.array([0.5, 0.4, 0.3]), 0.2, (32, 48), working_size)
    x = preparation(images, CPU)
    assert x.shape[2:] == tuple(-(-s // STRIDE) * STRIDE for s in working_size)
    back = preparation.undo(x).numpy()
    np.testing.assert_allclose(back, images / 255, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "working_size"),
    [((32, 48), (32, 48)), ((20, 30), (20, 30)), ((40, 60), (20, 30)), ((9, 9), None)],
)
def test_maps_come_back_to_the_inputs_size_and_place(size, working_size):
    working_size = working_size or (36, 36)
    preparation = Preparation(np.zeros(1), 1.0, size, working_size)
    padded = [-(-s // STRIDE) * STRIDE // MAP_STRIDE for s in working_size]
    flat = preparation.to_input(torch.full((2, *padded), 1.5))
    torch.testing.assert_close(flat, torch.full((2, *size), 1.5))

    maps = torch.zeros(1, *padded)
    row, col = working_size[0] // MAP_STRIDE // 2, working_size[1] // MAP_STRIDE // 3
    maps[0, row, col] = 1.0
    found = preparation.to_input(maps)[0]
    peak = divmod(int(found.argmax()), size[1])
    for i, at in enumerate((row, col)):
        expected = (at + 0.5) * MAP_STRIDE * size[i] / working_size[i]
        assert abs(peak[i] + 0.5 - expected) <= MAP_STRIDE


def test_outside_of_the_roi_is_nothing():
    size = (32, 48)
    images, roi = draw(size=size), half((32, 48))
    preparation = prepare(images, roi=roi)
    outside = roi == 0
    assert (preparation(images, CPU)[:, :, outside] == 0).all()
    assert (preparation.to_input(torch.ones(2, 16, 24))[:, outside] == 0).all()
    assert (preparation.to_input(torch.ones(2, 16, 24))[:, ~outside] == 1).all()
    other = images.copy()
    other[:, outside.numpy()] = 77
    mapper = fit(images, roi=roi)
    np.testing.assert_array_equal(mapper(images), mapper(other))
    assert (mapper(images)[:, outside.numpy()] == 0).all()


@pytest.mark.parametrize("stride", [1, MAP_STRIDE, *FEATURE_STRIDES])
def test_inside_is_where_the_image_is(stride):
    preparation = Preparation(np.zeros(1), 1.0, (20, 40), (20, 40))
    inside = preparation.inside(stride)
    assert inside.dtype == torch.bool
    assert inside.shape == (32 // stride, 48 // stride)
    rows, columns = -(-20 // stride), -(-40 // stride)
    assert inside[:rows, :columns].all()
    assert inside.sum() == rows * columns


def test_inside_sees_the_roi_at_the_working_resolution():
    preparation = Preparation(np.zeros(1), 1.0, (64, 64), (32, 32), half((64, 64)))
    inside = preparation.inside(1)
    assert inside[:, :16].all()
    assert not inside[:, 16:].any()


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("size", [(16, 16), (40, 56), (90, 120)])
@pytest.mark.usefixtures("threads_as_before")
def test_over_does_not_depend_on_what_else_is_there(size, n_threads):
    """One image alone is computed with all threads, one of many with one."""
    torch.set_num_threads(n_threads)
    images = draw(7, size)
    mapper = fit(images[:3])

    def maps(which):
        return np.concatenate(list(mapper.over(as_images(images[which], None), mapper)))

    every = maps(np.arange(7))
    assert every.shape == (7, *size)
    assert every.dtype == np.float32
    for which in ([3], [6, 1], [4, 4, 4, 0, 2]):
        np.testing.assert_array_equal(maps(which), every[which])


def test_over_takes_batches_of_one_size():
    def sizes(size):
        images, found = draw(5, size), []

        def corners(batch):
            found.append(len(batch))
            return batch[:, 0, 0, 0]

        chunks = list(fit(images[:2]).over(as_images(images, None), corners))
        np.testing.assert_array_equal(np.concatenate(chunks), images[:, 0, 0, 0])
        return set(found)

    (large,), (small,) = sizes((90, 120)), sizes((16, 16))
    assert small > large


def test_maps_rise_with_every_kind_of_evidence():
    images = draw(n_channels=3)
    mapper = fit(images)
    x = mapper.preparation(images, CPU)

    def join(found):
        views = combine(found, mapper.tails, VIEWS)
        return on_one_scale(views, mapper.view_lines).amax(1)

    with torch.inference_mode():
        base = evidence(mapper.network, x, mapper.gaussians, mapper.expectation)
        below = join(base)
        assert below.shape == (6, 16, 24)
        assert (below >= 0).all()
        for kind in range(base.shape[1]):
            for amount in (0.3, 3.0, 1e6):
                more = base.clone()
                values = mapper.tails[kind, :, 0]
                more[:, kind] += amount * (values[-1] - values[0])
                above = join(more)
                assert (above >= below).all()
                assert above.isfinite().all()
            assert (above > below).all()


def test_an_odd_patch_peaks():
    """Even the features of an untrained network show it."""
    images = 100 + draw(20, (32, 32)) // 16
    mapper = fit(images)
    odd = images[:1].copy()
    odd[:, 8:20, 8:20] = 250
    assert mapper(odd).max() > 2 * mapper(images).max()


@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_images_are_enough(n):
    images = draw(n, (32, 32))
    assert np.isfinite(fit(images)(images)).all()


def test_reconstruction_has_the_shape_of_the_images():
    images = draw(3, (20, 30), 3)
    for working_size in (None, (32, 32)):
        rebuilt = fit(images, working_size).reconstruct(images)
        assert rebuilt.shape == images.shape
        assert np.isfinite(rebuilt).all()


@pytest.mark.parametrize(
    ("size", "working_size"),
    [((16, 16), (16, 16)), ((1, 40), (1, 40)), ((30, 50), (70, 33))],
)
@pytest.mark.parametrize("n_channels", [1, 3, 7])
def test_arrays_hold_all_numbers(size, working_size, n_channels):
    images = draw(3, size, n_channels)
    mapper = fit(images, working_size)
    arrays = mapper.to_arrays()
    shapes = {name: array.shape for name, array in arrays.items()}
    assert shapes == AnomalyMapper.array_shapes(n_channels, working_size)
    again = AnomalyMapper.from_arrays(arrays, **mapper.settings())
    assert not again.network.training
    np.testing.assert_array_equal(again(images), mapper(images))
    np.testing.assert_array_equal(again.reconstruct(images), mapper.reconstruct(images))


def test_arrays_hold_the_roi():
    images = draw()
    mapper = fit(images, roi=half((32, 48)))
    arrays = mapper.to_arrays()
    np.testing.assert_array_equal(arrays["roi"], half((32, 48)))
    again = AnomalyMapper.from_arrays(arrays, **mapper.settings())
    np.testing.assert_array_equal(again(images), mapper(images))


def test_rebuilt_mappers_share_no_memory_with_the_arrays():
    images = draw()
    mapper = fit(images)
    arrays = {name: array.copy() for name, array in mapper.to_arrays().items()}
    again = AnomalyMapper.from_arrays(arrays, **mapper.settings())
    for name, array in arrays.items():
        if name != "mean":
            array[...] = 0
    np.testing.assert_array_equal(again(images), mapper(images))


@pytest.mark.parametrize(
    "again", [copy.deepcopy, lambda mapper: pickle.loads(pickle.dumps(mapper))]
)
def test_copies_and_pickles_give_the_same_maps(again):
    images = draw()
    mapper = fit(images)
    np.testing.assert_array_equal(again(mapper)(images), mapper(images))


def test_equal_mappers_have_equal_pickles():
    """joblib tells by them what has changed; addresses in them would mislead it."""
    mapper = fit(draw())
    before = joblib.hash(mapper)
    assert joblib.hash(copy.deepcopy(mapper)) == before
    mapper.network.to_logit[0].bias.data += 1
    assert joblib.hash(mapper) != before


def test_shapes_of_absurd_sizes_take_no_memory():
    shapes = AnomalyMapper.array_shapes(2**31 - 1, (2**31 - 1, 2**31 - 1))
    assert shapes["mean"] == (2**31 - 1,)


def test_fitting_leaves_the_network_and_the_generators_alone():
    images, network = draw(), new_network()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    state = torch.get_rng_state()
    fit_mapper(network, prepare(images), as_images(images, None), np.arange(4), ((),))
    assert torch.equal(torch.get_rng_state(), state)
    after = network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_tails_are_those_of_images_left_out():
    """With Gaussians that had seen the images, their peaks would be lower."""
    images = draw(9, (32, 32))
    mapper = fit(images)
    with torch.inference_mode():
        x = mapper.preparation(images, CPU)
        seen = evidence(mapper.network, x, mapper.gaussians, mapper.expectation)
        seen = seen.amax((2, 3))
    for kind in range(1, 1 + len(FEATURE_STRIDES)):
        assert mapper.tails[kind, -2, 0] > seen[:, kind].median()


def test_the_gaussians_see_flipped_images_too():
    images = draw(9, (32, 48))
    images[:, :16] //= 8  # dark above: upside down they are odd
    preparation, network = prepare(images), new_network(1)
    plain, both = (
        fit_mapper(network, preparation, as_images(images, None), np.arange(9), looks)
        for looks in ([()], [(), (2,)])
    )
    upside_down = images[:, ::-1].copy()
    assert plain(upside_down).mean() > 1.2 * both(upside_down).mean()


def test_the_map_is_the_largest_of_the_views_on_one_scale():
    images = draw(n_channels=3)
    mapper = fit(images)
    images[:3, 8:12, 8:12] = [255, 0, 0]
    with torch.inference_mode():
        x = mapper.preparation(images, CPU)
        found = evidence(mapper.folded, x, mapper.gaussians, mapper.expectation)
        views = on_one_scale(combine(found, mapper.tails, VIEWS), mapper.view_lines)
        far, fine = mapper._look(x).unbind(1)
        expected = mapper.preparation.to_input(views.amax(1))
    assert set(views.argmax(1).unique().tolist()) == {0, 1, 2}
    assert VIEWS[2][0] == 0 < VIEWS[1][0]  # the decoder sees far
    np.testing.assert_array_equal(fine, views[:, 2])
    np.testing.assert_array_equal(far, views[:, :2].amax(1))
    np.testing.assert_array_equal(mapper.first_look(images), expected)


def test_what_the_image_does_not_show_makes_no_defect_plain(monkeypatch):
    """Neither the padding nor what lies outside the roi."""
    images = draw(9, (32, 48))
    mapper = fit(images, roi=half((32, 48)))
    images[0, 12:20, 36:44] = 255
    monkeypatch.setattr(_halos, "_PLAIN", (1.01 * mapper.first_look(images).max(), 99))
    with torch.inference_mode():
        seen = mapper._look(mapper.preparation(images, CPU))
    assert seen.max() > _halos._PLAIN[0]
    monkeypatch.setattr(_maps, "without_halo", None)  # not to be called
    mapper(images)


def test_good_pixels_reach_a_value_as_often_in_every_view():
    images = draw(9, (64, 64))
    mapper = fit(images)
    with torch.inference_mode():
        x = mapper.preparation(images, CPU)
        found = evidence(mapper.network, x, mapper.gaussians, mapper.expectation)
        views = on_one_scale(combine(found, mapper.tails, VIEWS), mapper.view_lines)
    pixels = views.movedim(1, 0).flatten(1).sort(1).values
    for rarity in (0.5, 0.1, 0.01):  # of images that the Gaussians have seen
        reached = pixels[:, int((1 - rarity) * pixels.shape[1])]
        assert reached.max() < 1.5 * reached.min()
    usual = views.amax((2, 3)).median(0).values
    assert usual.max() < 2 * usual.min()
