"""From images to the network's input, and from its maps back to images' pixels."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from skad.common.warnings import warn
from skad.images.inputs import batches_of
from skad.network.model import MAP_STRIDE, STRIDE

_FARTHEST = 1e4  # standard deviations that an image may be off and stay finite
_ROUNDING = 1e-12  # of the mean: images that vary less are constant
_MOST_APART = 30.0  # ratio of channels' standard deviations: more is warned of
_SCALED = (np.uint8, np.uint16)  # by what the type can hold


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
        """Standardise images (k, H, W, C): (k, C, h, w), h and w multiples of 16."""
        x = self._standardise(batch, device)  # k, H, W, C
        if self.roi is not None:
            x *= self.roi.to(device)[:, :, None]
        x = x.permute(0, 3, 1, 2)  # k, C, H, W in channels-last order
        if self.working_size != self.input_size:
            x = F.interpolate(x, self.working_size, mode="bilinear", antialias=True)
        return _pad(x).contiguous(memory_format=torch.channels_last)

    def flipped(self, x: Tensor, axes: tuple[int, ...]) -> Tensor:
        """Flip prepared images (k, C, h, w); their padding stays at the end."""
        height, width = self.working_size
        return _pad(x[..., :height, :width].flip(axes)) if axes else x

    def is_symmetric(self, axis: int) -> bool:
        """Tell whether the roi of an image flipped along this axis is the same."""
        return self.roi is None or torch.equal(self.roi.flip(axis - 2), self.roi)

    def undo(self, images: Tensor) -> Tensor:
        """Turn images (k, C, h, w) of the network back into (k, H, W, C)."""
        images = self._resize(images).permute(0, 2, 3, 1).double()
        mean = torch.as_tensor(self.mean, device=images.device)  # float64
        return images.mul_(self.std).add_(mean)

    def to_input(self, maps: Tensor) -> Tensor:
        """Bring maps (k, h / 2, w / 2) of padded images to the input's (k, H, W)."""
        maps = F.interpolate(
            maps[:, None], scale_factor=MAP_STRIDE, mode="bilinear", align_corners=False
        )
        maps = self._resize(maps)[:, 0]
        return maps if self.roi is None else maps * self.roi.to(maps.device)

    def inside(self, stride: int) -> Tensor:
        """Tell where padded maps of this stride show the image and the roi: bool."""
        roi = torch.ones(self.input_size) if self.roi is None else self.roi
        roi = F.interpolate(roi[None, None].float(), self.working_size, mode="area")
        bottom, right = (-s % STRIDE for s in self.working_size)
        roi = F.pad(roi, (0, right, 0, bottom))
        return F.max_pool2d(roi, stride)[0, 0] > 0

    def _standardise(self, batch: np.ndarray, device: torch.device) -> Tensor:
        """Standardise images (k, H, W, C) on the device: float32."""
        top = _top(batch.dtype)
        # A float32 holds every number of 16 bits; others may need a float64.
        exact = torch.float32 if batch.dtype in _SCALED else torch.float64
        mean = torch.from_numpy(self.mean * top).to(device, exact)
        x = _send(batch, device).to(exact, copy=True).flatten(2)  # k, H, W C
        x.sub_(mean.repeat(batch.shape[2])).div_(self.std * top)
        return x.clamp_(-_FARTHEST, _FARTHEST).float().view(batch.shape)

    def _resize(self, x: Tensor) -> Tensor:
        x = x[..., : self.working_size[0], : self.working_size[1]]
        if self.working_size == self.input_size:
            return x
        return F.interpolate(x, self.input_size, mode="bilinear", align_corners=False)


def to_unit_range(batch: np.ndarray) -> np.ndarray:
    """Scale uint8 and uint16 by their type to [0, 1]; other numbers stay: float64."""
    return batch.astype(np.float64) / _top(batch.dtype)


def _send(batch: np.ndarray, device: torch.device) -> Tensor:
    """Copy images to a device as they are, which takes least time where it is far."""
    if batch.dtype.itemsize > 8:  # torch has no such numbers
        batch = batch.astype(np.float64)
    images = torch.from_numpy(batch)
    if device.type == "cpu":
        return images
    return images.pin_memory().to(device, non_blocking=True)


def _top(dtype: np.dtype) -> int:
    """Return what a number of this type is divided by."""
    return np.iinfo(dtype).max if dtype in _SCALED else 1


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
    scale = 0.0
    for batch in batches_of(images, sample[:, np.newaxis]):
        pixels = to_unit_range(batch)[0][counts].reshape(-1, batch.shape[3])
        if not scale:  # a power of two: squares of 1e-200 would all be 0
            scale = float(np.ldexp(1.0, np.frexp(np.abs(pixels).max())[1]))
        means.append(pixels.mean(0))
        variances.append((pixels / scale).var(0))
    mean = np.mean(means, 0)
    variance = np.mean(variances, 0)  # within the images …
    variance += np.var(np.divide(means, scale), 0)  # … and between them
    stds = np.sqrt(variance)
    if images.format.kind != "integer":  # integers share the scale of their type
        _warn_of_scales(stds * scale)
    std = float(np.sqrt(np.mean(np.square(stds))) * scale)
    rounding = _ROUNDING * float(np.abs(mean).max())  # of images of one flat colour
    return Preparation(
        mean=mean,
        std=std if std > rounding else 1.0,
        input_size=images.format.image_shape[:2],
        working_size=working_size,
        roi=None if roi is None else torch.from_numpy(roi.astype(np.float32)),
    )


def _warn_of_scales(stds: np.ndarray) -> None:
    """Warn where some channels are too faint beside others to count."""
    faint = np.flatnonzero((stds > 0) & (stds < stds.max() / _MOST_APART))
    if len(faint):
        warn(
            f"Channel {faint[0]} of X has a standard deviation of "
            f"{stds[faint[0]]:.3g}, channel {stds.argmax()} one of {stds.max():.3g}. "
            "All are divided by the same number, so defects that show in faint "
            "channels alone are missed. Bring the channels to one scale, for instance "
            "X / X.std((0, 1, 2)).",
        )
