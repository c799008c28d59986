"""Random numbers, drawn on the device of their generator."""

import torch
from torch import Tensor
from torch.nn import functional as F

_LATTICE = 16  # side of the random lattice that smooth noise is interpolated from


def uniform(m: int, low: float, high: float, rng: torch.Generator) -> Tensor:
    """Draw m numbers between low and high."""
    return low + (high - low) * torch.rand(m, generator=rng, device=rng.device)


def log_uniform(
    m: int, low: float | Tensor, high: float | Tensor, rng: torch.Generator
) -> Tensor:
    """Draw m numbers between low and high, uniform on a log scale."""
    ratio = torch.as_tensor(high, dtype=torch.float32) / low
    return low * ratio ** uniform(m, 0.0, 1.0, rng)


def normal(*shape: int, rng: torch.Generator) -> Tensor:
    """Draw standard normal numbers."""
    return torch.randn(shape, generator=rng, device=rng.device)


def bernoulli(m: int, probability: float, rng: torch.Generator) -> Tensor:
    """Draw m bools that are true with this probability."""
    return torch.rand(m, generator=rng, device=rng.device) < probability


def randint(m: int, high: int, rng: torch.Generator) -> Tensor:
    """Draw m integers from 0 to below high."""
    return torch.randint(high, (m,), generator=rng, device=rng.device)


def randperm(n: int, rng: torch.Generator) -> Tensor:
    """Draw a permutation of 0 to n - 1."""
    return torch.randperm(n, generator=rng, device=rng.device)


def choice(weights: Tensor, rows: Tensor, rng: torch.Generator) -> Tensor:
    """Draw an index for each of some rows (m,), by the weights (n, k) of its row."""
    n, k = weights.shape
    cumulated = weights.double().cumsum(1)
    cumulated = cumulated / cumulated[:, -1:]
    cumulated += torch.arange(n, device=rows.device)[:, None]  # row i: i to i + 1
    drawn = rows + uniform(len(rows), 0.0, 1.0, rng).double()
    return (torch.searchsorted(cumulated.flatten(), drawn) - rows * k).clamp(0, k - 1)


def smooth_noise(grain: Tensor, offsets: Tensor, rng: torch.Generator) -> Tensor:
    """Return noise (m, h, w), about normal, with a grain of ``grain`` (m,) pixels."""
    lattice = normal(len(grain), 1, _LATTICE, _LATTICE, rng=rng)
    grid = offsets / (_LATTICE / 2 * grain.view(-1, 1, 1, 1))
    return F.grid_sample(
        lattice, grid, mode="bicubic", padding_mode="reflection", align_corners=False
    )[:, 0]
