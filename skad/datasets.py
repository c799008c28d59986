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

_SOURCES = {
    "brick": "CC0Textures, https://cc0textures.com/view.php?tex=Bricks25",
    "grass": "DeviantArt, https://www.deviantart.com/linolafett/art/Grass-01-434853879",
    "gravel": "CC0Textures, https://cc0textures.com/view.php?tex=Gravel04",
}
SURFACES = tuple(_SOURCES)

# Grass in gravel, and gravel in grass, is too well hidden to be a fair test.
_FOREIGN_TO = {"brick": ("grass", "gravel"), "grass": ("brick",), "gravel": ("brick",)}

_SMALLEST_TILE = 32  # pixels; below it a scratch would be thinner than a pixel
_LEAST_OPACITY = 0.25  # of a defect: less would widen its mask beyond what one sees
_LEAST_CHANGE = 4  # gray levels, for each pixel of a defect: no pinholes in its mask
_LEAST_MEAN_CHANGE = 20  # gray levels, mean over a defect, so that a person sees it

_DESCR = """\
Surface {name!r}: tiles of {tile_size} x {tile_size} pixels, with planted defects

Photograph: skimage.data.{name}(), 8-bit gray, as shipped inside scikit-image.
Original: {source}. Licence of the photograph: Creative Commons CC0.

train   {n_train} good tiles from the left and the right third of the photograph
test    {n_test} tiles from its middle third, {n_defective} of them with one planted
        defect each: {kinds}
calibration
        {n_calibration} good tiles from the lowest part of the middle third
y_test  +1 good, -1 anomalous
masks   True on exactly the pixels that the defect changed

Tiles of one set overlap each other; tiles of different sets share no pixel. The
defects are drawn, not photographed: figures obtained here say that a detector
works, not how well it does on a real production line.
"""


def load_surfaces(
    name: str = "brick",
    *,
    tile_size: int = 128,
    n_train: int = 60,
    n_test: int = 40,
    n_calibration: int = 0,
    defect_fraction: float = 0.5,
    random_state: int | Rng | np.random.RandomState | None = 0,
) -> Bunch:
    """Load tiles of a photographed surface, some of them with a planted defect.

    Nothing is downloaded. Tiles of different sets share no pixel; those of one set
    overlap. So training tiles that are held out are not new to the network, and a
    threshold from them is too low; use calibration tiles for `calibrate`.

    A defect is a dark ``"scratch"``, a dark or bright ``"stain"``, a ``"hole"`` with a
    bright rim, a ``"smear"`` or a ``"foreign"`` piece of another photograph. It is a
    tenth to a third of a tile wide; a scratch is up to 0.6 of a tile long.

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
    random_state : int, Generator, RandomState or None, default=0
        The only source of randomness: equal ints give equal tiles.

    Returns
    -------
    surfaces : sklearn.utils.Bunch
        - ``train``, ``test``, ``calibration`` : ndarray of uint8, shape (n, tile_size,
          tile_size),
        - ``y_test`` : ndarray of int, shape (n_test,): +1 good, -1 anomalous,
        - ``masks`` : ndarray of bool, shape (n_test, tile_size, tile_size): True on
          exactly the pixels that the defect changed, each by 4 gray levels or more,
        - ``kinds`` : ndarray of str, shape (n_test,): ``"good"`` or the defect's kind,
        - ``DESCR`` : str: what the tiles are, with source and licence.

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
    photograph = _photograph(name)
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
    if isinstance(random_state, np.random.RandomState):
        rng = np.random.default_rng(random_state.randint(2**31, size=4))
    else:
        rng = np.random.default_rng(random_state)
    # Brick's perspective turns from left to right: test tiles lie between the others.
    height, width = photograph.shape
    left, right = width // 3, width - width // 3
    sides, middle = [(0, left), (right, width)], [(left, right)]
    lowest = photograph[height - height // 3 :]
    upper = photograph[: height - len(lowest)] if n_calibration else photograph
    train = _cut(photograph, sides, tile_size, n_train, rng)
    clean = _cut(upper, middle, tile_size, n_test, rng)
    calibration = _cut(lowest, middle, tile_size, n_calibration, rng)
    kinds = _draw_kinds(n_test, round(n_test * defect_fraction), rng)
    others = [_photograph(other) for other in _FOREIGN_TO[name]]
    test = clean.copy()
    for i in np.flatnonzero(kinds != "good"):
        test[i] = _plant(clean[i], kinds[i], others, rng)
    description = _DESCR.format(
        name=name,
        tile_size=tile_size,
        source=_SOURCES[name],
        n_defective=(kinds != "good").sum(),
        kinds=", ".join(_DEFECTS),
        **numbers,
    )
    return Bunch(
        train=train,
        test=test,
        calibration=calibration,
        y_test=np.where(kinds == "good", 1, -1),
        masks=test != clean,
        kinds=kinds,
        DESCR=description,
    )


def _photograph(name: str) -> np.ndarray:
    """Return a photograph of scikit-image's, (512, 512) uint8."""
    return np.asarray(getattr(data, name)())


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


def _plant(tile: Tile, kind: str, others: list[Tile], rng: Rng) -> Tile:
    """Return a tile with one defect, drawn anew until a person could see it."""
    ground = tile.astype(float)
    nudge = np.where(tile < 128, _LEAST_CHANGE, -_LEAST_CHANGE)
    while True:
        opacity, paint = _DEFECTS[kind](tile, others, rng)
        change = np.rint(opacity * (paint - ground))
        change = np.where(np.abs(change) < _LEAST_CHANGE, nudge, change)
        touched = opacity >= _LEAST_OPACITY
        if touched.any() and np.abs(change[touched]).mean() >= _LEAST_MEAN_CHANGE:
            return np.where(touched, ground + change, ground).astype(np.uint8)


# Lengths and radii of defects are shares of the tile's side.


def _scratch(tile: Tile, others: list[Tile], rng: Rng) -> Defect:
    """Draw a dark crack: a line of five pieces that turns a little at each joint."""
    size = len(tile)
    length = rng.uniform(0.3, 0.6) * size
    half_width = max(0.75, rng.uniform(0.01, 0.02) * size)
    headings = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.35, size=5))
    steps = length / 5 * np.stack([np.sin(headings), np.cos(headings)], axis=1)
    corners = np.vstack([np.zeros(2), np.cumsum(steps, axis=0)])
    corners += _centre(size, rng) - corners.mean(axis=0)

    pixels = np.moveaxis(np.mgrid[:size, :size], 0, -1)  # H, W, 2
    distance = np.full(tile.shape, np.inf)
    for start, step in zip(corners[:-1], steps, strict=True):
        along = np.clip((pixels - start) @ step / (step @ step), 0, 1)  # H, W
        nearest = start + along[..., None] * step  # H, W, 2
        distance = np.minimum(distance, np.linalg.norm(pixels - nearest, axis=-1))
    opacity = np.clip(half_width + 0.5 - distance, 0, 1)
    return opacity, np.full(tile.shape, rng.uniform(5, 25))


def _stain(tile: Tile, others: list[Tile], rng: Rng) -> Defect:
    """Tint a blob towards black or white; the texture still shows through."""
    depth, _ = _blob(len(tile), 1 / 12, 1 / 6, rng)
    tint = rng.choice([0.0, 255.0])
    paint = tint + rng.uniform(0.35, 0.55) * (tile - tint)
    return np.clip(depth / max(2, len(tile) / 32), 0, 1), paint


def _hole(tile: Tile, others: list[Tile], rng: Rng) -> Defect:
    """Sink a dark pit with a bright rim."""
    depth, radius = _blob(len(tile), 1 / 20, 1 / 10, rng)
    bottom, rim = rng.uniform(5, 20), rng.uniform(205, 235)
    return np.clip(depth + 0.5, 0, 1), np.where(depth > max(1, radius / 5), bottom, rim)


def _smear(tile: Tile, others: list[Tile], rng: Rng) -> Defect:
    """Blur a blob along one direction and darken it, like a greasy wipe."""
    size = len(tile)
    depth, _ = _blob(size, 1 / 10, 1 / 6, rng)
    heading = rng.uniform(0, np.pi)
    offsets = np.arange(-(size // 10), size // 10 + 1)[:, None]  # k, 1
    rows, cols = (  # k, size
        np.clip(np.arange(size) + np.rint(offsets * step).astype(int), 0, size - 1)
        for step in (np.sin(heading), np.cos(heading))
    )
    blurred = tile[rows[:, :, None], cols[:, None, :]].mean(axis=0)  # H, W
    return np.clip(depth / 2, 0, 1), rng.uniform(0.6, 0.7) * blurred


def _foreign(tile: Tile, others: list[Tile], rng: Rng) -> Defect:
    """Lay in a piece of another photograph."""
    size = len(tile)
    depth, _ = _blob(size, 1 / 12, 1 / 6, rng)
    other = others[rng.integers(len(others))]
    row, col = rng.integers(np.array(other.shape) - size + 1)
    return np.clip(depth + 0.5, 0, 1), other[row : row + size, col : col + size]


def _centre(size: int, rng: Rng) -> np.ndarray:
    """Draw a (row, column) near the middle, so that a defect stays in its tile."""
    return rng.uniform(0.3, 0.7, size=2) * size


def _blob(size: int, least: float, most: float, rng: Rng) -> tuple[np.ndarray, float]:
    """Draw a rounded shape: pixels inward from its edge (size, size); mean radius."""
    radius = rng.uniform(least, most) * size
    rows, cols = np.mgrid[:size, :size]
    row, col = _centre(size, rng)
    angle = np.arctan2(rows - row, cols - col)
    edge = np.ones((size, size))
    for waves, strength in ((2, 0.2), (3, 0.1), (4, 0.05)):
        phase = rng.uniform(0, 2 * np.pi)
        edge += rng.uniform(0, strength) * np.cos(waves * angle + phase)
    return radius * edge - np.hypot(rows - row, cols - col), radius


_DEFECTS: dict[str, Callable[[Tile, list[Tile], Rng], Defect]] = {
    "scratch": _scratch,
    "stain": _stain,
    "hole": _hole,
    "smear": _smear,
    "foreign": _foreign,
}
