"""The network of the old script: an autoencoder whose bottleneck is 64 numbers."""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skad.network.training import Losses, Progress, epoch_means, follow

STRIDE = 8  # the encoder halves the resolution three times
_LARGEST_SIDE = 4096  # pixels of an image
_WIDTHS = (1024, 512, 64, 512, 1024)
_SLOPE = 0.1  # of LeakyReLU
_EPSILON = 1e-7  # Adam's, in Keras


class DenseAutoencoder(nn.Module):
    """Three convolutions down, six dense layers, three convolutions up.

    Its modules stand in the order of Keras's layers. It is made without weights, on the
    "meta" device. `input_shape` is (H, W, C).
    """

    def __init__(self, input_shape: tuple[int, int, int]) -> None:
        super().__init__()
        height, width, n_channels = input_shape
        self.input_shape = input_shape
        self.bottom = (height // STRIDE, width // STRIDE, 4)
        n = self.bottom[0] * self.bottom[1] * 4
        with torch.device("meta"):
            self.down = nn.ModuleList([_conv(n_channels, 8), _conv(8, 8), _conv(8, 4)])
            self.dense = nn.ModuleList(
                nn.Linear(a, b) for a, b in pairwise((n, *_WIDTHS, n))
            )
            self.up = nn.ModuleList([_conv(4, 4), _conv(4, 8), _conv(8, 8)])
            self.to_image = _conv(8, n_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct images (n, C, H, W) in [0, 1]."""
        for conv in self.down:
            x = F.max_pool2d(_leaky(conv(x)), 2)
        x = x.permute(0, 2, 3, 1).flatten(1)  # n, H/8 * W/8 * 4, as Keras flattens
        for dense in self.dense:
            x = _leaky(dense(x))
        x = x.reshape(-1, *self.bottom).permute(0, 3, 1, 2)  # n, 4, H/8, W/8
        for conv in self.up:
            x = F.interpolate(_leaky(conv(x)), scale_factor=2.0, mode="nearest")
        return torch.sigmoid(self.to_image(x))  # n, C, H, W


def _conv(n_in: int, n_out: int) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, 5, padding=2)


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, _SLOPE)


def is_input_shape(shape: Sequence[int]) -> bool:
    """Tell whether the network can take images (H, W, C)."""
    *sides, n_channels = shape
    fit = all(0 < side <= _LARGEST_SIDE and side % STRIDE == 0 for side in sides)
    return fit and n_channels in (1, 3)


def train(
    network: DenseAutoencoder,
    read: Callable[[Iterable[np.ndarray]], Iterable[Tensor]],
    n_images: int,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    generator: torch.Generator,
    progress: Progress | None = None,
) -> list[Losses]:
    """Train in place as the old script did; return the mean loss of every epoch.

    `read` turns indices of batches into batches (k, C, H, W) of images in [0, 1].
    """
    optimizer = torch.optim.Adam(network.parameters(), learning_rate, eps=_EPSILON)
    epoch_steps = -(-n_images // batch_size)
    history: list[Losses] = []  # of every step
    network.train()
    for _ in range(epochs):
        order = torch.randperm(n_images, generator=generator)
        for images in read([indices.numpy() for indices in order.split(batch_size)]):
            loss = F.mse_loss(network(images), images)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            history.append({"loss": float(loss.detach())})
            follow(history, epochs * epoch_steps, learning_rate, progress)
    network.eval()
    return epoch_means(history, epoch_steps)
