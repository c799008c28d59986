"""The training loop: network and images in, history out.

Muon [1]_ takes the mean gradient of a kernel as a matrix, output channels by inputs,
and makes its singular values about equal: rare directions are followed as far as
common ones. Its steps are scaled as in [2]_. It needs fewer images than AdamW alone:
see docs/method.md. Biases and normalisation are trained by Adam.

References
----------
.. [1] Jordan, K. et al. (2024). Muon: an optimizer for hidden layers in neural
   networks. https://kellerjordan.github.io/posts/muon/
.. [2] Liu, J. et al. (2025). Muon is scalable for LLM training. arXiv:2502.16982.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam, Muon
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import AveragedModel

from skad.common.torch_settings import limit_threads
from skad.network.checkpoint import Checkpoint
from skad.network.preparation import Variation, augment
from skad.network.random import randperm
from skad.network.synthetic_anomalies import add_anomalies

_ANOMALY_SHARE = 2 / 3  # of the whole loss, on a log scale
_LEAST_LOSS = 1e-4  # added to either loss: keeps logarithms finite
_RARE_WEIGHT = 4.0  # anomalous pixels are rare: each counts 1 + this
_ADAM_RATE = 0.3  # of Muon's learning rate
_RISE = 0.1  # of the steps, up to the peak of the learning rate
_AVERAGED_PART = 10  # the network ends as the average of the last tenth of the steps …
_MOST_AVERAGED = 100.0  # … but of so many at the most
_BATCHES_ON_GPU = 4  # augmented at once: a GPU waits for many small calls …
_PIXELS_AT_ONCE = 256 * 256 * 256  # … but no more than fit into memory

Losses = dict[str, float]
Progress = Callable[[int, int, Losses], None]  # step, number of steps, losses


def train(
    network: nn.Module,
    read: Callable[[np.ndarray], Iterable[Tensor]],
    n_images: int,
    *,
    epochs: int,
    epoch_steps: int,
    batch_size: int,
    learning_rate: float,
    patch_sizes: tuple[int, ...],
    variation: Variation,
    roi: Tensor | None,
    generator: torch.Generator,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
) -> list[Losses]:
    """Train the network in place; return the mean losses of every epoch.

    `read` turns indices (m, k) of m batches into standardised batches (k, C, H, W);
    `learning_rate` is the peak of a one-cycle schedule, and `patch_sizes` are the
    largest synthetic anomalies, in pixels; `roi` (H, W) is 0 where nothing counts. The
    generator, the only source of randomness, is on the network's device. Training
    resumes from the checkpoint, and is saved to it.
    """
    n_steps = epochs * epoch_steps
    optimizer = Optimizer(network, learning_rate, n_steps)
    average = AveragedModel(network, multi_avg_fn=_moving_average, use_buffers=True)
    history: list[Losses] = []  # of every step
    drawn: list[int] = []  # images, in the order in which they are shown

    parts = {"network": network, "average": average, **optimizer.parts}

    def state() -> dict[str, Any]:
        states = {name: part.state_dict() for name, part in parts.items()}
        rng = generator.get_state()
        return states | {"history": history, "drawn": drawn, "generator": rng}

    if checkpoint is not None and checkpoint.found:
        found = checkpoint.found
        for name, part in parts.items():
            part.load_state_dict(found[name])
        history, drawn = found["history"], found["drawn"]
        generator.set_state(found["generator"])
    network.train()
    order = shuffled(drawn, n_images, batch_size, len(history), n_steps, generator)
    batches = chain.from_iterable(map(read, order))
    for images in _together(batches, generator.device):
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
            history.append(
                {name: float(loss.detach()) for name, loss in losses.items()}
            )
            follow(history, n_steps, learning_rate, progress)
        if checkpoint is not None:
            checkpoint.save(state)
    network.load_state_dict(average.module.state_dict())
    network.eval()
    return epoch_means(history, epoch_steps)


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


class Optimizer:
    """Muon and Adam with one-cycle schedules; `learning_rate` is the peak of Muon's.

    The kernels of the network must have the channels-last memory format.
    """

    def __init__(self, network: nn.Module, learning_rate: float, n_steps: int) -> None:
        self._network = network
        self._kernels = [p for p in network.parameters() if p.ndim == 4]
        others = [p for p in network.parameters() if p.ndim != 4]
        # Views: a step of a matrix is a step of its kernel.
        self._matrices = [
            nn.Parameter(_channels_last(p.detach()).view(len(p), -1))
            for p in self._kernels
        ]
        self._muon = Muon(
            self._matrices,
            learning_rate,
            momentum=0.9,
            weight_decay=0.1,
            adjust_lr_fn="match_rms_adamw",
        )
        self._adam = Adam(others, _ADAM_RATE * learning_rate)
        # Of exactly ten rates the first would be the whole rise, which OneCycleLR then
        # divides by zero; a bit shorter, it begins at the peak.
        rise = _RISE if n_steps != 9 else 0.999 * _RISE
        self._schedules = [
            OneCycleLR(
                optimizer,
                optimizer.param_groups[0]["lr"],
                total_steps=n_steps + 1,
                pct_start=rise,
                cycle_momentum=optimizer is self._adam,
            )
            for optimizer in (self._muon, self._adam)
        ]
        parts = (self._muon, self._adam, *self._schedules)
        self.parts: dict[str, Any] = {  # of its state
            f"optimizer {i}": part for i, part in enumerate(parts)
        }

    def step(self, loss: Tensor) -> None:
        """Take a step down the gradient of a loss."""
        self._network.zero_grad(set_to_none=True)
        loss.backward()
        for kernel, matrix in zip(self._kernels, self._matrices, strict=True):
            if kernel.grad is not None:
                matrix.grad = _channels_last(kernel.grad).flatten(1)
        with limit_threads(1):
            self._muon.step()
        self._adam.step()
        for schedule in self._schedules:
            schedule.step()


def shuffled(
    drawn: list[int],
    n_images: int,
    batch_size: int,
    n_done: int,
    n_steps: int,
    generator: torch.Generator,
) -> Iterator[np.ndarray]:
    """Yield indices (m, batch_size) of as many of the steps left as are drawn.

    All images come in a random order, then all in a new one, appended to `drawn`.
    """
    while n_done < n_steps:
        while len(drawn) < (n_done + 1) * batch_size:
            drawn += randperm(n_images, generator).tolist()
        n_known = min(n_steps, len(drawn) // batch_size)
        known = drawn[n_done * batch_size : n_known * batch_size]
        yield np.reshape(known, (-1, batch_size))
        n_done = n_known


def follow(
    history: list[Losses],
    n_steps: int,
    learning_rate: float,
    progress: Progress | None,
) -> None:
    """Report the last step; raise a ValueError if it diverged."""
    if not math.isfinite(history[-1]["loss"]):
        raise diverged(learning_rate)
    if progress is not None:
        progress(len(history), n_steps, history[-1])


def epoch_means(history: list[Losses], n: int) -> list[Losses]:
    """Return the mean losses of every epoch of n steps."""
    epochs = []
    for i in range(0, len(history), n):
        steps = history[i : i + n]
        means = {name: float(np.mean([s[name] for s in steps])) for name in steps[0]}
        epochs.append({"epoch": i // n + 1, **means})
    return epochs


def diverged(learning_rate: float) -> ValueError:
    """Return the error for a training that diverged."""
    return ValueError(
        f"training with learning_rate={learning_rate} diverged: it computes NaN or "
        "infinity. Lower learning_rate."
    )


def _together(batches: Iterator[Tensor], device: torch.device) -> Iterator[Tensor]:
    """Join a few batches into one on a GPU: fewer of large images, and at the end."""
    most = 1 if device.type == "cpu" else _BATCHES_ON_GPU
    for batch in batches:
        n_more = min(most, _PIXELS_AT_ONCE // batch[:, 0].numel()) - 1
        more = list(islice(batches, max(n_more, 0)))
        yield torch.cat([batch, *more]) if more else batch


@torch.no_grad()
def _moving_average(averaged: Any, current: Any, n_averaged: Any) -> None:
    """Move the average of the last steps, in place."""
    weight = 1 / (1 + min(float(n_averaged) / _AVERAGED_PART, _MOST_AVERAGED))
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


def _channels_last(kernel: Tensor) -> Tensor:
    """View a kernel (c_out, c_in, h, w) as (c_out, h, w, c_in)."""
    return kernel.movedim(1, 3)
