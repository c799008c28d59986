"""Real surfaces from scikit-image's own photographs, with planted defects."""

import numpy as np
from skimage import data
from sklearn.utils import Bunch

from skad.common.checks import as_float, check_whole, is_whole
from skad.datasets.planting import DEFECTS, draw_kinds, plant

_SOURCES = {
    "brick": "CC0Textures, https://cc0textures.com/view.php?tex=Bricks25",
    "grass": "DeviantArt, https://www.deviantart.com/linolafett/art/Grass-01-434853879",
    "gravel": "CC0Textures, https://cc0textures.com/view.php?tex=Gravel04",
}
SURFACES = tuple(_SOURCES)

# Grass in gravel, and gravel in grass, is too well hidden to be a fair test.
_FOREIGN_TO = {"brick": ("grass", "gravel"), "grass": ("brick",), "gravel": ("brick",)}

_SMALLEST_TILE = 32  # pixels; below it a scratch would be thinner than a pixel

_DESCR = """\
Surface {name!r}: tiles of {tile_size} x {tile_size} pixels, with planted defects

Photograph: skimage.data.{name}(), {height} x {width} pixels, 8-bit gray, as shipped
inside scikit-image. Original: {source}.
Licence of the photograph: Creative Commons CC0.

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
    random_state: int | np.random.Generator | np.random.RandomState | None = 0,
) -> Bunch:
    """Load tiles of a photographed surface, some of them with a planted defect.

    The photographs come inside scikit-image; nothing is downloaded. Training tiles
    are cut from the left and the right third of the photograph, test tiles from
    its middle third, so no test tile shares a pixel with a training tile. Tiles of
    one set do overlap each other: training tiles held out for calibration are not
    quite new to the network, which makes the threshold too low, and test tiles are not
    independent of one another. Calibration tiles, for `calibrate`, are new to it: they
    are cut from the middle third as well, which is divided for them, into an upper
    part for the test and the lowest third of its height.

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
        The surface; all names are in `SURFACES`.
    tile_size : int, default=128
        Height and width of a tile in pixels, from 32 to 170 (a third of the
        photograph's 512 columns).
    n_train : int, default=60
        Number of training tiles, all good.
    n_test : int, default=40
        Number of test tiles, good and anomalous.
    n_calibration : int, default=0
        Number of calibration tiles, all good. With 0, test tiles are cut from the whole
        middle third.
    defect_fraction : float, default=0.5
        Share of the test tiles, in [0, 1], that carry a defect; the number of such
        tiles is rounded to the nearest whole one.
    random_state : int, Generator, RandomState or None, default=0
        The only source of randomness: equal ints give equal tiles. None draws
        fresh tiles each time. The global generators are never touched.

    Returns
    -------
    surfaces : sklearn.utils.Bunch
        With the attributes

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
    >>> from skad.datasets import load_surfaces
    >>> surfaces = load_surfaces("gravel", tile_size=64, n_train=10, n_test=6)
    >>> surfaces.train.shape, surfaces.train.dtype
    ((10, 64, 64), dtype('uint8'))
    >>> (surfaces.y_test == -1).sum()
    np.int64(3)
    >>> surfaces.masks.any(axis=(1, 2)).sum()
    np.int64(3)
    """
    if not isinstance(name, str) or name not in SURFACES:
        raise ValueError(f"name must be one of {', '.join(SURFACES)}; got {name!r}.")
    photograph = _photograph(name)
    numbers = {"n_train": n_train, "n_test": n_test, "n_calibration": n_calibration}
    _check_sizes(min(photograph.shape) // 3, tile_size, numbers, defect_fraction)
    rng = _generator(random_state)

    train, clean, calibration = _cut_apart(photograph, tile_size, numbers, rng)
    kinds = draw_kinds(n_test, round(n_test * defect_fraction), rng)
    others = [_photograph(other) for other in _FOREIGN_TO[name]]
    test = np.stack(
        [
            tile if kind == "good" else plant(tile, kind, others, rng)
            for tile, kind in zip(clean, kinds, strict=True)
        ]
    )
    y_test = np.where(kinds == "good", 1, -1)
    description = _DESCR.format(
        name=name,
        tile_size=tile_size,
        height=photograph.shape[0],
        width=photograph.shape[1],
        source=_SOURCES[name],
        n_train=n_train,
        n_test=n_test,
        n_calibration=n_calibration,
        n_defective=int((y_test == -1).sum()),
        kinds=", ".join(DEFECTS),
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


def _check_sizes(
    largest_tile: int,
    tile_size: int,
    numbers: dict[str, int],
    defect_fraction: float,
) -> None:
    """Raise ValueError for the first argument that is out of its range."""
    if not is_whole(tile_size) or not _SMALLEST_TILE <= tile_size <= largest_tile:
        raise ValueError(
            f"tile_size must be an int from {_SMALLEST_TILE} to {largest_tile} "
            "pixels (training and test tiles come from different thirds of the "
            f"photograph); got {tile_size!r}."
        )
    for label, number in numbers.items():
        check_whole(label, number, 0 if label == "n_calibration" else 1)
    if not 0 <= as_float(defect_fraction) <= 1:
        raise ValueError(
            "defect_fraction must be a number from 0 to 1 (0.5 = half of the test "
            f"tiles); got {defect_fraction!r}."
        )


def _generator(
    random_state: int | np.random.Generator | np.random.RandomState | None,
) -> np.random.Generator:
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(2**31, size=4))
    if (
        random_state is None
        or isinstance(random_state, np.random.Generator)
        or is_whole(random_state, 0)
    ):
        return np.random.default_rng(random_state)
    raise ValueError(
        "random_state must be an int of at least 0, a numpy Generator or "
        f"RandomState, or None; got {random_state!r}."
    )


def _cut_apart(
    photograph: np.ndarray,
    tile_size: int,
    numbers: dict[str, int],
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut tiles for training, test and calibration, without a common pixel.

    Those for training come from the outer thirds, the others from the middle one
    because brick's perspective turns from left to right: what is asked of a detector
    then lies between what it has seen.
    """
    height, width = photograph.shape
    left, right = width // 3, width - width // 3
    outer, middle = [(0, left), (right, width)], [(left, right)]
    below = height - height // 3
    places = {
        "n_train": (photograph, outer),
        "n_test": (
            photograph[:below] if numbers["n_calibration"] else photograph,
            middle,
        ),
        "n_calibration": (photograph[below:], middle),
    }
    train, test, calibration = (
        _cut(*place, tile_size, label, numbers[label], rng)
        for label, place in places.items()
    )
    return train, test, calibration


def _cut(
    photograph: np.ndarray,
    bands: list[tuple[int, int]],
    tile_size: int,
    label: str,
    n_tiles: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Cut `n_tiles` different tiles, each whole inside one band of columns."""
    cols = np.concatenate(
        [np.arange(start, stop - tile_size + 1) for start, stop in bands]
    )
    n_rows = photograph.shape[0] - tile_size + 1
    n_places = n_rows * len(cols)
    if n_tiles > n_places:
        raise ValueError(
            f"{label} must be at most {n_places}, the number of different tiles with "
            f"tile_size={tile_size}; got {n_tiles}. Ask for fewer or smaller tiles."
        )
    places = rng.choice(n_places, size=n_tiles, replace=False)
    rows, cols = places // len(cols), cols[places % len(cols)]
    tiles = np.lib.stride_tricks.sliding_window_view(photograph, (tile_size,) * 2)
    return tiles[rows, cols]
