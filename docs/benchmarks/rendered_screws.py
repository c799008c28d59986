"""Render screws in any rotation, with defects of a few pixels: python THIS_FILE OUTPUT.

Writes the category `rendered_screws` in MVTec AD layout to OUTPUT: gray screws on a
bright ground, each rotated by a random angle, lit from one side, with a random phase of
the thread. Defects: a flattened flank of the thread, a scratch on the neck, a dent in
the head, a worn spot on the thread. Real images are harder, but these show what happens
if the position of a part says nothing about it. Then run `skad benchmark OUTPUT`.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from turned_crops import write

SIDE = 256  # pixels, of an image
HEAD, NECK, LENGTH = 22, 60, 170  # pixels along the screw, from its end
DEFECTS = ("flank", "scratch", "dent", "worn")
NUMBERS = 200, 40, 80  # of good images to train, of good and defective ones to test
LEAST = 6  # pixels of a defect

Map = NDArray[np.float64]
Draw = Callable[[str | None, np.random.Generator], tuple[NDArray, NDArray]]


class Screw(NamedTuple):
    """Where a screw lies, and how it looks, in maps (SIDE, SIDE)."""

    along: Map  # pixels from the head's end
    across: Map  # pixels from the axis
    radius: Map  # of the screw there, in pixels
    shade: Map


def render(defect: str | None, rng: np.random.Generator) -> tuple[NDArray, NDArray]:
    """Draw an image (SIDE, SIDE), uint8, and the mask of its defect."""
    angle = rng.uniform(0, 2 * np.pi)
    along, across = _lie(angle, rng)
    changed = np.zeros((SIDE, SIDE), bool)
    flattened = np.ones((SIDE, SIDE))
    if defect == "flank":
        at, width, side = rng.uniform(70, 140), rng.uniform(4, 8), rng.choice([-1, 1])
        outside = side * across > 4
        flattened -= 0.35 * np.exp(-(((along - at) / width) ** 2)) * outside
        height = side * across
        changed = (np.abs(along - at) < width) & (height > 5) & (height < 13)
    screw = _shape(angle, along, across, flattened, rng)
    inside = np.abs(across) < screw.radius
    shade = screw.shade
    if defect not in (None, "flank"):
        changed, look = _surface_defect(defect, screw, rng)
        changed &= inside
        shade = np.where(changed, look, shade)

    clouds = 0.6 * gaussian_filter(rng.normal(size=shade.shape), 20)
    ground = 0.8 + clouds + rng.normal(0, 0.02)
    image = gaussian_filter(np.where(inside, shade, ground), 0.8)
    image = image * (1 + rng.normal(0, 0.04)) + rng.normal(0, 0.012, image.shape)
    near = gaussian_filter(inside.astype(float), 2) > 0.2
    return (image.clip(0, 1) * 255).round().astype(np.uint8), changed & near


def _lie(angle: float, rng: np.random.Generator) -> tuple[Map, Map]:
    """Place a screw near the middle: coordinates along and across it."""
    x, y = rng.normal(SIDE / 2, 4, 2)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    along = (columns - x) * np.cos(angle) + (rows - y) * np.sin(angle)
    across = (rows - y) * np.cos(angle) - (columns - x) * np.sin(angle)
    return along + LENGTH / 2, across


def _shape(
    angle: float, along: Map, across: Map, flattened: Map, rng: np.random.Generator
) -> Screw:
    head = (along > 0) & (along < HEAD)
    neck = (along >= HEAD) & (along < NECK)
    thread = (along >= NECK) & (along < LENGTH)
    turns = (along + 0.12 * across) / 7 + rng.uniform()
    cap = 24 * np.sqrt((1 - ((along - HEAD) / 26) ** 2).clip(0, 1))
    tip = np.sqrt(((LENGTH - along) / 25).clip(0, 1))
    ridge = (9 + 5 * np.abs(turns % 1 - 0.5)) * tip * flattened
    radius = np.select([head, neck, thread], [cap, 10.0, ridge], 1e-6)

    q = (across / np.maximum(radius, 1e-6)).clip(-1, 1)
    towards = np.sqrt(1 - q**2)  # the viewer
    sideways = 0.6 * -np.sin(angle) * q - 0.5 * np.cos(angle) * q
    wave = np.sin(2 * np.pi * turns)
    slant = 0.075 * (np.cos(angle) - np.sin(angle))
    shade = 0.35 + 0.35 * towards + 0.25 * sideways
    shade += thread * wave * (0.18 * (0.4 + 0.6 * towards) + slant)
    shade += head * 0.12 * np.cos(along / 6)
    return Screw(along, across, radius, shade)


def _surface_defect(
    defect: str, screw: Screw, rng: np.random.Generator
) -> tuple[NDArray, Map]:
    """Return where a defect lies, and the shade that it has there."""
    if defect == "scratch":
        u = screw.along - rng.uniform(HEAD + 4, NECK - 4)
        v = screw.across - rng.uniform(-6, 6)
        angle, length, width = rng.uniform(0, np.pi), rng.uniform(3, 6), rng.uniform(1)
        with_it = u * np.cos(angle) + v * np.sin(angle)
        beside = v * np.cos(angle) - u * np.sin(angle)
        where = (np.abs(with_it) < length) & (np.abs(beside) < 0.7 + 0.8 * width)
        return where, screw.shade + rng.choice([-0.25, 0.3])
    if defect == "dent":
        where = _spot(screw, rng, (6, 18), 10, (2, 6))
        grain = 0.1 * rng.normal(size=where.shape)
        return where, screw.shade + rng.choice([-0.2, 0.2]) + grain
    where = _spot(screw, rng, (65, 150), 6, (3, 7))
    return where, gaussian_filter(screw.shade, 3) + rng.uniform(-0.1, 0.15)


def _spot(
    screw: Screw,
    rng: np.random.Generator,
    between: tuple[float, float],
    off: float,
    lengths: tuple[float, float],
) -> NDArray:
    u = (screw.along - rng.uniform(*between)) / rng.uniform(*lengths)
    v = (screw.across - rng.uniform(-off, off)) / rng.uniform(2, 5)
    return u**2 + v**2 < 1


def write_category(
    root: Path, draw: Draw, defects: Sequence[str], numbers: tuple[int, int, int]
) -> None:
    """Write so many good images to train and to test, and defective ones with masks."""
    n_train, n_good, n_defective = numbers
    rng = np.random.default_rng(0)
    for part, n in (("train", n_train), ("test", n_good)):
        for i in range(n):
            write(draw(None, rng)[0], root / part / "good", i)
    for i in range(n_defective):
        defect = defects[i % len(defects)]
        image, mask = draw(defect, rng)
        while mask.sum() < LEAST:
            image, mask = draw(defect, rng)
        write(image, root / "test" / defect, i)
        write(mask.astype(np.uint8) * 255, root / "ground_truth" / defect, i)
    print(f"{root}: {n_train} good to train, {n_good} good and {n_defective} to test")


def main() -> None:
    """Write the category."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, metavar="OUTPUT")
    root = parser.parse_args().output / "rendered_screws"
    write_category(root, render, DEFECTS, NUMBERS)


if __name__ == "__main__":
    main()
