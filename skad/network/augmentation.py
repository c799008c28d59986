"""Augmentation: how good images vary, and images varied in the same ways."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from skad.images.inputs import batches_of
from skad.network.preparation import Preparation
from skad.network.random import bernoulli, normal, randint

_CELLS = 3  # along each side of an image, for its shading
_SHIFT = 4  # pixels, at most
_AXES = (2, 3)  # of images (n, C, H, W), along which they may be flipped
_FLIP_QUANTILE = 0.9  # of the distances between two good images


class Variation(NamedTuple):
    """How good images vary, in units of their standard deviation."""

    noise_level: float  # of a pixel from its neighbourhood
    brightness: float  # standard deviation of the images' means
    contrast: float  # standard deviation of the images' standard deviations
    shading: float  # standard deviation of a coarse cell's mean, the image's taken off
    flips: tuple[int, ...]  # axes, of 2 and 3, along which flipped images look good


def measure_variation(
    images: Any, sample: np.ndarray, preparation: Preparation, device: torch.device
) -> Variation:
    """Measure how good images vary."""
    means, deviations, noises, shading, descriptors = [], [], [], [], []
    for image in batches_of(images, sample[:, np.newaxis]):
        x = preparation(image, device)
        means.append(x.mean())
        deviations.append(x.std())
        near, around = (
            F.avg_pool2d(x, k, 1, k // 2, count_include_pad=False) for k in (3, 15)
        )
        noises.append((near - around).abs().median())
        shading.append(shades(x))
        flipped = [preparation.flipped(x, (axis,)) for axis in _AXES]
        descriptors.append(torch.stack([_describe(view) for view in (x, *flipped)]))
    return Variation(
        noise_level=float(torch.stack(noises).median()) + 0.02,
        brightness=_spread(means),
        contrast=_spread(deviations),
        shading=float(torch.cat(shading).std(0, correction=0).mean()),
        flips=tuple(filter(preparation.is_symmetric, _good_flips(descriptors))),
    )


def _spread(values: list[Tensor]) -> float:
    return float(torch.stack(values).std(correction=0))


def _describe(x: Tensor) -> Tensor:
    """Return a coarse image (1, C, h, w), and the coarse slant of its edges."""
    gray = x.mean(1, keepdim=True)
    down, right = gray[:, :, 1:, :-1], gray[:, :, :-1, 1:]
    here = gray[:, :, :-1, :-1]
    slant = (down - here) * (right - here)  # changes its sign when flipped
    views = [F.adaptive_avg_pool2d(v, 16).flatten() for v in (x, slant)]
    return torch.cat(views)


def _good_flips(descriptors: list[Tensor]) -> tuple[int, ...]:
    """Return axes along which images, n descriptors (1 + 2, k), look good flipped.

    They do where the median flipped image is no farther from the others than a tenth
    of the pairs of images are from each other.
    """
    plain, *flipped = torch.stack(descriptors, 1)
    other = ~torch.eye(len(plain), dtype=torch.bool, device=plain.device)
    if not other.any():
        return ()
    usual = torch.cdist(plain, plain)[other].quantile(_FLIP_QUANTILE)
    apart = (torch.cdist(images, plain)[other].median() for images in flipped)
    return tuple(a for a, far in zip(_AXES, apart, strict=True) if far <= usual)


def augment(images: Tensor, variation: Variation, generator: torch.Generator) -> Tensor:
    """Shift, flip and sharpen images (n, C, H, W), and vary contrast and light."""
    n, c, height, width = images.shape
    shift = randint(2 * n, 2 * _SHIFT + 1, generator).view(2, n).tolist()
    mirrored = bernoulli(2 * n, 0.5, generator).view(2, n).tolist()
    wide = F.pad(images, (_SHIFT,) * 4, mode="replicate")
    varied = torch.empty_like(images)
    for i in range(n):  # copies of slices: far quicker than one big gather
        top, left = shift[0][i], shift[1][i]
        view = wide[i, :, top : top + height, left : left + width]
        axes = [axis - 1 for axis in variation.flips if mirrored[axis - 2][i]]
        varied[i] = view.flip(axes) if axes else view

    sharpness = 0.3 * normal(n, 1, 1, 1, rng=generator)
    spread = 0.5 * variation.contrast + 0.05
    contrast = 1 + spread * normal(n, 1, 1, 1, rng=generator)
    light = (0.5 * variation.brightness + 0.02) * normal(n, 1, 1, 1, rng=generator)
    colour = 0.03 * normal(n, c, 1, 1, rng=generator)
    varied.add_(_fine(varied) * sharpness)
    shading = 0.5 * variation.shading * normal(n, 1, _CELLS, _CELLS, rng=generator)
    varied.add_(
        F.interpolate(shading, (height, width), mode="bilinear", align_corners=True)
    )
    return varied.mul_(contrast).add_(light + colour)


def shades(images: Tensor) -> Tensor:
    """Return the means (n, cells) of coarse cells of images, minus the image's."""
    cells = F.adaptive_avg_pool2d(images.mean(1, keepdim=True), _CELLS).flatten(1)
    return cells - cells.mean(1, keepdim=True)


def _fine(images: Tensor) -> Tensor:
    """Subtract the mean of the four neighbours from pixels of images (n, C, H, W)."""
    x = F.pad(images, (1, 1, 1, 1), mode="replicate")
    next_to = x[:, :, :-2, 1:-1] + x[:, :, 2:, 1:-1]
    next_to.add_(x[:, :, 1:-1, :-2]).add_(x[:, :, 1:-1, 2:])
    return torch.sub(images, next_to, alpha=0.25)
