"""From images to the network's input and back; and good images, varied for training."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from skad.images.inputs import batches_of, is_scaled
from skad.network.model import MAP_STRIDE, STRIDE
from skad.network.random import bernoulli, normal, randint

_FARTHEST = 1e4  # standard deviations that an image may be off and stay finite
_ROUNDING = 1e-12  # of the mean: images that vary less are constant
_FLIP_QUANTILE = 0.9  # of the distances between two good images
_NOISE_WINDOWS = (3, 15)  # pixels: near a pixel, and around it
_LEAST_NOISE = 0.02  # of images without noise
_DESCRIPTOR = 16  # cells along each side of an image
_SHADING = 3  # cells along each side of an image
_SHIFT = 4  # pixels, at most

# Standard deviations of augmented images: a part of how good images vary, and a little.
_PART = 0.5
_CONTRAST = 0.05
_BRIGHTNESS = 0.02
_COLOUR = 0.03
_SHARPNESS = 0.3


@dataclass
class Preparation:
    """Turns images into input of the network, and maps back into images' pixels."""

    mean: np.ndarray  # (C,), float64, of the training images, integers scaled by type
    std: float  # of the training images, all channels together
    input_size: tuple[int, int]  # height, width
    working_size: tuple[int, int]
    roi: Tensor | None = None  # (H, W) of the input, 0 or 1

    @property
    def padded_size(self) -> tuple[int, int]:
        """Height and width of the network's input, multiples of 16."""
        height, width = self.working_size
        return height + -height % STRIDE, width + -width % STRIDE

    def __call__(self, batch: np.ndarray, device: torch.device) -> Tensor:
        """Prepare a batch as `prepare` does, on the device."""
        return self.prepare(to_device(batch, device))

    def prepare(self, batch: Tensor) -> Tensor:
        """Standardise images (k, H, W, C): (k, C, h, w), h and w multiples of 16."""
        x = self._standardise(batch)  # k, H, W, C
        if self.roi is not None:
            x *= self.roi.to(x.device)[:, :, None]
        x = x.permute(0, 3, 1, 2)  # k, C, H, W in channels-last order
        if self.working_size != self.input_size:
            x = F.interpolate(x, self.working_size, mode="bilinear", antialias=True)
        return _pad(x).contiguous(memory_format=torch.channels_last)

    def undo(self, images: Tensor) -> Tensor:
        """Turn images (k, C, h, w) of the network back into (k, H, W, C)."""
        images = self._resize(images).permute(0, 2, 3, 1).double()
        mean = torch.as_tensor(self.mean, device=images.device)  # float64
        return images.mul_(self.std).add_(mean)

    def to_input(self, maps: Tensor) -> Tensor:
        """Bring maps (k, h / 2, w / 2) of padded images to the input's (k, H, W)."""
        maps = F.interpolate(maps[:, None], scale_factor=MAP_STRIDE, mode="bilinear")
        maps = self._resize(maps)[:, 0]
        return maps if self.roi is None else maps * self.roi.to(maps.device)

    def inside(self, stride: int) -> Tensor:
        """Tell where padded maps of this stride show the image and the roi: bool."""
        roi = torch.ones(self.input_size) if self.roi is None else self.roi
        roi = F.interpolate(roi[None, None].float(), self.working_size, mode="area")
        bottom, right = (-s % STRIDE for s in self.working_size)
        roi = F.pad(roi, (0, right, 0, bottom))
        return F.max_pool2d(roi, stride)[0, 0] > 0

    def _standardise(self, batch: Tensor) -> Tensor:
        """Standardise images (k, H, W, C): float32."""
        top = top_of(batch.dtype)
        # A float32 holds every number of 16 bits; others may need a float64.
        exact = torch.float32 if top > 1 else torch.float64
        mean = torch.from_numpy(self.mean * top).to(batch.device, exact)
        x = batch.to(exact, copy=True).flatten(2)  # k, H, W C
        x.sub_(mean.repeat(batch.shape[2])).div_(self.std * top)
        return x.clamp_(-_FARTHEST, _FARTHEST).float().view(batch.shape)

    def _resize(self, x: Tensor) -> Tensor:
        x = x[..., : self.working_size[0], : self.working_size[1]]
        if self.working_size == self.input_size:
            return x
        return F.interpolate(x, self.input_size, mode="bilinear", align_corners=False)


def to_device(batch: np.ndarray, device: torch.device) -> Tensor:
    """Bring images to a device as they are, which takes least time."""
    x = torch.from_numpy(batch)
    return x if device.type == "cpu" else x.pin_memory().to(device, non_blocking=True)


def to_unit_range(batch: np.ndarray) -> np.ndarray:
    """Scale uint8 and uint16 by their type to [0, 1]; other numbers stay: float64."""
    top = np.iinfo(batch.dtype).max if is_scaled(batch.dtype) else 1
    return batch.astype(np.float64) / top


def top_of(dtype: torch.dtype) -> int:
    """Return what `to_unit_range` divides a number of this type by."""
    return {torch.uint8: 255, torch.uint16: 65535}.get(dtype, 1)


def _pad(x: Tensor) -> Tensor:
    bottom, right = (-s % STRIDE for s in x.shape[2:])
    if not (bottom or right):
        return x
    return F.pad(x, (0, right, 0, bottom), mode="replicate")


def fit_preparation(
    images: Any,
    sample: np.ndarray,
    working_size: tuple[int, int],
    roi: np.ndarray | None,
) -> Preparation:
    """Measure mean and standard deviation of the pixels that count."""
    counts = slice(None) if roi is None else roi
    means, variances = [], []
    for batch in batches_of(images, sample[:, np.newaxis]):
        pixels = to_unit_range(batch)[0][counts].reshape(-1, batch.shape[3])
        means.append(pixels.mean(0))
        variances.append(pixels.var(0))
    mean = np.mean(means, 0)
    # Within images, and between them.
    stds = np.sqrt(np.mean(variances, 0) + np.var(means, 0))
    std = float(np.sqrt(np.mean(np.square(stds))))
    rounding = _ROUNDING * float(np.abs(mean).max())  # of images of one flat colour
    return Preparation(
        mean=mean,
        std=std if std > rounding else 1.0,
        input_size=images.format.image_shape[:2],
        working_size=working_size,
        roi=None if roi is None else torch.from_numpy(roi.astype(np.float32)),
    )


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
    (height, width), roi = preparation.working_size, preparation.roi
    measured = []
    for image in batches_of(images, sample[:, np.newaxis]):
        x = preparation(image, device)
        near, around = (
            F.avg_pool2d(x, k, 1, k // 2, count_include_pad=False)
            for k in _NOISE_WINDOWS
        )
        noise = (near - around).abs().median()
        flipped = (_pad(x[..., :height, :width].flip(axis)) for axis in (2, 3))
        looks = torch.stack([_describe(view) for view in (x, *flipped)])
        measured.append((noise, x.mean(), x.std(), shades(x)[0], looks))
    noises, means, stds, shading, looks = map(torch.stack, zip(*measured, strict=True))
    flips = _good_flips(looks)
    if roi is not None:
        flips = tuple(a for a in flips if torch.equal(roi.flip(a - 2), roi))
    return Variation(
        noise_level=float(noises.median()) + _LEAST_NOISE,
        brightness=float(means.std(correction=0)),
        contrast=float(stds.std(correction=0)),
        shading=float(shading.std(0, correction=0).mean()),
        flips=flips,
    )


def _describe(x: Tensor) -> Tensor:
    """Return a coarse image (1, C, h, w), and the coarse slant of its edges."""
    gray = x.mean(1, keepdim=True)
    down, right = gray[:, :, 1:, :-1], gray[:, :, :-1, 1:]
    here = gray[:, :, :-1, :-1]
    slant = (down - here) * (right - here)  # changes its sign when flipped
    views = [F.adaptive_avg_pool2d(v, _DESCRIPTOR).flatten() for v in (x, slant)]
    return torch.cat(views)


def _good_flips(descriptors: Tensor) -> tuple[int, ...]:
    """Return axes along which images, descriptors (n, 1 + 2, k), look good flipped.

    They do where the median flipped image is no farther from the others than a tenth
    of the pairs of images are from each other.
    """
    plain, *flipped = descriptors.movedim(1, 0).contiguous()
    other = ~torch.eye(len(plain), dtype=torch.bool, device=plain.device)
    if not other.any():
        return ()
    usual = torch.cdist(plain, plain)[other].quantile(_FLIP_QUANTILE)
    apart = (torch.cdist(images, plain)[other].median() for images in flipped)
    return tuple(a for a, far in zip((2, 3), apart, strict=True) if far <= usual)


def augment(images: Tensor, variation: Variation, rng: torch.Generator) -> Tensor:
    """Shift, flip and sharpen images (n, C, H, W), and vary contrast and light."""
    n, c, height, width = images.shape
    varied = _shift_and_flip(images, variation.flips, rng)
    sharpness = _SHARPNESS * normal(n, 1, 1, 1, rng=rng)
    spread = _PART * variation.contrast + _CONTRAST
    contrast = 1 + spread * normal(n, 1, 1, 1, rng=rng)
    spread = _PART * variation.brightness + _BRIGHTNESS
    light = spread * normal(n, 1, 1, 1, rng=rng)
    colour = _COLOUR * normal(n, c, 1, 1, rng=rng)
    varied.add_(_fine(varied) * sharpness)
    shading = _PART * variation.shading * normal(n, 1, _SHADING, _SHADING, rng=rng)
    varied.add_(
        F.interpolate(shading, (height, width), mode="bilinear", align_corners=True)
    )
    return varied.mul_(contrast).add_(light + colour)


def _shift_and_flip(
    images: Tensor, flips: tuple[int, ...], rng: torch.Generator
) -> Tensor:
    """Shift images (n, C, H, W) by a few pixels, and flip half of them."""
    n, _, height, width = images.shape
    shift = randint(2 * n, 2 * _SHIFT + 1, rng).view(2, n).tolist()
    mirrored = bernoulli(2 * n, 0.5, rng).view(2, n).tolist()
    wide = F.pad(images, (_SHIFT,) * 4, mode="replicate")
    varied = torch.empty_like(images)
    for i in range(n):  # copies of slices: far quicker than one big gather
        top, left = shift[0][i], shift[1][i]
        view = wide[i, :, top : top + height, left : left + width]
        axes = [axis - 1 for axis in flips if mirrored[axis - 2][i]]
        varied[i] = view.flip(axes) if axes else view
    return varied


def shades(images: Tensor) -> Tensor:
    """Return the means (n, cells) of coarse cells of images, minus the image's."""
    cells = F.adaptive_avg_pool2d(images.mean(1, keepdim=True), _SHADING).flatten(1)
    return cells - cells.mean(1, keepdim=True)


def _fine(images: Tensor) -> Tensor:
    """Subtract the mean of the four neighbours from pixels of images (n, C, H, W)."""
    x = F.pad(images, (1, 1, 1, 1), mode="replicate")
    next_to = x[:, :, :-2, 1:-1] + x[:, :, 2:, 1:-1]
    next_to.add_(x[:, :, 1:-1, :-2]).add_(x[:, :, 1:-1, 2:])
    return torch.sub(images, next_to, alpha=0.25)
