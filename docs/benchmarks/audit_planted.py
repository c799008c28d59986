"""Measure how the audit finds planted bad images: python THIS_FILE ROOT.

ROOT holds categories in MVTec AD layout. Bad test images are added to the good training
images, 1, 3 and 5 % of all, but at least one. The table counts how many of these are in
the first tenth of the audit's ranking, and how many of the images that it calls
suspicious are planted or good. With --fits, it also gives image AUROC, detection rate
and false-alarm rate of a detector without training (`epochs=0`) on the other test
images. It is fitted on the good images alone; on all; on all but the planted ones in
the first tenth, as if a person had looked at that; and on all but the whole first
tenth. Counts are sums over the seeds, rates are means.
"""

import argparse
import warnings
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

import skad
from skad.benchmark import (
    Category,
    figures_of_images,
    find_categories,
    load_category,
)

SIZE = 256  # of images that differ in size
COLUMNS = (
    *("category", "planted", "in the first tenth"),
    *("suspicious: planted", "suspicious: good"),
)
FITS = ("good alone", "all", "without those found", "without the first tenth")
RATES = ("image_auroc", "detection_rate", "false_alarm_rate")


class EncodingOnce(nn.Module):
    """An encoder that keeps what it found, as every image comes in many fits."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.keys = torch.empty(0, 768)  # means of 16 x 16 cells tell images apart
        self.found: list[list[Tensor]] = []

    def __deepcopy__(self, memo: dict) -> Self:
        """Keep one memory for all fits, which copy their encoder."""
        return self

    def forward(self, x: Tensor) -> list[Tensor]:
        """Encode images (n, 3, h, w), one by one."""
        keys = F.adaptive_avg_pool2d(x, 16).flatten(1)
        each = [self.encode(x[i : i + 1], key) for i, key in enumerate(keys)]
        return [torch.cat(level) for level in zip(*each, strict=True)]

    def encode(self, x: Tensor, key: Tensor) -> list[Tensor]:
        """Return feature maps of an image (1, 3, h, w), new or kept."""
        off = (self.keys - key).abs().amax(1)
        if len(off) and off.min() < 1e-4:
            return self.found[int(off.argmin())]
        self.keys = torch.cat([self.keys, key[None]])
        self.found.append(self.encoder(x))
        return self.found[-1]


def encoder_once() -> skad.FrozenEncoder:
    """Return the default encoder of the audit, which encodes an image once."""
    known = skad.FrozenEncoder.named("efficientnet-lite0")
    encoder = skad.FrozenEncoder(
        known.network, known.mean.flatten(), known.std.flatten()
    )
    layout = encoder.layout  # which probes the network with an image of no interest
    encoder.network = EncodingOnce(encoder.network)
    encoder.__dict__["layout"] = layout
    return encoder


def plant(category: Category, share: float, seed: int) -> tuple[NDArray, NDArray]:
    """Return good images with bad ones at their end, and the places of these in test.

    A larger share adds further ones to those of a smaller share.
    """
    n = max(1, round(share * len(category.train) / (1 - share)))
    bad = np.random.default_rng(seed).permutation(np.flatnonzero(category.y == -1))[:n]
    return np.concatenate([category.train, category.test[bad]]), bad


def figures(category: Category, images, left_out, never, encoder, seed) -> list[float]:
    """Fit on some images; return AUROC, detection and false-alarm rate on a test."""
    detector = skad.PatchAutoencoderDetector(
        encoder=encoder, epochs=0, random_state=seed
    ).fit(np.delete(images, left_out, axis=0))
    tested = np.setdiff1d(np.arange(len(category.y)), never)
    scores = detector.score_samples(category.test[tested])
    found = figures_of_images(category.y[tested], scores, detector.offset_)
    return [found[name] for name in RATES]


def trial(
    category: Category, share: float, seed: int, encoder: skad.FrozenEncoder, fits: bool
) -> tuple[list[int], list[list[float]]]:
    """Return counts, and the figures of each fit, for one planting."""
    n_good = len(category.train)
    images, bad = plant(category, share, seed)
    audited = skad.audit_images(images, encoder=encoder)
    tenth = [int(one.path) for one in audited[: -(-len(images) // 10)]]
    found = [place for place in tenth if place >= n_good]
    suspicious = [int(one.path) for one in audited if one.is_suspicious]
    n_planted = sum(place >= n_good for place in suspicious)
    counts = [len(bad), len(found), n_planted, len(suspicious) - n_planted, n_good]
    if not fits:
        return counts, []
    choices = ([*range(n_good, len(images))], [], found, tenth)
    return counts, [figures(category, images, c, bad, encoder, seed) for c in choices]


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, metavar="ROOT")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.01, 0.03, 0.05])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--categories", nargs="+", metavar="NAME")
    parser.add_argument("--fits", action="store_true")
    args = parser.parse_args()
    columns = COLUMNS + FITS if args.fits else COLUMNS
    warnings.simplefilter("ignore", UserWarning)  # copies; few images for the promise
    print(f"| {' | '.join(columns)} |\n|---{'|---:' * (len(columns) - 1)}|", flush=True)
    for folder in find_categories(args.root, args.categories):
        category, encoder = load_category(folder, SIZE), encoder_once()
        for share in args.shares:
            setting = encoder, args.fits
            trials = [trial(category, share, seed, *setting) for seed in args.seeds]
            n, *found, n_good = np.sum([counts for counts, _ in trials], axis=0)
            cells = [f"{k} of {m}" for k, m in zip(found, (n, n, n_good), strict=True)]
            if args.fits:
                means = np.mean([rows for _, rows in trials], axis=0)  # fits, rates
                cells += [" / ".join(f"{rate:.2f}" for rate in row) for row in means]
            print(
                f"| {category.name} | {share:.0%} | {' | '.join(cells)} |", flush=True
            )


if __name__ == "__main__":
    main()
