"""Measure images that are wrong as a whole: python THIS_FILE ROOT --models FOLDER.

ROOT holds categories in MVTec AD layout, FOLDER the detectors that `skad benchmark ROOT
--models FOLDER` has saved, CATEGORY-SEED.safetensors. The good test images become wrong
in these ways, which serve this test alone: nothing is trained, calibrated or chosen
with them.

- blank: mid-gray, and nothing else
- background: the colour that the edges of the good images have
- other part: a good image of the next category
- upside down
- shifted: by a third of the width; background comes in
- half covered: the left half is background

Not all of that is wrong everywhere. Surfaces have no background, and what is cut from
them anywhere is one; only parts in one pose can stand upside down. See COUNTS.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import skad
from skad.benchmark import find_categories, load_category

ONE_POSE = ("mvtec_transistor", "aws_aliens")
PARTS = (*ONE_POSE, "mvtec_bottle", "hazelnut_toy", "aws_cookies")
Images = NDArray[Any]  # (n, H, W[, C])


def background(images: Images) -> NDArray[Any]:
    """Return the median colour of the outermost pixels: (C,) or ()."""
    edge = np.ones(images.shape[1:3], bool)
    edge[1:-1, 1:-1] = False
    return np.median(images[:, edge], axis=(0, 1)).astype(images.dtype)


def blank(images: Images) -> Images:
    """One mid-gray image."""
    return np.full_like(images[:1], np.iinfo(images.dtype).max // 2)


def only_background(images: Images) -> Images:
    """One image of the background's colour."""
    return np.broadcast_to(background(images), images[:1].shape).copy()


def upside_down(images: Images) -> Images:
    """All images, turned by half a turn."""
    return images[:, ::-1, ::-1].copy()


def shifted(images: Images) -> Images:
    """All images, shifted to the right by a third of their width."""
    moved = np.broadcast_to(background(images), images.shape).copy()
    by = images.shape[2] // 3
    moved[:, :, by:] = images[:, :, :-by]
    return moved


def half_covered(images: Images) -> Images:
    """All images, with background in place of the left half."""
    covered = images.copy()
    covered[:, :, : images.shape[2] // 2] = background(images)
    return covered


FAMILIES: dict[str, Callable[[Images], Images]] = {
    "blank": blank,
    "background": only_background,
    "upside down": upside_down,
    "shifted": shifted,
    "half covered": half_covered,
}
OTHER_PART = "other part"
# Categories in which a family is wrong; of the others, in all.
COUNTS = {"upside down": ONE_POSE} | dict.fromkeys(
    ("background", "shifted", "half covered"), PARTS
)


def as_those(others: Images, images: Images) -> Images:
    """Bring images of another category to the size and colours of these."""
    size = images.shape[1:3]
    made = np.stack([skad.resize_image(image, size) for image in others])
    if images.ndim == 4 and made.ndim == 3:
        made = np.repeat(made[..., np.newaxis], 3, 3)
    if images.ndim == 3 and made.ndim == 4:
        made = made.mean(3)
    return made.astype(images.dtype)


def main() -> None:
    """Print a Markdown table: which share of the images is found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, metavar="ROOT")
    parser.add_argument("--models", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--categories", nargs="+", metavar="NAME")
    args = parser.parse_args()
    good = {}
    for folder in find_categories(args.root, args.categories):
        category = load_category(folder)
        good[folder.name] = np.asarray(category.test)[category.y == 1]
    names = [*FAMILIES, OTHER_PART]
    print(f"| category | seed | good, flagged | {' | '.join(names)} |")
    print(f"|---|---:|---:|{'---:|' * len(names)}")
    shares: list[float] = []  # of families where they are wrong
    n_found = n_images = 0
    for i, (category_name, images) in enumerate(good.items()):
        next_name = [*good][(i + 1) % len(good)]
        wrong = {name: make(images) for name, make in FAMILIES.items()}
        wrong[OTHER_PART] = as_those(good[next_name], images)
        for path in sorted(args.models.glob(f"{category_name}-*.safetensors")):
            detector = skad.load(path)
            cells = [f"{np.mean(detector.predict(images) == -1):.2f}"]
            for name in names:
                found = float(np.mean(detector.predict(wrong[name]) == -1))
                counts = category_name in COUNTS.get(name, good)
                if counts:
                    shares.append(found)
                    n_found += round(found * len(wrong[name]))
                    n_images += len(wrong[name])
                cells.append(f"{found:.2f}" if counts else f"({found:.2f})")
            seed = path.stem.removeprefix(f"{category_name}-")
            print(f"| {category_name} | {seed} | {' | '.join(cells)} |", flush=True)
    print(
        f"\nFound where it is wrong: {n_found} of {n_images} images; mean of the cells "
        f"{np.mean(shares):.3f}"
    )


if __name__ == "__main__":
    main()
