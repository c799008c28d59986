"""Images in, anomaly maps out: branches, calibrated, joined.

The network gives four branches of evidence at each pixel. From all but that of the
segmentation decoder, the value predicted from context is subtracted. On good images, a
value has a tail probability p, the share of pixels that reach it; -log p is its
calibrated score. The anomaly map is a weighted mean of these scores.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from functools import cached_property, partial
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skad.common.torch_settings import inference, limit_threads, side_by_side
from skad.images.inputs import batches_of
from skad.network.model import FEATURE_STRIDES, MAP_STRIDE, PatchAutoencoder, fold
from skad.network.preparation import Preparation
from skad.scoring.gaussians import Gaussians
from skad.scoring.tiles import MARGIN, TILE, in_tiles

STRIDES = FEATURE_STRIDES[2:]  # 8 and 16: distances of finer features add nothing
# Of the branches: the segmentation decoder, which alone was trained to find anomalies,
# the distances of the features at these strides, and the reconstruction error.
WEIGHTS = (4.0, 1.0, 1.0, 1.0)
N_KNOTS = 10  # of the calibration of a branch
PIXELS = {  # in a batch, small enough for the cache, and in all batches at a time
    "cpu": (256 * 256, 16 * 256 * 256),
    "cuda": (64 * 256 * 256, 128 * 256 * 256),
}


class NotFiniteError(ValueError):
    """The network turns images into NaN or infinity."""

    def __init__(self) -> None:
        super().__init__(
            "The network turns finite images into NaN or infinity: its weights are "
            "damaged, or its training diverged. Load it again, or fit it again with a "
            "lower learning_rate."
        )


class Mapper(nn.Module):
    """Turns images into anomaly maps, by a network that may be on any device."""

    network: Any
    network_size: tuple[int, int]  # height and width of an image in the network
    roi: np.ndarray | None = None  # where to look, bool (H, W); None: everywhere
    settings: dict[str, Any]  # what `from_arrays` needs besides arrays: plain values
    from_arrays: Callable[..., Any]
    reconstruct: Callable[[np.ndarray], np.ndarray]

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def __reduce__(self) -> tuple:
        """Pickle arrays: a machine without the device can read them."""
        return partial(self.from_arrays, **self.settings), (self.to_arrays(),)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return all numbers but the settings."""
        return {name: t.numpy(force=True) for name, t in self.state_dict().items()}

    def over(
        self, images: Any, compute: Callable[[np.ndarray], np.ndarray]
    ) -> Iterator[np.ndarray]:
        """Apply a function of batches (k, H, W, C) to all images, in order.

        Raises NotFiniteError where it does not give finite numbers.
        """
        pixels_a_batch, pixels_at_a_time = PIXELS[self.device.type]
        pixels = math.prod(self.network_size)
        size = max(1, pixels_a_batch // pixels)
        groups = np.split(np.arange(len(images)), range(size, len(images), size))
        at_a_time = min(max(1, pixels_at_a_time // (size * pixels)), len(groups))

        def compute_finite(batch: np.ndarray) -> np.ndarray:
            # Filled up: rounding in float32 depends on the size of a batch, and scores
            # must not depend on what else is in X.
            n = len(batch)
            full = batch if n == size else batch[np.resize(np.arange(n), size)]
            found = compute(full)[:n]
            if not np.isfinite(found).all():
                raise NotFiniteError
            return found

        with closing(batches_of(images, groups)) as batches:
            yield from side_by_side(compute_finite, batches, at_a_time)

    def score_images(self, images: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return minus the maxima and the means of the images' maps: (n,) and (n,)."""
        scores, means = [], []
        for maps in self.over(images, self):
            scores.append(-maps.max((1, 2)).astype(np.float64))
            means.append(maps.mean((1, 2), dtype=np.float64))
        return np.concatenate(scores), np.concatenate(means)


class AnomalyMapper(Mapper):
    """The network and all that was fitted to good images."""

    tails: Tensor  # (branches, N_KNOTS, 2): knots, from values to calibrated scores

    def __init__(
        self,
        network: PatchAutoencoder,
        preparation: Preparation,
        gaussians: Iterable[Gaussians],
        context: nn.Linear,
        tails: Tensor,
    ) -> None:
        super().__init__()
        self.network = network
        self.preparation = preparation
        for stride, level in zip(STRIDES, gaussians, strict=True):
            self.add_module(f"gaussians{stride}", level)
        self.context = context
        self.register_buffer("tails", tails)
        self.network_size = preparation.padded_size
        if preparation.roi is not None:
            self.roi = preparation.roi.numpy(force=True) > 0
        names = ("std", "input_size", "working_size")
        self.settings = {name: getattr(preparation, name) for name in names}

    @inference()
    def forward(self, batch: np.ndarray) -> np.ndarray:
        """Return the maps (k, H, W), float32 and >= 0, of images (k, H, W, C)."""
        x = self.preparation(batch, self.device)  # k, C, h, w
        maps = self._by_tiles(self._map, x, MAP_STRIDE)  # k, h/2, w/2
        return self.preparation.to_input(maps).cpu().numpy()

    def _map(self, x: Tensor, corner: Sequence[int], whole: Sequence[int]) -> Tensor:
        """Return the maps (n, h/2, w/2) of prepared images, or tiles, (n, C, h, w)."""
        values = branches(self.folded, x, self.gaussians, self.context, corner, whole)
        return join(piecewise_linear(values, self.tails))

    @inference()
    def reconstruct(self, batch: np.ndarray) -> np.ndarray:
        """Return what the autoencoder makes of images (k, H, W, C), as float64."""

        def rebuild(x: Tensor, *_: Sequence[int]) -> Tensor:
            return self.folded.rebuild(self.folded.encode(x)[-1])

        # Without a name for x: large images are not held twice.
        rebuilt = self._by_tiles(rebuild, self.preparation(batch, self.device), 1)
        return self.preparation.undo(rebuilt).cpu().numpy()

    def _by_tiles(
        self, compute: Callable[..., Tensor], x: Tensor, stride: int
    ) -> Tensor:
        """Compute maps of images (k, C, h, w), tile by tile where they are large."""
        if x.shape[2] * x.shape[3] <= (TILE + 2 * MARGIN) ** 2:
            return compute(x, (0, 0), x.shape[2:])
        return in_tiles(compute, x, stride)

    @property
    def gaussians(self) -> list[Gaussians]:
        """Those of the features at every stride."""
        return [getattr(self, f"gaussians{stride}") for stride in STRIDES]

    @cached_property  # which is no part of the state
    def folded(self) -> PatchAutoencoder:
        """The network's function in less arithmetic."""
        return fold(self.network)

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move everything to a device, in place."""
        before = self.device
        super().to(*args, **kwargs)
        if self.device != before:
            self.__dict__.pop("folded", None)
        return self

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return all numbers but the settings."""
        arrays = super().to_arrays()
        arrays["mean"] = self.preparation.mean
        if self.preparation.roi is not None:
            arrays["roi"] = self.preparation.roi.numpy()
        return arrays

    @classmethod
    @limit_threads()
    def from_arrays(cls, arrays: dict[str, np.ndarray], **settings: Any) -> Self:
        """Rebuild a mapper from what `to_arrays` gave, on the CPU."""
        tensors = {name: torch.from_numpy(a.copy()) for name, a in arrays.items()}
        mean, roi = tensors.pop("mean").numpy(), tensors.pop("roi", None)
        mapper = cls._empty(Preparation(mean, roi=roi, **settings))
        mapper.load_state_dict(tensors, assign=True)
        return mapper.eval().to(memory_format=torch.channels_last)

    @classmethod
    def array_shapes(
        cls, n_channels: int, working_size: tuple[int, int]
    ) -> dict[str, tuple[int, ...]]:
        """Return the shapes that `to_arrays` gives, without the roi's."""
        mean = np.broadcast_to(0.0, n_channels)  # takes no memory
        mapper = cls._empty(Preparation(mean, 1.0, working_size, working_size))
        shapes = {name: tuple(t.shape) for name, t in mapper.state_dict().items()}
        return shapes | {"mean": (n_channels,)}

    @classmethod
    def _empty(cls, preparation: Preparation) -> Self:
        """Return a mapper without values, which takes no memory."""
        with torch.device("meta"):
            network = PatchAutoencoder(len(preparation.mean))
            gaussians = []
            for stride in STRIDES:
                c = getattr(network, f"down{stride}")[0][0].out_channels
                size = [side // stride for side in preparation.padded_size]
                gaussians.append(Gaussians.empty(c, size))
            context = nn.Linear(c, len(WEIGHTS) - 1)
            tails = torch.empty(len(WEIGHTS), N_KNOTS, 2)
            return cls(network, preparation, gaussians, context, tails)


def branches(
    network: nn.Module,
    x: Tensor,
    gaussians: Iterable[Gaussians],
    context: nn.Linear | None,
    corner: Sequence[int],
    whole: Sequence[int],
) -> Tensor:
    """Return the values of all branches, (branches, n, h/2, w/2), at x (n, C, h, w).

    The logits of the segmentation decoder, and the logarithms of feature distances at
    every stride and of the reconstruction error, less what the context predicts. x may
    be a tile, cut at this upper left corner, of images whose size as a `whole` is
    (height, width).
    """
    reconstruction, logits, features = network(x)
    found = [logits[:, None]]  # n, 1, h', w' each
    coarse = features[-len(STRIDES) :]
    for stride, level, f in zip(STRIDES, gaussians, coarse, strict=True):
        place, size = ([side // stride for side in pair] for pair in (corner, whole))
        found.append(level.distance(f, place, size)[:, None].log1p_())
    found.append(_cell_means((x - reconstruction).abs_()).log1p_())
    size = logits.shape[1:]
    values = torch.cat([F.interpolate(f, size, mode="bilinear") for f in found], 1)
    if context is not None:
        predicted = context(features[-1].movedim(1, 3)).movedim(3, 1)
        predicted = around(predicted)  # n, branches - 1, h/16, w/16
        values[:, 1:] -= F.interpolate(predicted, size, mode="bilinear")
    return values.movedim(1, 0)


def around(x: Tensor) -> Tensor:
    """Return the means of every position of (n, c, h, w) and its neighbours."""
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def _cell_means(x: Tensor) -> Tensor:
    """Return means (n, 1, h/2, w/2) over cells and channels of images (n, C, h, w).

    By a convolution, which is quicker than pooling where the channels come last.
    """
    shape = (1, x.shape[1], MAP_STRIDE, MAP_STRIDE)
    mean = x.new_full(shape, 1 / math.prod(shape))
    return F.conv2d(x, mean, stride=MAP_STRIDE)


def piecewise_linear(values: Tensor, knots: Tensor) -> Tensor:
    """Map values (m, …) by m piecewise linear functions with knots (m, k, 2).

    0 up to the first knot; beyond the last one the last line goes on. To sum up the
    rise along every line is far quicker than to search for that of each value.
    """
    x, y = knots.unbind(2)
    lengths = x.diff()
    slopes = y.diff() / lengths
    lengths[:, -1] = math.inf
    flat = values.flatten(1)
    total = torch.zeros_like(flat)
    lines = (each.split(1, 1) for each in (x[:, :-1], lengths, slopes))
    for start, length, slope in zip(*lines, strict=True):  # m, 1 each
        along = (flat - start).clamp_(min=0.0)
        total.addcmul_(torch.minimum(along, length, out=along), slope)
    return total.reshape(values.shape)


def join(scores: Tensor) -> Tensor:
    """Join calibrated scores (branches, …) to one, >= 0.

    The weighted geometric mean of 1 + score, minus 1: branches that agree count for
    more than a single loud one.
    """
    total = torch.zeros_like(scores[0])
    for score, weight in zip(scores, WEIGHTS, strict=True):
        total.add_(score.log1p(), alpha=weight / sum(WEIGHTS))
    return total.expm1_()
