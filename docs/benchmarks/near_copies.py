"""Measure which images count as near copies: python THIS_FILE ROOT.

Groups the good training images of every category under ROOT (MVTec AD layout): first
unchanged, then together with a slightly changed copy of each, for one kind of change
after the other. Nothing is trained: the grouping is imported from inside skad.
"""

import argparse
import io
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from skad import read_images
from skad.benchmark import find_categories
from skad.detectors.split import describe, group_near_copies

LARGEST = 256  # of a side, in pixels, where the images of a category differ in size


def again_as_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """Compress an image, and read it again."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def with_one_bit_changed(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change the lowest bit of one value."""
    changed = image.copy()
    changed.flat[rng.integers(image.size)] ^= 1
    return changed


def with_noise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add -1, 0 or 1 to every value."""
    return as_bytes(image + rng.integers(-1, 2, image.shape))


def shifted(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """Shift by a pixel or none; the margin is repeated."""
    height, width = image.shape[:2]
    wide = np.pad(image, [(1, 1), (1, 1), (0, 0)][: image.ndim], mode="edge")
    return wide[1 - down :, 1 - right :][:height, :width]


def next_frame(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shift, expose anew, add camera noise and compress, as in a burst."""
    frame = shifted(image, *rng.integers(-1, 2, 2)) * rng.uniform(0.98, 1.02)
    return again_as_jpeg(as_bytes(frame + rng.normal(0, 2, image.shape)), 90)


def as_bytes(values: np.ndarray) -> np.ndarray:
    """Round and clip to uint8."""
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


CHANGES: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "one bit": with_one_bit_changed,
    "noise": with_noise,
    "JPEG 90": lambda image, rng: again_as_jpeg(image, 90),
    "JPEG 75": lambda image, rng: again_as_jpeg(image, 75),
    "+2 %": lambda image, rng: as_bytes(image * 1.02),
    "-2 %": lambda image, rng: as_bytes(image * 0.98),
    "1 pixel down": lambda image, rng: shifted(image, 1, 0),
    "1 pixel right": lambda image, rng: shifted(image, 0, 1),
    "both": lambda image, rng: shifted(image, 1, 1),
    "next frame": next_frame,
}


def read_good(category: Path) -> np.ndarray:
    """Read the good training images of a category, (n, H, W) or (n, H, W, C)."""
    try:
        return read_images(category / "train" / "good")
    except ValueError:  # of several sizes
        return read_images(category / "train" / "good", image_size=LARGEST)


def groups_of(images: np.ndarray) -> np.ndarray:
    """Number the groups of near copies, (n,)."""
    return group_near_copies(np.stack([describe(np.atleast_3d(i)) for i in images]))


def together(groups: np.ndarray, alone: np.ndarray) -> tuple[int, int]:
    """Count copies that are grouped with their originals, and further joined pairs.

    `groups` has the n images and then their copies, `alone` the n without copies.
    """
    n = len(alone)
    found = np.count_nonzero(groups[:n] == groups[n:])
    return found, n_joined(groups[:n]) - n_joined(alone)


def n_joined(groups: np.ndarray) -> int:
    """Count how many images more there are than groups."""
    return len(groups) - len(np.unique(groups))


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, metavar="ROOT")
    parser.add_argument("--categories", nargs="+", metavar="NAME")
    parser.add_argument("--pairs", action="store_true", help="name images as they are")
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # of half the images being copies
    print(f"| category | images | groups | {' | '.join(CHANGES)} | joined wrongly |")
    print("|---" + "|---:" * (len(CHANGES) + 3) + "|")
    for folder in find_categories(args.root, args.categories):
        images = read_good(folder)
        rng = np.random.default_rng(0)
        alone = groups_of(images)
        cells, wrong = [], 0
        for change in CHANGES.values():
            copies = np.stack([change(image, rng) for image in images])
            found, others = together(groups_of(np.concatenate([images, copies])), alone)
            cells.append(f"{found / len(images):.0%}")
            wrong = max(wrong, others)
        n_groups = len(np.unique(alone))
        row = [folder.name, len(images), n_groups, *cells, wrong]
        print(f"| {' | '.join(map(str, row))} |", flush=True)
        if args.pairs:
            for group in np.flatnonzero(np.bincount(alone) > 1):
                print("    ", np.flatnonzero(alone == group).tolist())


if __name__ == "__main__":
    main()
