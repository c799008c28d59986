"""The network: an encoder, a reconstruction decoder and a segmentation decoder.

For scoring it is folded: the same function in less arithmetic. Batch normalisation
moves into the kernels, and coarse features are convolved before they are upsampled:
each of the four pixels that come of one depends on 2 x 2 coarse ones, so four kernels
of 2 x 2 do what one of 3 x 3 does [1]_.

References
----------
.. [1] Shi, W., et al. (2016). Real-time single image and video super-resolution using
   an efficient sub-pixel convolutional neural network. CVPR, 1874-1883.
"""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

FEATURE_STRIDES = (2, 4, 8, 16)  # resolutions of the features that `encode` returns
STRIDE = FEATURE_STRIDES[-1]
MAP_STRIDE = 2  # resolution of the anomaly logits, in input pixels
_FIRST_LOGIT = -3.0  # few pixels are anomalous
_WIDTHS = (24, 32, 64, 96)  # channels of the encoder at strides 2, 4, 8 and 16
_RECONSTRUCTION_WIDTHS = (64, 48)  # channels of that decoder at strides 8 and 4
_SEGMENTATION_WIDTH = 48  # channels of that decoder; parts in any pose need many

# Which of a kernel's three rows, over an upsampled image, fall on the first and which
# on the second of two coarse rows: for odd rows of pixels, then for even ones.
_FALL_ON = (((1, 1, 0), (0, 0, 1)), ((1, 0, 0), (0, 1, 1)))


class Block(nn.Sequential):
    """A convolution, batch normalisation and ReLU."""

    def __init__(self, n_in: int, n_out: int, *, side: int = 3, stride: int = 1):
        super().__init__(
            nn.Conv2d(n_in, n_out, side, stride, padding=1, bias=False),
            nn.BatchNorm2d(n_out),
            nn.ReLU(inplace=True),
        )


class UpBlock(Block):
    """A block over upsampled coarse features, and finer ones beside them."""

    def __init__(self, n_coarse: int, n_finer: int, n_out: int) -> None:
        super().__init__(n_coarse + n_finer, n_out)
        self.n_coarse = n_coarse

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        """Turn coarse (n, n_coarse, h, w) and finer ones into (n, n_out, 2h, 2w)."""
        coarse, *finer = features
        x = F.interpolate(coarse, scale_factor=2.0, mode="nearest")
        return super().forward(torch.cat([x, *finer], 1) if finer else x)


class PatchAutoencoder(nn.Module):
    """An encoder with two decoders.

    The reconstruction decoder has only the bottleneck; the segmentation decoder also
    has skip connections and the residual, image minus reconstruction.
    """

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        a, b, c, d = _WIDTHS
        self.down2 = nn.Sequential(Block(n_channels, a, side=4, stride=2))
        self.down4 = nn.Sequential(Block(a, b, stride=2), Block(b, b))
        self.down8 = nn.Sequential(Block(b, c, stride=2), Block(c, c))
        self.down16 = nn.Sequential(Block(c, d, stride=2), Block(d, d), Block(d, d))

        r8, r4 = _RECONSTRUCTION_WIDTHS
        self.rebuild8 = UpBlock(d, 0, r8)
        self.rebuild4 = UpBlock(r8, 0, r4)
        self.to_image = nn.Sequential(
            nn.Conv2d(r4, 16 * n_channels, 3, padding=1), nn.PixelShuffle(4)
        )

        m = _SEGMENTATION_WIDTH
        self.mark8 = nn.Sequential(UpBlock(d, c, m), Block(m, m))
        self.residual4 = nn.Sequential(
            nn.PixelUnshuffle(4), nn.Conv2d(16 * n_channels, b // 2, 1)
        )
        self.mark4 = nn.Sequential(UpBlock(m, b + b // 2, m), Block(m, m), Block(m, m))
        self.to_logit = nn.Sequential(nn.Conv2d(m, 4, 3, padding=1), nn.PixelShuffle(2))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return features of images (n, C, H, W) at every stride."""
        x2 = self.down2(x)  # n, a, H/2, W/2
        x4 = self.down4(x2)  # n, b, H/4, W/4
        x8 = self.down8(x4)  # n, c, H/8, W/8
        return x2, x4, x8, self.down16(x8)  # the last n, d, H/16, W/16

    def rebuild(self, x16: Tensor) -> Tensor:
        """Return images (n, C, H, W), reconstructed from the coarsest features."""
        y8 = self.rebuild8((x16,))  # n, r8, H/8, W/8
        return self.to_image(self.rebuild4((y8,)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Return reconstruction, anomaly logits and features of images (n, C, H, W)."""
        features = self.encode(x)
        _, x4, x8, x16 = features

        reconstruction = self.rebuild(x16)

        y8 = self.mark8((x16, x8))  # n, m, H/8, W/8
        residual = self.residual4(x - reconstruction.detach())
        y4 = self.mark4((y8, x4, residual))  # n, m, H/4, W/4
        return reconstruction, self.to_logit(y4)[:, 0], features


def new_network(n_channels: int, generator: torch.Generator) -> PatchAutoencoder:
    """Make a network with torch's initial weights, drawn from a CPU generator."""
    with torch.device("meta"):  # draws nothing from the global generator
        network = PatchAutoencoder(n_channels)
    network.to_empty(device="cpu")
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
        if isinstance(module, nn.Conv2d):
            bound = 1 / math.sqrt(module.weight[0].numel())  # of fan-in
            for parameter in module.parameters():
                nn.init.uniform_(parameter, -bound, bound, generator)
    nn.init.constant_(network.to_logit[0].bias, _FIRST_LOGIT)  # type: ignore[arg-type]
    # With their channels last in memory, convolutions are faster.
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


@torch.no_grad()
def fold(network: PatchAutoencoder) -> PatchAutoencoder:
    """Return a copy that computes the same in evaluation mode, up to rounding."""
    device = next(network.parameters()).device
    # On the CPU, to be the same to the last bit after the network is saved and loaded.
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
    """An `UpBlock` whose batch normalisation is in its convolution."""

    def __init__(self, conv: nn.Conv2d, n_coarse: int) -> None:
        super().__init__()
        bias: Any = conv.bias
        self.of_coarse = nn.Parameter(_of_quarters(conv.weight[:, :n_coarse]))
        self.bias = nn.Parameter(bias.repeat_interleave(4))
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
