"""The training loop: good images in, a network that has seen simulated defects out."""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skad.network.checkpoint import Checkpoint
from skad.network.optimizer import Optimizer
from skad.network.random import normal, randint, with_chance
from skad.network.synthetic_anomalies import simulate

_CELLS = 3  # along each side of an image, whose shading differs
_SHIFT = 4  # pixels that a good image may lie off its place
_ANOMALY_SHARE = 2 / 3  # of the whole loss, on a log scale
_LEAST_LOSS = 1e-4  # of either kind: keeps logarithms finite
_RARE_WEIGHT = 4.0  # anomalous pixels are rare: each counts 1 + this
_BATCHES_ON_GPU = 4  # changed at once: it computes sooner than it is told what to
_MOST_PIXELS = 256 * 256 * 256  # changed at once, so that they fit into memory


class Appearance(NamedTuple):
    """How good images differ from each other, in units of their standard deviation."""

    noise_level: float  # of a pixel from its neighbourhood
    brightness: float  # standard deviation of the images' means
    contrast: float  # standard deviation of the images' standard deviations
    shading: float  # standard deviation of a coarse cell's mean, the image's taken off
    flips: tuple[int, ...]  # axes, of 2 and 3, along which flipped images look good


def train(
    network: nn.Module,
    read: Callable[[np.ndarray], Iterable[Tensor]],
    n_images: int,
    *,
    n_steps: int,
    batch_size: int,
    learning_rate: float,
    patch_sizes: tuple[int, ...],
    appearance: Appearance,
    roi: Tensor | None,
    generator: torch.Generator,
    checkpoint: Checkpoint | None = None,
) -> Iterator[dict[str, float]]:
    """Train the network in place; yield the losses of every step that is left.

    Parameters
    ----------
    network : PatchAutoencoder
    read : callable
        The indices (m, k) of m batches in, one standardised batch (k, C, H, W) after
        the other out.
    n_images : int
    n_steps, batch_size : int
    learning_rate : float
        The peak of a one-cycle schedule.
    patch_sizes : tuple of int
        Largest simulated defects, in pixels.
    appearance : Appearance
    roi : Tensor of shape (H, W) or None
        0 where nothing counts.
    generator : torch.Generator
        The only source of randomness, on the device of the network.
    checkpoint : Checkpoint or None
        Goes on from what it has of the training, and keeps it.

    Yields
    ------
    dict with keys "loss", "reconstruction_loss" and "anomaly_loss"
    """
    optimizer = Optimizer(network, learning_rate, n_steps)
    average = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=_moving_average, use_buffers=True
    )
    network.train()
    order = Order(n_images, n_steps, batch_size, generator)
    if checkpoint is not None:
        checkpoint.follow(
            network=network, average=average, optimizer=optimizer, order=order
        )

    images = chain.from_iterable(map(read, order.groups()))
    at_once = 1 if generator.device.type == "cpu" else _BATCHES_ON_GPU
    for several in _together(images, at_once):
        good = vary(several, appearance, generator)
        changed = simulate(good, patch_sizes, appearance.noise_level, generator)
        seen = (good, *changed) if roi is None else [x * roi for x in (good, *changed)]
        for batch in zip(*(x.split(batch_size) for x in seen), strict=True):
            losses = step(network, *batch)
            optimizer.step(losses["loss"].log())
            average.update_parameters(network)
            order.done()
            yield {name: float(value.detach()) for name, value in losses.items()}
        if checkpoint is not None:
            checkpoint.keep()
    network.load_state_dict(average.module.state_dict())
    network.eval()


def step(
    network: nn.Module, good: Tensor, defective: Tensor, visibility: Tensor
) -> dict[str, Tensor]:
    """Losses of one batch: rebuild the good image, mark where it was changed.

    "loss" is their weighted geometric mean, of which the logarithm is to be minimised:
    so both have a say, of whatever size they are on these images, as in [1]_.

    References
    ----------
    .. [1] Chennupati, S., Sistu, G., Yogamani, S., Rawashdeh, S. (2019). MultiNet++:
       multi-stream feature aggregation and geometric loss strategy for multi-task
       learning. CVPR Workshops.
    """
    device = good.device.type
    with torch.autocast(device, torch.bfloat16, enabled=_fast_bfloat16(device)):
        reconstruction, logits, _ = network(defective)
    rebuilt = F.l1_loss(reconstruction.float(), good)
    labels = F.max_pool2d(visibility, 2)[:, 0]  # n, H/2, W/2
    marked = F.binary_cross_entropy_with_logits(
        logits.float(), labels, weight=1 + _RARE_WEIGHT * labels
    )
    loss = (rebuilt + _LEAST_LOSS) ** (1 - _ANOMALY_SHARE)
    loss = loss * (marked + _LEAST_LOSS) ** _ANOMALY_SHARE
    return {"loss": loss, "reconstruction_loss": rebuilt, "anomaly_loss": marked}


def vary(
    images: Tensor,
    appearance: Appearance,
    generator: torch.Generator,
) -> Tensor:
    """Change good images as good images do differ: place, light, mirrored."""
    n, c, height, width = images.shape
    shift = randint(2 * n, 2 * _SHIFT + 1, generator).view(2, n).tolist()
    mirrored = with_chance(2 * n, 0.5, generator).view(2, n).tolist()
    wide = F.pad(images, (_SHIFT,) * 4, mode="replicate")
    varied = torch.empty_like(images)
    for i in range(n):  # copies of slices: far quicker than one big gather
        top, left = shift[0][i], shift[1][i]
        view = wide[i, :, top : top + height, left : left + width]
        axes = [axis - 1 for axis in appearance.flips if mirrored[axis - 2][i]]
        varied[i] = view.flip(axes) if axes else view

    sharpness = 0.3 * normal(n, 1, 1, 1, rng=generator)
    spread = 0.5 * appearance.contrast + 0.05
    contrast = 1 + spread * normal(n, 1, 1, 1, rng=generator)
    light = (0.5 * appearance.brightness + 0.02) * normal(n, 1, 1, 1, rng=generator)
    colour = 0.03 * normal(n, c, 1, 1, rng=generator)
    varied.add_(_fine(varied) * sharpness)
    shading = 0.5 * appearance.shading * normal(n, 1, _CELLS, _CELLS, rng=generator)
    varied.add_(
        F.interpolate(shading, (height, width), mode="bilinear", align_corners=True)
    )
    return varied.mul_(contrast).add_(light + colour)


def shades(images: Tensor) -> Tensor:
    """Return the means (n, cells) of coarse cells of images, less the image's."""
    cells = F.adaptive_avg_pool2d(images.mean(1, keepdim=True), _CELLS).flatten(1)
    return cells - cells.mean(1, keepdim=True)


def _fine(images: Tensor) -> Tensor:
    """Return what the mean of the four next pixels lacks, for images (n, C, H, W)."""
    x = F.pad(images, (1, 1, 1, 1), mode="replicate")
    next_to = x[:, :, :-2, 1:-1] + x[:, :, 2:, 1:-1]
    next_to.add_(x[:, :, 1:-1, :-2]).add_(x[:, :, 1:-1, 2:])
    return torch.sub(images, next_to, alpha=0.25)


class Order:
    """Which images every step is shown: all in a new order, again and again.

    Parameters
    ----------
    n_images, n_steps, batch_size : int
    generator : torch.Generator
        Its state is kept with the order.
    """

    def __init__(
        self, n_images: int, n_steps: int, batch_size: int, generator: torch.Generator
    ) -> None:
        self._n_images, self._batch_size = n_images, batch_size
        self._generator = generator
        self._n_left = n_steps
        self._n_given = 0  # of the steps that are left: those whose images were given
        self._drawn = torch.empty(0, dtype=torch.long)  # images of the steps left

    def groups(self) -> Iterator[np.ndarray]:
        """Yield places (m, batch_size): of all steps that are known, then draw anew."""
        size, device = self._batch_size, self._generator.device
        while self._n_given < self._n_left:
            start = self._n_given * size
            while len(self._drawn) < start + size:
                order = torch.randperm(
                    self._n_images, generator=self._generator, device=device
                )
                self._drawn = torch.cat([self._drawn, order.cpu()])
            m = min(self._n_left, len(self._drawn) // size) - self._n_given
            self._n_given += m
            yield self._drawn[start : start + m * size].view(m, size).numpy()

    def done(self) -> None:
        """Forget the next step: it was made."""
        self._drawn = self._drawn[self._batch_size :]
        self._n_left -= 1
        self._n_given -= 1

    def state_dict(self) -> dict[str, Any]:
        """Return what is to come."""
        return {
            "n_left": self._n_left,
            "drawn": self._drawn.clone(),
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        drawn = state["drawn"]
        are_places = ((drawn >= 0) & (drawn < self._n_images)).all()
        if not (0 <= state["n_left"] <= self._n_left and are_places):
            raise ValueError("it is the order of another training")
        self._n_left, self._n_given = state["n_left"], 0
        self._drawn = drawn
        self._generator.set_state(state["generator"])


def _together(batches: Iterable[Tensor], n: int) -> Iterator[Tensor]:
    """Put up to n batches at a time into one: fewer of large images, and at the end."""
    several: list[Tensor] = []
    for batch in batches:
        several.append(batch)
        if len(several) >= min(n, _MOST_PIXELS // batch[:, 0].numel()):
            yield torch.cat(several) if len(several) > 1 else batch
            several = []
    if several:
        yield torch.cat(several)


@torch.no_grad()
def _moving_average(averaged: Any, current: Any, n_averaged: Any) -> None:
    """Average over about the last tenth of the steps so far, 100 at the most."""
    weight = 1 / (1 + min(float(n_averaged) / 10, 100.0))
    for mean, value in zip(averaged, current, strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, weight)
        else:
            mean.copy_(value)


def _fast_bfloat16(device: str) -> bool:
    """Tell whether this device computes in bfloat16 faster than in float32."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported()
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return device == "cpu" and bool(supported())
