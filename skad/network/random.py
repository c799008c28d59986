"""Random numbers, drawn on the device of the generator that they come from."""

import torch
from torch import Tensor


def uniform(m: int, low: float, high: float, rng: torch.Generator) -> Tensor:
    """Draw m numbers from low to high."""
    return low + (high - low) * torch.rand(m, generator=rng, device=rng.device)


def log_uniform(
    m: int, low: float | Tensor, high: Tensor, rng: torch.Generator
) -> Tensor:
    """Draw m numbers from low to high, evenly on a log scale."""
    return low * (high / low) ** uniform(m, 0.0, 1.0, rng)


def normal(*shape: int, rng: torch.Generator) -> Tensor:
    """Draw standard normal numbers."""
    return torch.randn(shape, generator=rng, device=rng.device)


def with_chance(m: int, probability: float, rng: torch.Generator) -> Tensor:
    """Draw m bools that are true with this probability."""
    return torch.rand(m, generator=rng, device=rng.device) < probability


def randint(m: int, high: int, rng: torch.Generator) -> Tensor:
    """Draw m integers from 0 to below high, or 0."""
    return torch.randint(max(high, 1), (m,), generator=rng, device=rng.device)


def choose(m: int, shares: tuple[float, ...], rng: torch.Generator) -> Tensor:
    """Draw m numbers of items, that have these shares."""
    weights = torch.tensor(shares, device=rng.device)
    return torch.multinomial(weights, m, replacement=True, generator=rng)
