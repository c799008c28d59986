"""Gaussians of features against plain numpy, and what happens at the edges."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from skad.scoring import gaussians as _gaussians
from skad.scoring.gaussians import MOST_PLACES, N_COMPONENTS, N_FOLDS, fit_gaussians


def draw(*shape, seed=0, scale=1.0, offset=0.0):
    """Features (n, c, h, w) with correlated channels."""
    rng = np.random.default_rng(seed)
    c = shape[1]
    mixing = rng.normal(size=(c, c))
    x = np.einsum("kc,nchw->nkhw", mixing, rng.normal(size=shape))
    return torch.from_numpy((scale * x + offset).astype(np.float32))


def fit(features, n_looks=1):
    """Fit to one level of features, of so many looks at each image."""
    (level,) = fit_gaussians(lambda: ((x,) for x in features.split(n_looks)))
    return level


def places(shape):
    """The number of every position's place, (h, w)."""
    positions = torch.arange(1, 1 + shape[0] * shape[1]).reshape(1, *shape, 1)
    cell = _gaussians._cell(shape)
    by_place = _gaussians._by_place(positions, cell)[:, :, 0]  # P, m, filled with zeros
    found = torch.empty(shape, dtype=torch.long)
    for number, members in enumerate(by_place):
        found.view(-1)[members[members > 0] - 1] = number
    return found


def vectors(features):
    """Features with the channels last: (n, h, w, c), float64."""
    return features.double().numpy().transpose(0, 2, 3, 1)


def slow_distances(train, test, place, means, covariances):
    """Mahalanobis distances by loops; needs no projection, c being small enough."""
    c = train.shape[1]
    x, y, place = vectors(train), vectors(test), place.numpy()
    everywhere = x.reshape(-1, c).mean(0)
    n_places = int(place.max()) + 1
    own = [x[:, place == p].reshape(-1, c) for p in range(n_places)]
    mean = [(1 - means) * v.mean(0) + means * everywhere for v in own]
    scatter = [(v - m).T @ (v - m) / len(v) for v, m in zip(own, mean, strict=True)]
    pooled = sum(len(v) * s for v, s in zip(own, scatter, strict=True)) / sum(
        map(len, own)
    )
    ridge = _gaussians._RIDGE * np.trace(pooled) / c * np.eye(c)
    distances = np.empty(y.shape[:3])
    for index in np.ndindex(distances.shape):
        p = int(place[index[1:]])
        covariance = (1 - covariances) * scatter[p] + covariances * pooled + ridge
        z = y[index] - mean[p]
        distances[index] = np.sqrt(z @ np.linalg.solve(covariance, z))
    return distances


@pytest.mark.parametrize("shape", [(1, 1), (3, 4), (2, 7)])
@pytest.mark.parametrize(("means", "covariances"), [(0.0, 0.1), (0.3, 0.5), (1.0, 1.0)])
def test_distances_agree_with_a_slow_oracle(monkeypatch, shape, means, covariances):
    monkeypatch.setattr(
        _gaussians, "_choose_shrinkages", lambda folds: (means, covariances)
    )
    train = draw(40, 5, *shape) + 3 * draw(1, 5, *shape, seed=1)
    test = draw(3, 5, *shape, seed=2, offset=1.0)
    gaussians, _ = fit(train)
    expected = slow_distances(train, test, places(shape), means, covariances)
    np.testing.assert_allclose(gaussians.distance(test), expected, rtol=1e-3)


def test_distances_in_shared_cells_agree_with_a_slow_oracle(monkeypatch):
    monkeypatch.setattr(_gaussians, "MOST_PLACES", 6)
    monkeypatch.setattr(_gaussians, "_choose_shrinkages", lambda folds: (0.2, 0.3))
    train, test = draw(20, 4, 5, 7), draw(2, 4, 5, 7, seed=2)
    gaussians, _ = fit(train)
    assert len(gaussians.mean) == 6  # cells of 3 x 3, the last ones cut off
    expected = slow_distances(train, test, places((5, 7)), 0.2, 0.3)
    np.testing.assert_allclose(gaussians.distance(test), expected, rtol=1e-3)


def test_levels_are_fitted_each_for_itself():
    levels = draw(7, 4, 3, 3), draw(7, 6, 2, 5, seed=1)
    together = fit_gaussians(lambda: zip(*(x.split(1) for x in levels), strict=True))
    for (gaussians, without), features in zip(together, levels, strict=True):
        alone, alone_without = fit(features)
        for a, b in zip((gaussians, *without), (alone, *alone_without), strict=True):
            assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("most_places", [6, 20, 1000])
def test_distances_of_a_part_are_those_of_the_whole_there(monkeypatch, most_places):
    monkeypatch.setattr(_gaussians, "MOST_PLACES", most_places)
    train, test = draw(6, 4, 9, 13), draw(2, 4, 9, 13, seed=1)
    gaussians, _ = fit(train)
    whole = gaussians.distance(test)
    for rows, columns in [((0, 9), (0, 13)), ((3, 8), (5, 13)), ((4, 5), (1, 2))]:
        here = (..., slice(*rows), slice(*columns))
        part = gaussians.distance(test[here], (rows[0], columns[0]), (9, 13))
        np.testing.assert_allclose(part, whole[here], rtol=1e-5)


def test_looks_at_an_image_are_left_out_together(monkeypatch):
    monkeypatch.setattr(_gaussians, "_choose_shrinkages", lambda folds: (0.3, 0.5))
    looks, test = draw(12, 4, 3, 3), draw(2, 4, 3, 3, seed=1)
    _, without = fit(looks, n_looks=2)
    assert len(without) == N_FOLDS
    for i, gaussians in enumerate(without):
        rest = [j for j in range(12) if j // 2 % N_FOLDS != i]
        expected = fit(looks[rest])[0].distance(test)
        np.testing.assert_allclose(gaussians.distance(test), expected, rtol=2e-3)


def test_projection_keeps_the_components_that_vary_most():
    c = N_COMPONENTS + 8
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.normal(size=(c, c)))[0]  # columns
    loud = np.where(np.arange(c) < N_COMPONENTS, 5.0, 0.1)
    x = rng.normal(size=(30, 16, c)) * loud @ directions.T
    features = torch.from_numpy(x.astype(np.float32)).mT.reshape(30, c, 4, 4)
    projection = fit(features)[0].projection.double().numpy()
    np.testing.assert_allclose(
        projection @ projection.T, np.eye(N_COMPONENTS), atol=1e-5
    )
    kept = directions[:, :N_COMPONENTS]
    np.testing.assert_allclose(projection.T @ projection, kept @ kept.T, atol=0.02)


def test_places_far_apart_are_hardly_drawn_together():
    train = draw(30, 3, 4, 4) + 30 * draw(1, 3, 4, 4, seed=1)
    means, _ = _gaussians._choose_shrinkages(folds_of(train))
    assert means <= 0.1


def test_places_all_alike_share_one_gaussian():
    train = draw(12, 3, 40, 1)
    assert _gaussians._choose_shrinkages(folds_of(train)) == (1.0, 1.0)


def folds_of(features):
    """Moments of every fold, in the features' own coordinates."""
    place = places(tuple(features.shape[2:]))
    x = torch.from_numpy(vectors(features))
    k, n_places = features.shape[1], int(place.max()) + 1
    folds = []
    for i in range(min(N_FOLDS, len(features))):
        own = [
            x[i::N_FOLDS][:, place == p].reshape(-1, k).double()
            for p in range(n_places)
        ]
        folds.append(
            _gaussians.Moments(
                torch.tensor([float(len(v)) for v in own], dtype=torch.float64),
                torch.stack([v.sum(0) for v in own]),
                torch.stack([v.T @ v for v in own]),
            )
        )
    return folds


def test_moments_are_sums_over_the_images_of_a_fold():
    features = draw(7, 3, 4, 5)
    images = ((x,) for x in features.split(1))
    (found,) = _gaussians._moments(images, [torch.eye(3)])
    for moments, expected in zip(found, folds_of(features), strict=True):
        for a, b in zip(moments, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("most_places", [100, 4])  # places of equal and unequal size
@pytest.mark.parametrize("n", [2, 3, 7])  # folds of equal and unequal size
def test_left_out_likelihood_is_that_of_the_raw_samples(monkeypatch, n, most_places):
    monkeypatch.setattr(_gaussians, "MOST_PLACES", most_places)
    features = draw(n, 2, 3, 4) + draw(1, 2, 3, 4, seed=1)
    x, place = vectors(features), places((3, 4)).numpy()
    folds = folds_of(features)
    log_density = 0.0
    for i in range(len(folds)):
        rest = _gaussians._sum(folds[:i] + folds[i + 1 :])
        mean, covariance = _gaussians._shrink(rest, 0.3, 0.2)
        for image in x[i::N_FOLDS]:
            for index in np.ndindex(place.shape):
                p = place[index]
                density = multivariate_normal(mean[p], covariance[p])
                log_density += density.logpdf(image[index])
    constant = n * place.size * x.shape[-1] * np.log(2 * np.pi)
    found = _gaussians._left_out_likelihood(folds, 0.3, 0.2)
    assert found == pytest.approx(2 * log_density + constant, rel=1e-6)


@pytest.mark.parametrize("n", [2, 4, 7])
def test_left_out_images_leave_no_trace(monkeypatch, n):
    monkeypatch.setattr(_gaussians, "_choose_shrinkages", lambda folds: (0.3, 0.5))
    train, test = draw(n, 4, 3, 3), draw(2, 4, 3, 3, seed=1)
    _, without = fit(train)
    assert len(without) == min(n, N_FOLDS)
    for i, gaussians in enumerate(without):
        rest = [j for j in range(n) if j % N_FOLDS != i]
        expected = fit(train[rest])[0].distance(test)
        np.testing.assert_allclose(gaussians.distance(test), expected, rtol=2e-3)


@pytest.mark.parametrize(
    "shape", [(1, 1), (2, 40), (32, 32), (33, 32), (64, 64), (100, 7), (1, 5000)]
)
def test_every_position_has_one_of_not_too_many_places(shape):
    place = places(shape)
    assert place.shape == shape
    numbers, sizes = place.unique(return_counts=True)
    assert numbers.tolist() == list(range(len(numbers)))
    assert len(numbers) <= MOST_PLACES
    cell = int(place[0].eq(0).sum())
    assert sizes.max() <= cell**2
    rows, columns = np.indices(shape) // cell
    same = rows * 10**6 + columns  # one number a square cell
    pairs = {*zip(place.flatten().tolist(), same.ravel().tolist(), strict=True)}
    assert len(pairs) == len(numbers)
    if cell > 1:  # smaller cells would be too many
        smaller = -(-shape[0] // (cell - 1)) * -(-shape[1] // (cell - 1))
        assert smaller > MOST_PLACES


@pytest.mark.parametrize(
    ("shape", "c"), [((1, 1), 3), ((2, 5), 40), ((40, 30), 6), ((3, 400), 2)]
)
def test_shapes_are_foretold(shape, c):
    gaussians, _ = fit(draw(3, c, *shape))
    found = {name: tuple(t.shape) for name, t in gaussians._asdict().items()}
    assert found == _gaussians.gaussians_shapes(shape, c)


def test_shapes_of_absurd_sizes_take_no_memory():
    shapes = _gaussians.gaussians_shapes((2**28, 2**28), 4)
    assert shapes["mean"] == (MOST_PLACES, 4)


@pytest.mark.parametrize("value", [0.0, 1.0, -123.456, 54321.9])
@pytest.mark.parametrize("n", [1, 2, 100])
def test_constant_features_give_finite_distances(value, n):
    """Rounding leaves variances a little below zero where features are large."""
    channels = value * torch.rand(40, generator=torch.Generator().manual_seed(0))
    train = channels[None, :, None, None].expand(n, 40, 5, 5)
    gaussians, without = fit(train)
    for found in (gaussians, *without):
        assert found.distance(train[:1]).max() < 10
        assert found.distance(draw(2, 40, 5, 5)).isfinite().all()


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_some_constant_channels_do_no_harm(offset):
    train = draw(8, 6, 4, 4)
    train[:, ::2] = offset
    gaussians, _ = fit(train)
    usual = gaussians.distance(train)
    assert usual.isfinite().all()
    odd = train.clone()
    odd[:, 0] += 5.0  # what never changed has changed
    assert gaussians.distance(odd).min() > usual.max()


@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_images_are_enough(n):
    train = draw(n, 40, 6, 6)
    gaussians, without = fit(train)
    assert len(without) == n
    for found in (gaussians, *without):
        assert found.distance(draw(3, 40, 6, 6, seed=1)).isfinite().all()


def test_an_odd_feature_is_far_where_it_is():
    train = draw(20, 4, 6, 6)
    test = train[:1].clone()
    test[0, :, 2:4, 2:4] += 40.0
    distance = fit(train)[0].distance(test)[0]
    row, col = divmod(int(distance.argmax()), 6)
    assert row in (2, 3)
    assert col in (2, 3)
