"""The training loop: good images in, a network that has seen simulated defects out."""

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skad.common.warnings import warn
from skad.network.augmentation import Appearance, augment
from skad.network.checkpoint import Checkpoint
from skad.network.optimizer import Optimizer
from skad.network.synthetic_anomalies import simulate

_ANOMALY_SHARE = 2 / 3  # of the whole loss, on a log scale
_LEAST_LOSS = 1e-4  # of either kind: keeps logarithms finite
_RARE_WEIGHT = 4.0  # anomalous pixels are rare: each counts 1 + this
_BYTES_A_PIXEL = 400  # of a batch, that a training step takes
_BATCHES_ON_GPU = 4  # changed at once: it computes sooner than it is told what to
_MOST_PIXELS = 256 * 256 * 256  # changed at once, so that they fit into memory


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
        good = augment(several, appearance, generator)
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


def warn_of_memory(n: int, size: tuple[int, int], device: torch.device) -> None:
    """Warn where training on so many images at a time may take more than there is."""
    needed = n * size[0] * size[1] * _BYTES_A_PIXEL
    if device.type == "cuda":
        present = torch.cuda.get_device_properties(device).total_memory
    elif hasattr(os, "sysconf"):
        present = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    else:
        return
    if needed > present:
        warn(
            f"Training takes about {needed / 1e9:.0f} GB for {n} images of {size[0]} x "
            f"{size[1]} pixels at a time; this machine has {present / 1e9:.0f} GB. Set "
            "a smaller image_size or batch_size, or cut the images up.",
        )
