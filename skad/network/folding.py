"""The network folded for scoring: the same function in less arithmetic.

Batch normalisation moves into the kernels, and coarse features are not upsampled before
they are convolved: each of the four pixels that come of one depends on 2 x 2 coarse
ones, so four kernels of 2 x 2 do what one of 3 x 3 does [1]_.

References
----------
.. [1] Shi, W., et al. (2016). Real-time single image and video super-resolution using
   an efficient sub-pixel convolutional neural network. CVPR, 1874-1883.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from skad.network.model import Block, PatchAutoencoder, UpBlock

# Which of a kernel's three rows, over an upsampled image, fall on the first and which
# on the second of two coarse rows: for odd rows of pixels, then for even ones.
_FALL_ON = (((1, 1, 0), (0, 0, 1)), ((1, 0, 0), (0, 1, 1)))


@torch.no_grad()
def fold(network: PatchAutoencoder) -> PatchAutoencoder:
    """Return a copy that computes the same in evaluation mode, up to rounding.

    It is made on the CPU, wherever the network is, to be the same to the last bit after
    the network is saved and loaded.
    """
    device = next(network.parameters()).device
    folded: Any = copy.deepcopy(network).cpu().eval()
    _fold_blocks(folded)
    return folded.requires_grad_(False).to(device, memory_format=torch.channels_last)


def _fold_blocks(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, Block):
            conv: Any = fuse_conv_bn_eval(child[0], child[1])  # type: ignore
            if isinstance(child, UpBlock):
                setattr(module, name, _FoldedUpBlock(conv, child.n_coarse))
            else:
                setattr(module, name, nn.Sequential(conv, child[2]))
        else:
            _fold_blocks(child)


class _FoldedUpBlock(nn.Module):
    """An `UpBlock` with this convolution."""

    def __init__(self, conv: nn.Conv2d, n_coarse: int) -> None:
        super().__init__()
        quarters, bias = _of_quarters(conv.weight[:, :n_coarse]), conv.bias
        self.of_coarse = nn.Parameter(quarters)
        self.bias = nn.Parameter(bias.repeat_interleave(4))  # type: ignore[union-attr]
        self.of_finer = nn.Parameter(conv.weight[:, n_coarse:].clone())

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        """Return features (n, c, 2h, 2w), as an `UpBlock` does."""
        coarse, *finer = features
        quarters = F.conv2d(coarse, self.of_coarse, self.bias, padding=1)
        y = F.pixel_shuffle(quarters, 2)[:, :, 1:-1, 1:-1]  # of n, 4c, h + 1, w + 1
        if finer:
            y = F.conv2d(torch.cat(finer, 1), self.of_finer, padding=1).add_(y)
        return y.relu_()


def _of_quarters(kernels: Tensor) -> Tensor:
    """Turn kernels (c, k, 3, 3) for upsampled features into (4c, k, 2, 2) for coarse.

    With a padding of one, the first row of quarters lies above the image, so that pixel
    shuffling puts odd rows of pixels before even ones.
    """
    fall_on = torch.tensor(_FALL_ON, dtype=kernels.dtype, device=kernels.device)
    quarters = torch.einsum("pir,qjs,ckrs->cpqkij", fall_on, fall_on, kernels)
    return quarters.flatten(0, 2)
