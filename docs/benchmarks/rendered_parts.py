"""Render tiles, cells, transistors and pills, good and bad: python THIS_FILE OUTPUT.

Writes four categories in MVTec AD layout to OUTPUT, for kinds of inspection without
real images. Real images are harder.

- `rendered_tiles`: a streaky surface under light that differs from image to image.
  Faint cracks, holes, frayed places.
- `rendered_cells`: grains of any shape and shade under a grid of lines. Dark breaks,
  cracks, short dark pieces between two lines.
- `rendered_transistors`: a part with three legs in one pose before a board. Rotated or
  shifted parts, a leg cut or bent, a worn spot, no part at all.
- `rendered_pills`: a speckled pill with a print, in about one pose. Scratches, cracks,
  chips, stains, specks of another colour, a missing stroke of the print.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rendered_screws import Map, write_category
from scipy.ndimage import distance_transform_edt, gaussian_filter
from skimage.draw import polygon

SIDE = 192  # pixels, of an image
NUMBERS = 120, 40, 45
ROWS, COLUMNS = np.mgrid[:SIDE, :SIDE].astype(float)
CHANGED = 0.3  # of a pixel that counts as defective
BARS = 40, 96, 152  # rows
BODY = ((50, 62), (50, 130), (110, 130), (110, 62))  # corners (row, column)
LEGS = 72, 96, 120  # columns
LEG_TOP, LEG_END = 105, 156  # rows
PILL = 50, 78  # half its height and width
PRINT = tuple(  # strokes of two letters: (top, left, bottom, right)
    (top, left + column, bottom, right + column)
    for column in (66, 100)
    for top, left, bottom, right in (
        (74, 0, 118, 6),
        (74, 6, 80, 26),
        (92, 6, 98, 20),
    )
)
SILVER, BLACK = np.array([0.75, 0.75, 0.78]), np.array([0.13, 0.13, 0.137])

Drawn = tuple[NDArray, NDArray]  # an image, uint8, and the mask of its defect, bool


def tile(defect: str | None, rng: np.random.Generator) -> Drawn:
    """Draw a surface."""
    x, y = COLUMNS / SIDE - 0.5, ROWS / SIDE - 0.5
    slope, corners = rng.uniform(-0.7, 0.7, 2), rng.uniform(0, 1)
    light = 1 + slope[0] * x + slope[1] * y - corners * (x**2 + y**2)
    streaks = 0.06 * rng.uniform(0.6, 1.4) * _noise((3, 0.7), rng)
    image = rng.uniform(0.3, 0.65) * light * (1 + streaks + 0.04 * _noise(12, rng))
    where = np.zeros_like(image)
    if defect == "crack":
        where = _crack(rng.integers(15, 45), 0.3, rng.uniform(1, 2.2), rng)
        image *= 1 - rng.uniform(0.15, 0.4) * where
    elif defect == "hole":
        where = _spot(rng.uniform(2, 5), rng)
        image *= 1 - rng.uniform(0.25, 0.6) * where
    elif defect == "fray":
        where = _spot(rng.uniform(8, 20), rng)
        image *= 1 + where * (0.06 * _noise(1.5, rng) + rng.uniform(0.05, 0.15))
    return _finish(image + rng.normal(0, 0.008, image.shape), where)


def cell(defect: str | None, rng: np.random.Generator) -> Drawn:
    """Draw grains under a grid."""
    grains = rng.uniform(0, SIDE, (60, 2))
    far = np.hypot(ROWS[..., None] - grains[:, 0], COLUMNS[..., None] - grains[:, 1])
    image = gaussian_filter(rng.uniform(0.5, 0.68, len(grains))[far.argmin(2)], 1.0)
    image += 0.01 * _noise(5, rng)
    first = rng.integers(6)
    image[:, first::6] *= 0.93
    bars = [bar + rng.integers(-2, 3) for bar in BARS]
    where = np.zeros_like(image)
    if defect == "break":
        edges, i = [0, *bars, SIDE], rng.integers(4)
        left, width = rng.integers(SIDE - 30), rng.integers(8, 30)
        where[edges[i] : edges[i + 1], left : left + width] = 1
        image *= 1 - rng.uniform(0.15, 0.5) * where
    elif defect == "crack":
        where = _crack(rng.integers(20, 60), 0.15, rng.uniform(1, 2.5), rng)
        image *= 1 - rng.uniform(0.3, 0.6) * where
    elif defect == "line":
        top, left = rng.integers(10, SIDE - 60), first + 6 * rng.integers(30)
        where[top : top + rng.integers(20, 50), left : left + 6] = 1
        image *= 1 - rng.uniform(0.15, 0.35) * where
    for bar in bars:
        image[bar - 2 : bar + 2] = 0.85
    corners = (ROWS / SIDE - 0.5) ** 2 + (COLUMNS / SIDE - 0.5) ** 2
    image *= rng.uniform(0.8, 1.1) * (1 - rng.uniform(0, 0.4) * corners)
    return _finish(image + rng.normal(0, 0.012, image.shape), where)


def transistor(defect: str | None, rng: np.random.Generator) -> Drawn:
    """Draw a part with three legs, which usually lies in one pose."""
    usual = rng.normal(0, 0.8), *rng.normal(0, 1.2, 2)  # degrees, pixels down and right
    pose = usual
    if defect == "misplaced":
        turn = rng.choice([-1, 1]) * rng.uniform(15, 40)
        pose = (usual[0] + turn, *(usual[1:] + rng.uniform(-18, 18, 2)))
    good = [_leg(column) for column in LEGS]
    legs, i = list(good), rng.integers(3)
    if defect == "cut":
        legs[i] = _leg(LEGS[i], end=rng.uniform(112, 135))
    elif defect == "bent":
        legs[i] = _leg(LEGS[i], bend=rng.choice([-1, 1]) * rng.uniform(8, 14))

    image = _board() * (1 + rng.normal(0, 0.04) + 0.03 * _noise(8, rng)[..., None])
    shown = np.zeros((SIDE, SIDE))
    if defect != "absent":
        for leg in legs:
            here = _shape(leg, pose)[..., None]
            image += here * (SILVER * (1 + rng.normal(0, 0.1)) - image)
            shown = np.maximum(shown, here[..., 0])
        body = _shape(BODY, pose)
        shown = np.maximum(shown, body)
        grain = 0.015 * _noise(1, rng)
        image += body[..., None] * (BLACK + grain[..., None] - image)
    expected = np.max([_shape(outline, usual) for outline in (*good, BODY)], 0)
    where = np.abs(expected - shown)
    if defect == "misplaced":
        where = np.maximum(expected, shown)
    elif defect == "worn":
        u, v = ROWS - rng.uniform(58, 102), COLUMNS - rng.uniform(70, 122)
        where = _within(np.hypot(u, v * rng.uniform(0.6, 1.6)), rng.uniform(3, 8))
        image += where[..., None] * (0.13 + rng.uniform(0.06, 0.2) - image)
    noise = rng.normal(0, 0.012, (SIDE, SIDE, 1))
    return _finish(image * (1 + rng.normal(0, 0.03)) + noise, where)


def pill(defect: str | None, rng: np.random.Generator) -> Drawn:
    """Draw a pill, which usually lies in one pose, on a dark ground."""
    turn, (down, right) = np.deg2rad(rng.normal(0, 1.0)), rng.normal(0, 1.0, 2)
    y, x = ROWS - SIDE / 2 - down, COLUMNS - SIDE / 2 - right
    u, v = np.cos(turn) * y - np.sin(turn) * x, np.sin(turn) * y + np.cos(turn) * x
    inward = (1 - np.hypot(u / PILL[0], v / PILL[1])) * PILL[0]  # about pixels
    chip = np.zeros((SIDE, SIDE))
    angle = rng.uniform(0, 2 * np.pi)
    edge = PILL[0] * np.sin(angle), PILL[1] * np.cos(angle)
    if defect == "chip":
        chip = _within(np.hypot(u - edge[0], v - edge[1]), rng.uniform(4, 9))

    surface = np.array([0.86, 0.84, 0.78]) * (1 + 0.015 * _noise(1.5, rng)[..., None])
    for _ in range(rng.poisson(80)):
        at = np.hypot(u - rng.uniform(-50, 50), v - rng.uniform(-78, 78))
        red = np.array([0.75, 0.35, 0.25]) * rng.uniform(0.8, 1.2)
        speck = rng.uniform(0.2, 0.8) * _within(at, rng.uniform(0.5, 1.8))[..., None]
        surface += speck * (red - surface)
    missing = rng.integers(len(PRINT)) if defect == "print" else None
    there = [stroke for i, stroke in enumerate(PRINT) if i != missing]
    printed, expected = _strokes(there, u, v), _strokes(PRINT, u, v)
    surface *= 1 - 0.35 * printed[..., None]
    where = np.maximum(chip * (inward > 0), expected - printed)

    spot = rng.uniform(-0.6, 0.6, 2) * PILL
    at = np.hypot(u - spot[0], v - spot[1])
    if defect == "scratch":
        where = _crack(rng.integers(8, 30), 0.08, rng.uniform(1, 2), rng, spot)
        surface += rng.choice([-1, 1]) * rng.uniform(0.06, 0.2) * where[..., None]
    elif defect == "crack":
        where = _crack(rng.integers(8, 20), 0.25, rng.uniform(1, 2), rng, edge)
        surface *= 1 - rng.uniform(0.3, 0.6) * where[..., None]
    elif defect == "stain":
        where = _within(at * (1 + 0.03 * _noise(6, rng)), rng.uniform(5, 12))
        surface *= 1 - where[..., None] * np.array([0.02, 0.05, 0.2])
    elif defect == "speck":
        where = _within(at, rng.uniform(1.5, 3.5))
        colour = rng.choice([[0.2, 0.2, 0.2], [0.3, 0.5, 0.35], [0.35, 0.35, 0.6]])
        surface += rng.uniform(0.5, 0.9) * where[..., None] * (colour - surface)

    inside = _within(-inward, 0.0)
    surface *= (0.55 + 0.45 * (inward / 18).clip(0, 1))[..., None]  # a round rim
    shown = (inside * (1 - chip))[..., None]
    image = 0.06 + shown * (surface * (1 + rng.normal(0, 0.02)) - 0.06)
    noise = rng.normal(0, 0.01, (SIDE, SIDE, 1))
    return _finish(image + noise, where * inside)


def _noise(grain: float | tuple[float, float], rng: np.random.Generator) -> Map:
    noise = gaussian_filter(rng.normal(size=(SIDE, SIDE)), grain)
    return noise / noise.std()


def _within(distance: Map, radius: float | Map) -> Map:
    """Return 1 within a distance, 0 beyond it, with a rim of about a pixel."""
    return 1 / (1 + np.exp(2 * (distance - radius).clip(-20, 20)))


def _strokes(strokes: Sequence[tuple[int, ...]], u: Map, v: Map) -> Map:
    """Draw strokes of a print, where places of the part are u down and v right."""
    drawn = np.zeros((SIDE, SIDE))
    for top, left, bottom, right in strokes:
        beyond = np.maximum(
            np.abs(u + SIDE / 2 - (top + bottom) / 2) - (bottom - top) / 2,
            np.abs(v + SIDE / 2 - (left + right) / 2) - (right - left) / 2,
        )
        drawn = np.maximum(drawn, _within(beyond, 0.0))
    return drawn


def _crack(
    n: int,
    bend: float,
    width: float,
    rng: np.random.Generator,
    start: Sequence[float] | None = None,
) -> Map:
    """Draw a random walk of n steps of two pixels, from a place off the middle."""
    heading = rng.uniform(0, 2 * np.pi) + rng.normal(0, bend, n).cumsum()
    steps = 0.5 * np.stack([np.sin(heading), np.cos(heading)], 1).repeat(4, axis=0)
    if start is None:
        start = rng.uniform(30 - SIDE / 2, SIDE / 2 - 30, 2)
    way = SIDE / 2 + np.array(start) + steps.cumsum(0)
    beside = np.ones((SIDE, SIDE), bool)
    beside[tuple(way.round().astype(int).clip(0, SIDE - 1).T)] = False
    return _within(distance_transform_edt(beside), width / 2)


def _spot(radius: float, rng: np.random.Generator) -> Map:
    """Draw a spot with a wavy rim."""
    u, v = ROWS - rng.uniform(25, SIDE - 25), COLUMNS - rng.uniform(25, SIDE - 25)
    angle, phase = np.arctan2(u, v), rng.uniform(0, 2 * np.pi, 2)
    wave = 0.25 * np.sin(3 * angle + phase[0]) + 0.15 * np.sin(5 * angle + phase[1])
    return _within(np.hypot(u, v), radius * (1 + wave))


def _board() -> Map:
    """Return the same board for every image: (SIDE, SIDE, 3)."""
    grain = 0.05 * _noise((1, 4), np.random.default_rng(7))
    board = np.array([0.75, 0.55, 0.35]) * (1 + grain[..., None])
    holes = np.hypot((ROWS % 24) - 12, (COLUMNS % 24) - 12) < 4
    board[holes] = 0.12
    return board


def _leg(column: int, end: float = LEG_END, bend: float = 0.0) -> tuple:
    top, sides = LEG_TOP, (column - 3, column + 3)
    low = [(end, side + bend) for side in reversed(sides)]
    return (*((top, side) for side in sides), *low)


def _shape(outline: tuple, pose: tuple[float, ...]) -> Map:
    """Fill a polygon that is turned about the middle and shifted."""
    turn, down, right = np.deg2rad(pose[0]), *pose[1:]
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    corners = (np.array(outline) - SIDE / 2) @ rotation + SIDE / 2 + [down, right]
    filled = np.zeros((SIDE, SIDE))
    filled[polygon(*corners.T, filled.shape)] = 1
    return gaussian_filter(filled, 0.7)


def _finish(image: Map, where: Map) -> Drawn:
    return (image.clip(0, 1) * 255).round().astype(np.uint8), where > CHANGED


def main() -> None:
    """Write the categories."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, metavar="OUTPUT")
    output = parser.parse_args().output
    kinds = ("misplaced", "cut", "bent", "worn", "absent")
    on_pills = ("scratch", "crack", "chip", "stain", "speck", "print")
    for name, draw, defects in (
        ("rendered_tiles", tile, ("crack", "hole", "fray")),
        ("rendered_cells", cell, ("break", "crack", "line")),
        ("rendered_transistors", transistor, kinds),
        ("rendered_pills", pill, on_pills),
    ):
        write_category(output / name, draw, defects, NUMBERS)


if __name__ == "__main__":
    main()
