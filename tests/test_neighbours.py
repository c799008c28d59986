"""Neighbours: chosen as a slow loop does, exact distances, and folds left out."""

import numpy as np
import torch
from torch.nn import functional as F

from skad.scoring import neighbours as _neighbours
from skad.scoring.neighbours import Candidates, Neighbours, k_centre


def draw(*shape, seed=0):
    """Features (n, c, …) of length 1."""
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator))


def slow_k_centre(points, m):
    chosen = [0]
    while len(chosen) < m:
        nearest = [min(np.linalg.norm(p - points[i]) for i in chosen) for p in points]
        chosen.append(int(np.argmax(nearest)))
    return chosen


def test_the_row_that_is_farthest_from_all_chosen_is_chosen_next():
    rows = draw(60, 48)
    generator = torch.Generator().manual_seed(0)
    points = (rows @ torch.randn(48, 32, generator=generator)).double().numpy()
    assert torch.equal(k_centre(rows, 9), rows[slow_k_centre(points, 9)])
    assert torch.equal(k_centre(rows, 60), rows)


def test_every_kind_of_feature_is_kept():
    kinds = draw(12, 100)
    many = kinds.repeat_interleave(torch.tensor([500, *[1] * 11]), 0)
    many = many + 1e-3 * draw(len(many), 100, seed=1)
    assert (k_centre(many, 12) @ kinds.T).argmax(1).unique().numel() == 12


def test_distances_are_those_to_the_nearest_of_all():
    lengths = torch.linspace(0.1, 1, 35)
    bank = draw(35, 20) * lengths[:, None]
    features = draw(2, 20, 5, 7, seed=1) * lengths.reshape(5, 7)
    found = Neighbours(bank).distance(features)
    expected = torch.cdist(features.movedim(1, 3).flatten(0, 2), bank).amin(1)
    np.testing.assert_allclose(found.flatten(), expected, atol=1e-5)
    own = Neighbours(bank).distance(bank.T[None, :, :, None])
    assert own.max() < 2e-3


def test_features_of_a_fold_are_left_out_for_it():
    features = draw(6, 16, 3, 4)
    candidates = Candidates(3, 6)
    for i in range(6):
        candidates.add(features[i : i + 1], i % 3)
    neighbours, held_out = candidates.choose()
    assert len(neighbours.bank) == 72
    for i, others in enumerate(held_out):
        own = others.distance(features[i::3])
        rest = [others.distance(features[j::3]) for j in range(3) if j != i]
        assert own.min() > 0.1 > 2e-3 > torch.cat(rest).max()


def test_the_only_fold_is_not_left_out_and_the_number_is_bounded(monkeypatch):
    monkeypatch.setattr(_neighbours, "N_NEIGHBOURS", 20)
    monkeypatch.setattr(_neighbours, "_N_CANDIDATES", 200)
    for n_folds in (1, 3):
        candidates = Candidates(n_folds, 10)
        for i in range(10):
            candidates.add(draw(1, 16, 8, 8, seed=i), i % n_folds)
        neighbours, held_out = candidates.choose()
        assert len(held_out) == n_folds
        assert 18 <= len(neighbours.bank) <= 20
    assert len(held_out[0].bank) == 12
