"""Gaussians of features against plain numpy, and what happens at the edges."""

import numpy as np
import pytest
import torch

from skad.scoring.gaussians import (
    Gaussians,
    fit_gaussians,
    principal_components,
    sum_moments,
)

N_FOLDS = 3


def draw(*shape, seed=0, scale=1.0, offset=0.0):
    """Features (n, c, h, w) with correlated channels."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(shape[1], shape[1]))
    x = np.einsum("kc,nchw->nkhw", mixing, rng.normal(size=shape))
    return torch.from_numpy((scale * x + offset).astype(np.float32))


def fit(features, n_together=1):
    """Fit to one level of features, so many images at a time, a fold for each."""
    groups = enumerate(features.split(n_together))
    (folds,) = sum_moments((i % N_FOLDS, (x,)) for i, x in groups)
    return fit_gaussians(folds)


def slow_distances(train, test, cell):
    """Mahalanobis distances by loops; needs no projection, c being small enough."""
    x, y = (f.double().numpy().transpose(0, 2, 3, 1) for f in (train, test))
    c, (h, w) = x.shape[3], x.shape[1:3]
    every = x.reshape(-1, c)
    means, scatters, counts, where = [], [], [], []
    for row in range(0, h, cell):
        for column in range(0, w, cell):
            place = np.s_[:, row : row + cell, column : column + cell]
            own = x[place].reshape(-1, c)
            mean = 0.9 * own.mean(0) + 0.1 * every.mean(0)
            means.append(mean)
            scatters.append((own - mean).T @ (own - mean) / len(own))
            counts.append(len(own))
            where.append(place)
    pooled = np.average(scatters, axis=0, weights=counts)
    ridge = 1e-3 * np.trace(pooled) / c * np.eye(c)
    distances = np.empty(y.shape[:3])
    for place, mean, scatter in zip(where, means, scatters, strict=True):
        covariance = 0.9 * scatter + 0.1 * pooled + ridge
        z = y[place] - mean
        square = np.einsum("...i,ij,...j", z, np.linalg.inv(covariance), z)
        distances[place] = np.sqrt(square)
    return distances


def distances(gaussians, features):
    return gaussians.distance(features, (0, 0), features.shape[2:])


@pytest.mark.parametrize("size", [(1, 1), (3, 4), (40, 50)])  # the last with cells
def test_distances_agree_with_a_slow_oracle(size):
    train = draw(20, 5, *size) + 3 * draw(1, 5, *size, seed=1)
    test = draw(3, 5, *size, seed=2, offset=1.0)
    gaussians, _ = fit(train)
    assert (len(gaussians.mean) < np.prod(size)) == (size == (40, 50))
    expected = slow_distances(train, test, 1 + (size == (40, 50)))
    np.testing.assert_allclose(distances(gaussians, test), expected, rtol=2e-3)


@pytest.mark.parametrize("size", [(9, 13), (45, 50), (5, 1100)])
def test_distances_of_a_part_are_those_of_the_whole_there(size):
    train, test = draw(3, 4, *size), draw(2, 4, *size, seed=1)
    gaussians, _ = fit(train)
    whole = distances(gaussians, test)
    for rows, columns in [((0, 5), (0, 13)), ((3, 5), (5, 13)), ((4, 5), (1, 2))]:
        here = (..., slice(*rows), slice(*columns))
        part = gaussians.distance(test[here], (rows[0], columns[0]), size)
        np.testing.assert_allclose(part, whole[here], rtol=1e-5)


@pytest.mark.parametrize(("n", "n_together"), [(2, 1), (7, 1), (12, 2)])
def test_held_out_images_leave_no_trace(n, n_together):
    train, test = draw(n, 4, 3, 3), draw(2, 4, 3, 3, seed=1)
    _, held_out = fit(train, n_together)
    assert len(held_out) == min(n, N_FOLDS)
    for i, gaussians in enumerate(held_out):
        rest = [j for j in range(n) if j // n_together % N_FOLDS != i]
        expected = distances(fit(train[rest])[0], test)
        np.testing.assert_allclose(distances(gaussians, test), expected, rtol=2e-3)


def test_the_components_that_vary_most_are_kept():
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.normal(size=(40, 40)))[0]  # columns
    x = rng.normal(size=(30, 16, 40)) * np.where(np.arange(40) < 32, 5.0, 0.1)
    features = torch.from_numpy((x @ directions.T).astype(np.float32))
    projection = fit(features.mT.reshape(30, 40, 4, 4))[0].projection.double().numpy()
    np.testing.assert_allclose(projection @ projection.T, np.eye(32), atol=1e-5)
    kept = directions[:, :32]
    np.testing.assert_allclose(projection.T @ projection, kept @ kept.T, atol=0.02)
    first = principal_components(features.mT.reshape(30, 40, 4, 4)).double()
    np.testing.assert_allclose(first.T @ first, kept @ kept.T, atol=0.02)


@pytest.mark.parametrize("size", [(1, 1), (32, 32), (33, 32), (100, 7), (1, 5000)])
def test_empty_gaussians_have_the_shapes_of_fitted_ones(size):
    fitted, empty = fit(draw(1, 3, *size))[0], Gaussians.empty(3, size)
    shapes = [{k: t.shape for k, t in g.state_dict().items()} for g in (fitted, empty)]
    assert shapes[0] == shapes[1]
    assert len(fitted.mean) <= 1024


@pytest.mark.parametrize("value", [0.0, -123.456, 54321.9])
@pytest.mark.parametrize("n", [1, 2, 100])
def test_constant_features_give_finite_distances(value, n):
    """Rounding leaves variances a little below zero where features are large."""
    channels = value * torch.rand(40, generator=torch.Generator().manual_seed(0))
    train = channels[None, :, None, None].expand(n, 40, 5, 5)
    gaussians, held_out = fit(train)
    assert len(held_out) == min(n, N_FOLDS)
    for found in (gaussians, *held_out):
        assert distances(found, train[:1]).max() < 10
        assert distances(found, draw(2, 40, 5, 5)).isfinite().all()
