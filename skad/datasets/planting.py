"""Defects that are drawn into tiles of a surface, so that a person can see them."""

from collections.abc import Callable

import numpy as np

_LEAST_CHANGE = 4  # gray levels, for each pixel of a defect
_LEAST_MEAN_CHANGE = 20  # gray levels, mean over a defect, so that a person sees it
_TRIES = 1000


def draw_kinds(n_test: int, n_defective: int, rng: np.random.Generator) -> np.ndarray:
    """Return an (n_test,) array of kinds, shuffled; each defect about equally often."""
    defects = np.resize(rng.permutation(list(DEFECTS)), n_defective)
    good = np.full(n_test - n_defective, "good")
    return rng.permutation(np.concatenate([defects, good]))


def plant(
    tile: np.ndarray, kind: str, others: list[np.ndarray], rng: np.random.Generator
) -> np.ndarray:
    """Return `tile` with one defect, drawn anew until a person could see it."""
    for _ in range(_TRIES):
        opacity, paint = DEFECTS[kind](tile, others, rng)
        planted = _blend(tile, opacity, paint)
        change = np.abs(planted.astype(int) - tile)
        if change.any() and change[change > 0].mean() >= _LEAST_MEAN_CHANGE:
            return planted
    raise RuntimeError(
        f"No visible {kind} in {_TRIES} tries; use another random_state."
    )


def _blend(tile: np.ndarray, opacity: np.ndarray, paint: np.ndarray) -> np.ndarray:
    """Lay `paint` over `tile`; every pixel that is touched changes measurably.

    A defect that happens to match its ground would leave pinholes in the mask, and
    a fringe of one gray level would widen it beyond what can be seen: opacities
    below a quarter are left out, changes too small are raised to `_LEAST_CHANGE`.
    """
    touched = opacity >= 0.25
    ground = tile.astype(float)
    change = np.rint(opacity * (paint - ground))
    nudge = np.where(tile < 128, _LEAST_CHANGE, -_LEAST_CHANGE)
    change = np.where(np.abs(change) < _LEAST_CHANGE, nudge, change)
    return np.where(touched, ground + change, ground).astype(np.uint8)


def _scratch(
    tile: np.ndarray, others: list[np.ndarray], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a dark crack: a line of five pieces that turns a little at each joint."""
    size = len(tile)
    length = rng.uniform(0.3, 0.6) * size
    half_width = max(0.75, rng.uniform(0.01, 0.02) * size)
    headings = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.35, size=5))
    steps = length / 5 * np.stack([np.sin(headings), np.cos(headings)], axis=1)
    corners = np.vstack([np.zeros(2), np.cumsum(steps, axis=0)])
    corners += _centre(size, rng) - corners.mean(axis=0)

    pixels = np.moveaxis(np.mgrid[:size, :size], 0, -1)  # (H, W, 2)
    distance = np.full(tile.shape, np.inf)
    for start, step in zip(corners[:-1], steps, strict=True):
        along = np.clip((pixels - start) @ step / (step @ step), 0, 1)  # (H, W)
        nearest = start + along[..., None] * step  # (H, W, 2)
        distance = np.minimum(distance, np.linalg.norm(pixels - nearest, axis=-1))
    opacity = np.clip(half_width + 0.5 - distance, 0, 1)
    return opacity, np.full(tile.shape, rng.uniform(5, 25))


def _stain(
    tile: np.ndarray, others: list[np.ndarray], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Tint a blob towards black or white; the texture still shows through."""
    size = len(tile)
    depth = _blob(size, rng.uniform(1 / 12, 1 / 6) * size, rng)
    tint = rng.choice([0.0, 255.0])
    paint = tint + rng.uniform(0.35, 0.55) * (tile - tint)
    return np.clip(depth / max(2, size / 32), 0, 1), paint


def _hole(
    tile: np.ndarray, others: list[np.ndarray], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Sink a dark pit with a bright rim."""
    size = len(tile)
    radius = rng.uniform(1 / 20, 1 / 10) * size
    depth = _blob(size, radius, rng)
    bottom, rim = rng.uniform(5, 20), rng.uniform(205, 235)
    rim_width = max(1, radius / 5)
    return np.clip(depth + 0.5, 0, 1), np.where(depth > rim_width, bottom, rim)


def _smear(
    tile: np.ndarray, others: list[np.ndarray], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Blur a blob along one direction and darken it, like a greasy wipe."""
    size = len(tile)
    depth = _blob(size, rng.uniform(1 / 10, 1 / 6) * size, rng)
    heading = rng.uniform(0, np.pi)
    rows, cols = np.mgrid[:size, :size]
    paint = np.zeros(tile.shape)
    offsets = np.arange(-(size // 10), size // 10 + 1)
    for offset in offsets:
        row_step = round(offset * np.sin(heading))
        col_step = round(offset * np.cos(heading))
        shifted_rows = np.clip(rows + row_step, 0, size - 1)
        shifted_cols = np.clip(cols + col_step, 0, size - 1)
        paint += tile[shifted_rows, shifted_cols] / len(offsets)
    return np.clip(depth / 2, 0, 1), rng.uniform(0.6, 0.7) * paint


def _foreign(
    tile: np.ndarray, others: list[np.ndarray], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Lay in a piece of another photograph."""
    size = len(tile)
    depth = _blob(size, rng.uniform(1 / 12, 1 / 6) * size, rng)
    other = others[rng.integers(len(others))]
    row, col = rng.integers(np.array(other.shape) - size + 1)
    return np.clip(depth + 0.5, 0, 1), other[row : row + size, col : col + size]


def _centre(size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a (row, column) near the middle, so that a defect stays in its tile."""
    return rng.uniform(0.3, 0.7, size=2) * size


def _blob(size: int, radius: float, rng: np.random.Generator) -> np.ndarray:
    """Draw a rounded shape; (size, size), pixels inward from its edge (< 0 outside)."""
    rows, cols = np.mgrid[:size, :size]
    row, col = _centre(size, rng)
    angle = np.arctan2(rows - row, cols - col)
    edge = np.ones((size, size))
    for waves, strength in ((2, 0.2), (3, 0.1), (4, 0.05)):
        phase = rng.uniform(0, 2 * np.pi)
        edge += rng.uniform(0, strength) * np.cos(waves * angle + phase)
    return radius * edge - np.hypot(rows - row, cols - col)


DEFECTS: dict[str, Callable[..., tuple[np.ndarray, np.ndarray]]] = {
    "scratch": _scratch,
    "stain": _stain,
    "hole": _hole,
    "smear": _smear,
    "foreign": _foreign,
}
