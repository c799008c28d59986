"""Real surfaces from scikit-image's photographs, with planted defects.

Imports `common`.
"""

from collections.abc import Callable
from numbers import Real

import numpy as np
from skimage import data
from sklearn.utils import Bunch

from skad.common.checks import check_whole

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

    The photographs come with scikit-image; nothing is downloaded. Training tiles are
    cut from the left and the right third of the photograph, test and calibration tiles
    from its middle third: tiles of different sets share no pixel. Tiles of one set
    overlap. So training tiles that are held out are not new to the network, and a
    threshold from them is too low; use calibration tiles for `calibrate`.

    Each defect is one of five kinds. With ``t = tile_size``, sizes in pixels are:

    - ``"scratch"``: a dark crack, 0.3 t to 0.6 t long and t/50 to t/25 wide, at
      least 2,
    - ``"stain"``: a smooth dark or bright tint of mean radius t/12 to t/6,
    - ``"hole"``: a dark pit with a bright rim, of mean radius t/20 to t/10,
    - ``"smear"``: a dark blur along a line t/5 long, of mean radius t/10 to t/6,
    - ``"foreign"``: a piece of another photograph, of mean radius t/12 to t/6.

    Parameters
    ----------
    name : {"brick", "grass", "gravel"}, default="brick"
        The surface; `SURFACES` has all names.
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
        - ``train`` : ndarray of uint8, shape (n_train, tile_size, tile_size),
        - ``test`` : ndarray of uint8, shape (n_test, tile_size, tile_size),
        - ``calibration`` : ndarray of uint8, shape (n_calibration, tile_size,
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
    if not (isinstance(defect_fraction, Real) and 0 <= defect_fraction <= 1):
        raise ValueError(
            f"defect_fraction must be a number from 0 to 1; got {defect_fraction!r}."
        )
    if isinstance(random_state, np.random.RandomState):
        random_state = random_state.randint(2**31, size=4)
    rng = np.random.default_rng(random_state)

    train, clean, calibration = _cut_apart(photograph, tile_size, numbers, rng)
    kinds = _draw_kinds(n_test, round(n_test * defect_fraction), rng)
    others = [_photograph(other) for other in _FOREIGN_TO[name]]
    test = np.stack(
        [
            tile if kind == "good" else _plant(tile, kind, others, rng)
            for tile, kind in zip(clean, kinds, strict=True)
        ]
    )
    y_test = np.where(kinds == "good", 1, -1)
    description = _DESCR.format(
        name=name,
        tile_size=tile_size,
        source=_SOURCES[name],
        n_defective=(y_test == -1).sum(),
        kinds=", ".join(_DEFECTS),
        **numbers,
    )
    return Bunch(
        train=train,
        test=test,
        calibration=calibration,
        y_test=y_test,
        masks=test != clean,
        kinds=kinds,
        DESCR=description,
    )


def _photograph(name: str) -> np.ndarray:
    """Return a photograph of scikit-image's, (512, 512) uint8."""
    return np.asarray(getattr(data, name)())


def _cut_apart(
    photograph: np.ndarray, tile_size: int, numbers: dict[str, int], rng: Rng
) -> list[np.ndarray]:
    """Cut tiles for training, test and calibration, without a common pixel.

    Test tiles come from the middle: brick's perspective turns from left to right, so
    they lie between what training has seen.
    """
    height, width = photograph.shape
    left, right = width // 3, width - width // 3
    below = height - height // 3
    outer, middle = [(0, left), (right, width)], [(left, right)]
    upper = photograph[:below] if numbers["n_calibration"] else photograph
    places = [(photograph, outer), (upper, middle), (photograph[below:], middle)]
    return [
        _cut(*place, tile_size, n_tiles, rng)
        for place, n_tiles in zip(places, numbers.values(), strict=True)
    ]


def _cut(
    photograph: np.ndarray,
    bands: list[tuple[int, int]],
    tile_size: int,
    n_tiles: int,
    rng: Rng,
) -> np.ndarray:
    """Cut different tiles, each inside one band (first column, end) of columns."""
    cols = np.concatenate(
        [np.arange(start, stop - tile_size + 1) for start, stop in bands]
    )
    n_rows = photograph.shape[0] - tile_size + 1
    places = rng.choice(n_rows * len(cols), size=n_tiles, replace=False)
    tiles = np.lib.stride_tricks.sliding_window_view(photograph, (tile_size,) * 2)
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


def _scratch(tile: Tile, others: list[Tile], rng: Rng) -> Defect:
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


def _stain(tile: Tile, others: list[Tile], rng: Rng) -> Defect:
    """Tint a blob towards black or white; the texture still shows through."""
    size = len(tile)
    depth = _blob(size, rng.uniform(1 / 12, 1 / 6) * size, rng)
    tint = rng.choice([0.0, 255.0])
    paint = tint + rng.uniform(0.35, 0.55) * (tile - tint)
    return np.clip(depth / max(2, size / 32), 0, 1), paint


def _hole(tile: Tile, others: list[Tile], rng: Rng) -> Defect:
    """Sink a dark pit with a bright rim."""
    size = len(tile)
    radius = rng.uniform(1 / 20, 1 / 10) * size
    depth = _blob(size, radius, rng)
    bottom, rim = rng.uniform(5, 20), rng.uniform(205, 235)
    rim_width = max(1, radius / 5)
    return np.clip(depth + 0.5, 0, 1), np.where(depth > rim_width, bottom, rim)


def _smear(tile: Tile, others: list[Tile], rng: Rng) -> Defect:
    """Blur a blob along one direction and darken it, like a greasy wipe."""
    size = len(tile)
    depth = _blob(size, rng.uniform(1 / 10, 1 / 6) * size, rng)
    heading = rng.uniform(0, np.pi)
    offsets = np.arange(-(size // 10), size // 10 + 1)[:, None]  # (k, 1)
    at = np.arange(size)
    rows = np.clip(at + np.rint(offsets * np.sin(heading)).astype(int), 0, size - 1)
    cols = np.clip(at + np.rint(offsets * np.cos(heading)).astype(int), 0, size - 1)
    blurred = tile[rows[:, :, None], cols[:, None, :]].mean(axis=0)  # (H, W)
    return np.clip(depth / 2, 0, 1), rng.uniform(0.6, 0.7) * blurred


def _foreign(tile: Tile, others: list[Tile], rng: Rng) -> Defect:
    """Lay in a piece of another photograph."""
    size = len(tile)
    depth = _blob(size, rng.uniform(1 / 12, 1 / 6) * size, rng)
    other = others[rng.integers(len(others))]
    row, col = rng.integers(np.array(other.shape) - size + 1)
    return np.clip(depth + 0.5, 0, 1), other[row : row + size, col : col + size]


def _centre(size: int, rng: Rng) -> np.ndarray:
    """Draw a (row, column) near the middle, so that a defect stays in its tile."""
    return rng.uniform(0.3, 0.7, size=2) * size


def _blob(size: int, radius: float, rng: Rng) -> np.ndarray:
    """Draw a rounded shape; (size, size), pixels inward from its edge (< 0 outside)."""
    rows, cols = np.mgrid[:size, :size]
    row, col = _centre(size, rng)
    angle = np.arctan2(rows - row, cols - col)
    edge = np.ones((size, size))
    for waves, strength in ((2, 0.2), (3, 0.1), (4, 0.05)):
        phase = rng.uniform(0, 2 * np.pi)
        edge += rng.uniform(0, strength) * np.cos(waves * angle + phase)
    return radius * edge - np.hypot(rows - row, cols - col)


_DEFECTS: dict[str, Callable[[Tile, list[Tile], Rng], Defect]] = {
    "scratch": _scratch,
    "stain": _stain,
    "hole": _hole,
    "smear": _smear,
    "foreign": _foreign,
}
