"""Cut rotated crops out of images, as parts in any pose: python THIS_FILE ROOT OUTPUT.

ROOT holds categories in MVTec AD layout. OUTPUT gets the same categories with one
square crop of each image, at a random position and rotation. A crop of a defective
image shows at least half of the defect, or a tenth of a square full of it; otherwise
the image is left out. Then run `skad benchmark OUTPUT`.
"""

import argparse
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage.transform import SimilarityTransform, warp

from skad.benchmark import Category, find_categories, load_category

SIDE = 144  # pixels
TRIES = 200  # to show the defect


def pose(shape: tuple[int, ...], rng: np.random.Generator) -> SimilarityTransform:
    """Draw where the pixels of a crop lie in an image, which holds all of them."""
    reach = SIDE * math.sqrt(0.5)
    x, y = (rng.uniform(reach, side - reach) for side in (shape[1], shape[0]))
    to_middle = SimilarityTransform(translation=[(1 - SIDE) / 2] * 2)
    turn = SimilarityTransform(rotation=rng.uniform(0, 2 * math.pi))
    return to_middle + turn + SimilarityTransform(translation=(x, y))


def crop(image: NDArray, where: SimilarityTransform, order: int) -> NDArray:
    """Cut a crop out of an image, or, with order 0, out of a mask."""
    cut = warp(
        image, where, output_shape=(SIDE, SIDE), order=order, preserve_range=True
    )
    return cut.round().clip(0, 255).astype(np.uint8)


def write_crops(category: Category, output: Path) -> None:
    """Write a crop of every image of a category."""
    rng = np.random.default_rng(0)
    for i, image in enumerate(category.train):
        write(crop(image, pose(image.shape, rng), 3), output / "train/good", i)
    for i, (image, mask) in enumerate(zip(category.test, category.masks, strict=True)):
        if not mask.any():
            write(crop(image, pose(image.shape, rng), 3), output / "test/good", i)
            continue
        for where in (pose(image.shape, rng) for _ in range(TRIES)):
            seen = crop(mask.astype(np.uint8) * 255, where, 0)
            if 2 * np.count_nonzero(seen) >= min(mask.sum(), SIDE**2 // 10):
                write(crop(image, where, 3), output / "test/defect", i)
                write(seen, output / "ground_truth/defect", i)
                break


def write(image: NDArray, folder: Path, number: int) -> None:
    """Write a numbered image."""
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(folder / f"{number:03d}.png")


def main() -> None:
    """Write a folder a category."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, metavar="ROOT")
    parser.add_argument("output", type=Path, metavar="OUTPUT")
    parser.add_argument(
        "--categories", nargs="+", default=["mvtec_bottle", "bsdata"], metavar="NAME"
    )
    args = parser.parse_args()
    for folder in find_categories(args.root, args.categories):
        output = args.output / f"{folder.name}_crops"
        write_crops(load_category(folder), output)
        print(f"{output}: {len(list(output.glob('t*/*/*')))} images")


if __name__ == "__main__":
    main()
