"""Real surfaces from scikit-image's photographs, with planted defects.

Imports `common`.
"""

from collections.abc import Callable

import numpy as np
from skimage import data
from sklearn.utils import Bunch

from skad.common.checks import as_float, check_whole

__all__ = ["SURFACES", "load_surfaces"]

Rng = np.random.Generator
Tile = np.ndarray  # (H, W), uint8
Defect = tuple[np.ndarray, np.ndarray]  # opacity, 0 to 1, and gray levels; each (H, W)

#: Names of surfaces that `load_surfaces` takes
SURFACES = ("brick", "grass", "gravel")

_SMALLEST_TILE = 32  # pixels; below it a scratch would be thinner than a pixel
_LEAST_OPACITY = 0.25  # of a defect: less would widen its mask beyond what one sees
_LEAST_CHANGE = 20  # gray levels, mean over a defect, so that a person sees it


def load_surfaces(
    name: str = "brick",
    *,
    tile_size: int = 128,
    n_train: int = 60,
    n_test: int = 40,
    n_calibration: int = 0,
    defect_fraction: float = 0.5,
    random_state: int | Rng | None = 0,
) -> Bunch:
    """Load tiles of a photographed surface, some of them with a planted defect.

    Nothing is downloaded. Tiles of different sets share no pixel; those of one set
    overlap. So training tiles that are held out are not new to the network, and a
    threshold from them is too low; use calibration tiles for `calibrate`.

    Defects are drawn, a tenth to a third of a tile wide: figures obtained here say that
    a detector works, not how well it does on a real production line. The photographs
    are those of `skimage.data`, in the public domain (Creative Commons CC0).

    Parameters
    ----------
    name : {"brick", "grass", "gravel"}, default="brick"
        The surface, one of `SURFACES`.
    tile_size : int, default=128
        Height and width of a tile in pixels, from 32 to 170.
    n_train, n_test, n_calibration : int, default=60, 40, 0
        Number of tiles. Those for training and calibration are good.
    defect_fraction : float, default=0.5
        Share of the test tiles, in [0, 1], that carry a defect.
    random_state : int, Generator or None, default=0
        The only source of randomness: equal ints give equal tiles.

    Returns
    -------
    surfaces : sklearn.utils.Bunch
        - ``train``, ``test``, ``calibration`` : ndarray of uint8, shape (n, tile_size,
          tile_size),
        - ``y_test`` : ndarray of int, shape (n_test,): +1 good, -1 anomalous,
        - ``masks`` : ndarray of bool, shape (n_test, tile_size, tile_size): True on
          the defect; no other pixel is changed,
        - ``kinds`` : ndarray of str, shape (n_test,): ``"good"``, ``"scratch"``,
          ``"stain"`` or ``"hole"``.

    Raises
    ------
    ValueError
        If `name` is unknown, or if a size, number or share is out of its range.

    Examples
    --------
    >>> surfaces = load_surfaces("gravel", tile_size=64, n_train=10, n_test=6)
    >>> surfaces.train.shape, surfaces.train.dtype
    ((10, 64, 64), dtype('uint8'))
    >>> (surfaces.y_test == -1).sum()
    np.int64(3)
    """
    if name not in SURFACES:
        raise ValueError(f"name must be one of {', '.join(SURFACES)}; got {name!r}.")
    photograph = np.asarray(getattr(data, name)())  # (512, 512) uint8
    largest = min(photograph.shape) // 3  # a tile lies in one third
    if check_whole("tile_size", tile_size, _SMALLEST_TILE) > largest:
        raise ValueError(f"tile_size must be at most {largest}; got {tile_size}.")
    numbers = {"n_train": n_train, "n_test": n_test, "n_calibration": n_calibration}
    for label, number in numbers.items():
        check_whole(label, number, 0 if label == "n_calibration" else 1)
    if not 0 <= as_float(defect_fraction) <= 1:
        raise ValueError(
            f"defect_fraction must be a number from 0 to 1; got {defect_fraction!r}."
        )
    rng = np.random.default_rng(random_state)
    # Brick's perspective turns from left to right: test tiles lie between the others.
    height, width = photograph.shape
    left, right = width // 3, width - width // 3
    sides, middle = [(0, left), (right, width)], [(left, right)]
    lowest = photograph[height - height // 3 :]
    upper = photograph[: height - len(lowest)] if n_calibration else photograph
    train = _cut(photograph, sides, tile_size, n_train, rng)
    test = _cut(upper, middle, tile_size, n_test, rng)
    calibration = _cut(lowest, middle, tile_size, n_calibration, rng)
    kinds = _draw_kinds(n_test, round(n_test * defect_fraction), rng)
    masks = np.zeros(test.shape, bool)
    for i in np.flatnonzero(kinds != "good"):
        test[i], masks[i] = _plant(test[i], kinds[i], rng)
    return Bunch(
        train=train,
        test=test,
        calibration=calibration,
        y_test=np.where(kinds == "good", 1, -1),
        masks=masks,
        kinds=kinds,
    )


def _cut(
    photograph: np.ndarray, bands: list[tuple[int, int]], size: int, n: int, rng: Rng
) -> np.ndarray:
    """Cut n different tiles, each inside one band (first column, end) of columns."""
    cols = np.concatenate([np.arange(start, stop - size + 1) for start, stop in bands])
    n_rows = photograph.shape[0] - size + 1
    places = rng.choice(n_rows * len(cols), size=n, replace=False)
    tiles = np.lib.stride_tricks.sliding_window_view(photograph, (size, size))
    return tiles[places // len(cols), cols[places % len(cols)]]


def _draw_kinds(n_test: int, n_defective: int, rng: Rng) -> np.ndarray:
    """Return an (n_test,) array of kinds, shuffled; each defect about equally often."""
    defects = np.resize(rng.permutation(list(_DEFECTS)), n_defective)
    good = np.full(n_test - n_defective, "good")
    return rng.permutation(np.concatenate([defects, good]))


def _plant(tile: Tile, kind: str, rng: Rng) -> tuple[Tile, np.ndarray]:
    """Return a tile with one defect that a person could see, and its mask."""
    while True:
        opacity, paint = _DEFECTS[kind](tile, rng)
        mask = opacity >= _LEAST_OPACITY
        change = np.where(mask, np.rint(opacity * (paint - tile)), 0)
        if mask.any() and np.abs(change[mask]).mean() >= _LEAST_CHANGE:
            return (tile + change).astype(np.uint8), mask


# Lengths and radii of defects are shares of the tile's side.


def _scratch(tile: Tile, rng: Rng) -> Defect:
    """Draw a dark straight line."""
    length = rng.uniform(0.3, 0.6) * len(tile)
    half_width = max(0.75, rng.uniform(0.01, 0.02) * len(tile))
    rows, cols = _offsets(len(tile), rng)
    angle = rng.uniform(0, np.pi)
    along = np.cos(angle) * cols + np.sin(angle) * rows
    across = np.cos(angle) * rows - np.sin(angle) * cols
    distance = np.hypot(np.maximum(np.abs(along) - length / 2, 0), across)
    opacity = np.clip(half_width + 0.5 - distance, 0, 1)
    return opacity, np.full(tile.shape, rng.uniform(5, 25))


def _stain(tile: Tile, rng: Rng) -> Defect:
    """Tint a blob towards black or white; the texture still shows through."""
    depth, _ = _blob(len(tile), 1 / 12, 1 / 6, rng)
    tint = rng.choice([0.0, 255.0])
    paint = tint + rng.uniform(0.35, 0.55) * (tile - tint)
    return np.clip(depth / max(2, len(tile) / 32), 0, 1), paint


def _hole(tile: Tile, rng: Rng) -> Defect:
    """Sink a dark pit with a bright rim."""
    depth, radius = _blob(len(tile), 1 / 20, 1 / 10, rng)
    bottom, rim = rng.uniform(5, 20), rng.uniform(205, 235)
    return np.clip(depth + 0.5, 0, 1), np.where(depth > max(1, radius / 5), bottom, rim)


def _offsets(size: int, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns (size, size) from a point near the middle of a tile."""
    row, col = rng.uniform(0.3, 0.7, size=2) * size
    rows, cols = np.mgrid[:size, :size]
    return rows - row, cols - col


def _blob(size: int, least: float, most: float, rng: Rng) -> tuple[np.ndarray, float]:
    """Draw a rounded shape: pixels inward from its edge (size, size); mean radius."""
    radius = rng.uniform(least, most) * size
    rows, cols = _offsets(size, rng)
    angle = np.arctan2(rows, cols)
    edge = np.ones((size, size))
    for waves, strength in ((2, 0.2), (3, 0.1), (4, 0.05)):
        phase = rng.uniform(0, 2 * np.pi)
        edge += rng.uniform(0, strength) * np.cos(waves * angle + phase)
    return radius * edge - np.hypot(rows, cols), radius


_DEFECTS: dict[str, Callable[[Tile, Rng], Defect]] = {
    "scratch": _scratch,
    "stain": _stain,
    "hole": _hole,
}
