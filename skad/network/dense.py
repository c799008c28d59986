"""The network of the old script: an autoencoder whose bottleneck is 64 numbers."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

STRIDE = 8  # the encoder halves the resolution three times
_WIDTHS = (1024, 512, 64, 512, 1024)
_SLOPE = 0.1  # of LeakyReLU
_EPSILON = 1e-7  # Adam's, in Keras


class DenseAutoencoder(nn.Module):
    """Three convolutions down, six dense layers, three convolutions up.

    Its modules stand in the order of Keras's layers. It has no weights of its own: it
    is made on the "meta" device, and filled by `from_keras` or `from_state`.

    Parameters
    ----------
    input_shape : (H, W, C)
        H and W are multiples of 8.
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
        """Rebuild images (n, C, H, W) in [0, 1]."""
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


def from_state(
    input_shape: tuple[int, int, int], state: dict[str, Tensor]
) -> DenseAutoencoder:
    """Make the network of a state, which it takes for its own; on the CPU."""
    network = DenseAutoencoder(input_shape)
    network.load_state_dict(state, assign=True)
    return network.eval()


def from_keras(
    input_shape: tuple[int, int, int], weights: Sequence[NDArray[np.float32]]
) -> DenseAutoencoder:
    """Make the network of Keras's weights: kernel, bias, kernel and so on.

    A kernel of Keras is (rows, columns, in, out) or (in, out).
    """
    names = DenseAutoencoder(input_shape).state_dict()
    state = {
        name: torch.from_numpy(np.moveaxis(array, (-1, -2), (0, 1)).copy())
        if array.ndim > 1
        else torch.from_numpy(array)
        for name, array in zip(names, weights, strict=True)
    }
    return from_state(input_shape, state)


def state_shapes(input_shape: tuple[int, int, int]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the network's state; allocates nothing."""
    state = DenseAutoencoder(input_shape).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def train(
    network: DenseAutoencoder,
    read: Callable[[Iterable[np.ndarray]], Iterable[Tensor]],
    n_images: int,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    generator: torch.Generator,
) -> Iterator[float]:
    """Train on good images as the old script did; yield the loss of every step.

    The mean squared error is made small by Adam [1]_ with Keras's constants.

    Parameters
    ----------
    network : DenseAutoencoder
        Trained in place.
    read : callable
        Turns the indices of batches into images (k, C, H, W) in [0, 1], one batch
        after the other, on the network's device.
    n_images, epochs, batch_size : int
        Each epoch takes every image once, in a new order.
    learning_rate : float
    generator : torch.Generator
        The only source of randomness, on the CPU.

    Yields
    ------
    float

    References
    ----------
    .. [1] Kingma, D. P. and Ba, J. (2015). Adam: a method for stochastic
       optimization. ICLR.
    """
    optimizer = torch.optim.Adam(network.parameters(), learning_rate, eps=_EPSILON)
    network.train()
    for _ in range(epochs):
        order = torch.randperm(n_images, generator=generator)
        for images in read([indices.numpy() for indices in order.split(batch_size)]):
            loss = F.mse_loss(network(images), images)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            yield float(loss.detach())
    network.eval()
