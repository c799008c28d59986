"""The training loop: good images in, losses out."""

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skad.common.warnings import warn
from skad.network.augmentation import Variation, augment
from skad.network.checkpoint import Checkpoint
from skad.network.optimizer import Optimizer
from skad.network.random import randperm
from skad.network.synthetic_anomalies import add_anomalies

_ANOMALY_SHARE = 2 / 3  # of the whole loss, on a log scale
_LEAST_LOSS = 1e-4  # added to either loss: keeps logarithms finite
_RARE_WEIGHT = 4.0  # anomalous pixels are rare: each counts 1 + this
_BYTES_A_PIXEL = 400  # of a batch, that a training step takes
_BATCHES_ON_GPU = 4  # augmented at once: a GPU waits for many small calls
_MOST_PIXELS = 256 * 256 * 256  # augmented at once, so that they fit into memory


def train(
    network: nn.Module,
    read: Callable[[np.ndarray], Iterable[Tensor]],
    n_images: int,
    *,
    n_steps: int,
    batch_size: int,
    learning_rate: float,
    patch_sizes: tuple[int, ...],
    variation: Variation,
    roi: Tensor | None,
    generator: torch.Generator,
    checkpoint: Checkpoint | None = None,
) -> Iterator[dict[str, float]]:
    """Train the network in place; yield the losses of every step that is left.

    `read` turns indices (m, k) of m batches into standardised batches (k, C, H, W);
    `learning_rate` is the peak of a one-cycle schedule, and `patch_sizes` are the
    largest synthetic anomalies, in pixels; `roi` (H, W) is 0 where nothing counts. The
    generator, the only source of randomness, is on the network's device. Training
    resumes from the checkpoint, and is saved to it.
    """
    optimizer = Optimizer(network, learning_rate, n_steps)
    average = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=_moving_average, use_buffers=True
    )
    order = Order(n_images, n_steps, batch_size, generator)
    if checkpoint is not None:
        checkpoint.follow(
            network=network, average=average, optimizer=optimizer, order=order
        )
    network.train()
    batches = chain.from_iterable(map(read, order.groups()))
    at_once = 1 if generator.device.type == "cpu" else _BATCHES_ON_GPU
    for images in _together(batches, at_once):
        good = augment(images, variation, generator)
        noise_level = variation.noise_level
        changed, visibility = add_anomalies(good, patch_sizes, noise_level, generator)
        if roi is not None:
            good, changed, visibility = good * roi, changed * roi, visibility * roi
        shown = (x.split(batch_size) for x in (good, changed, visibility))
        for batch in zip(*shown, strict=True):
            losses = compute_losses(network, *batch)
            optimizer.step(losses["loss"].log())
            average.update_parameters(network)
            order.n_done += 1
            yield {name: float(value.detach()) for name, value in losses.items()}
        if checkpoint is not None:
            checkpoint.save()
    network.load_state_dict(average.module.state_dict())
    network.eval()


def compute_losses(
    network: nn.Module, good: Tensor, changed: Tensor, visibility: Tensor
) -> dict[str, Tensor]:
    """Return the losses of a batch: rebuild the good image, segment what was changed.

    "loss" is their weighted geometric mean, of which the logarithm is to be minimised:
    so both count, whatever their size on these images, as in [1]_.

    References
    ----------
    .. [1] Chennupati, S., Sistu, G., Yogamani, S., Rawashdeh, S. (2019). MultiNet++:
       multi-stream feature aggregation and geometric loss strategy for multi-task
       learning. CVPR Workshops.
    """
    device = good.device.type
    with torch.autocast(device, torch.bfloat16, enabled=_has_fast_bfloat16(device)):
        reconstruction, logits, _ = network(changed)
    rebuilt = F.l1_loss(reconstruction.float(), good)
    target = F.max_pool2d(visibility, 2)[:, 0]  # n, H/2, W/2
    segmented = F.binary_cross_entropy_with_logits(
        logits.float(), target, weight=1 + _RARE_WEIGHT * target
    )
    loss = (rebuilt + _LEAST_LOSS) ** (1 - _ANOMALY_SHARE)
    loss = loss * (segmented + _LEAST_LOSS) ** _ANOMALY_SHARE
    return {"loss": loss, "reconstruction_loss": rebuilt, "anomaly_loss": segmented}


class Order:
    """The images of every step: all in a random order, then all in a new one.

    Counting the steps made is the caller's: `n_done`.
    """

    def __init__(
        self, n_images: int, n_steps: int, batch_size: int, generator: torch.Generator
    ) -> None:
        self._n_images, self._n_steps, self._size = n_images, n_steps, batch_size
        self._generator = generator
        self._drawn = torch.empty(0, dtype=torch.long)  # since the first step
        self.n_done = 0

    def groups(self) -> Iterator[np.ndarray]:
        """Yield indices (m, batch_size) of as many of the steps left as are drawn."""
        size, n_given = self._size, self.n_done
        while n_given < self._n_steps:
            while len(self._drawn) < (n_given + 1) * size:
                order = randperm(self._n_images, self._generator)
                self._drawn = torch.cat([self._drawn, order.cpu()])
            n_known = min(self._n_steps, len(self._drawn) // size)
            yield self._drawn[n_given * size : n_known * size].view(-1, size).numpy()
            n_given = n_known

    def state_dict(self) -> dict[str, Any]:
        """Return the steps made, and what was drawn so far."""
        generator = self._generator.get_state()
        return {"n_done": self.n_done, "drawn": self._drawn, "generator": generator}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.n_done, self._drawn = state["n_done"], state["drawn"]
        self._generator.set_state(state["generator"])


class History:
    """The mean losses of every epoch, in `epochs`.

    `progress` is told the step, the number of steps and the losses, after every step.
    """

    def __init__(
        self,
        n_epochs: int,
        n_steps: int,
        progress: Callable[[int, int, dict[str, float]], None] | None,
    ) -> None:
        self.epochs: list[dict[str, float]] = []
        self._steps: list[dict[str, float]] = []  # of the epoch that is not over
        self._n_epochs, self._n_steps = n_epochs, n_steps
        self._progress = progress

    def note(self, step: dict[str, float]) -> None:
        """Add the losses of the next step."""
        self._steps.append(step)
        if self._progress is not None:
            n_done = len(self.epochs) * self._n_steps + len(self._steps)
            self._progress(n_done, self._n_epochs * self._n_steps, step)
        if len(self._steps) == self._n_steps:
            means = {
                name: float(np.mean([s[name] for s in self._steps])) for name in step
            }
            self.epochs.append({"epoch": len(self.epochs) + 1, **means})
            self._steps = []

    def state_dict(self) -> dict[str, Any]:
        """Return what was noted so far."""
        return {"epochs": self.epochs, "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.epochs, self._steps = state["epochs"], state["steps"]


def check_finite_loss(loss: float, learning_rate: float) -> None:
    """Raise a ValueError where training diverged."""
    if not np.isfinite(loss):
        raise diverged(learning_rate)


def diverged(learning_rate: float) -> ValueError:
    """Return the error for a training that diverged."""
    return ValueError(
        f"training with learning_rate={learning_rate} went astray: it computes NaN "
        "or infinity. Lower learning_rate."
    )


def warn_of_memory(n: int, size: tuple[int, int], device: torch.device) -> None:
    """Warn where batches of n images may take more memory than there is."""
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


def _together(batches: Iterable[Tensor], n: int) -> Iterator[Tensor]:
    """Join up to n batches into one: fewer of large images, and at the end."""
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


def _has_fast_bfloat16(device: str) -> bool:
    """Tell whether this device computes faster in bfloat16 than in float32."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported()
    return torch.cpu.get_capabilities().get("avx512_bf16", False)
