"""The network: an encoder, a decoder that rebuilds, a decoder that marks anomalies."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STRIDE = 16  # the encoder halves the resolution four times
FEATURE_STRIDES = (2, 4, 8, 16)  # resolutions of the features that `encode` returns
MAP_STRIDE = 2  # resolution of the anomaly logits, in input pixels
_FIRST_LOGIT = -3.0  # few pixels are anomalous
_WIDTHS = (24, 32, 64, 96)  # channels of the encoder at strides 2, 4, 8 and 16
_REBUILDING_WIDTHS = (64, 48)  # channels of the other decoder at strides 8 and 4
_MARKING_WIDTH = 48  # channels of the anomaly decoder; parts in any pose ask for many


class Block(nn.Sequential):
    """A convolution, normalised over the batch, and its positive part."""

    def __init__(self, n_in: int, n_out: int, *, side: int = 3, stride: int = 1):
        super().__init__(
            nn.Conv2d(n_in, n_out, side, stride, padding=1, bias=False),
            nn.BatchNorm2d(n_out),
            nn.ReLU(inplace=True),
        )


class UpBlock(Block):
    """A block that sees coarse features at twice their resolution, and finer ones."""

    def __init__(self, n_coarse: int, n_finer: int, n_out: int) -> None:
        super().__init__(n_coarse + n_finer, n_out)
        self.n_coarse = n_coarse

    def forward(self, seen: tuple[Tensor, ...]) -> Tensor:
        """Return features (n, n_out, 2h, 2w) of coarse ones (n, n_coarse, h, w).

        Finer ones (n, n_finer, 2h, 2w) are the other part of what is seen, if any.
        """
        coarse, *finer = seen
        x = F.interpolate(coarse, scale_factor=2.0, mode="nearest")
        return super().forward(torch.cat([x, *finer], 1) if finer else x)


def new_network(n_channels: int, generator: torch.Generator) -> "PatchAutoencoder":
    """Make a network with random weights, as torch draws them, from a CPU generator.

    Torch itself would draw them from its global generator, which is not ours to use.
    """
    with torch.device("meta"):  # draws nothing
        network = PatchAutoencoder(n_channels)
    network.to_empty(device="cpu")
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
        if isinstance(module, nn.Conv2d):
            _draw(module, generator)
    nn.init.constant_(network.to_logit[0].bias, _FIRST_LOGIT)  # type: ignore[arg-type]
    return network


@torch.no_grad()
def _draw(module: nn.Conv2d, generator: torch.Generator) -> None:
    """Draw weights and biases evenly up to 1 / sqrt(fan-in)."""
    bound = 1 / math.sqrt(module.weight[0].numel())
    for parameter in (module.weight, module.bias):
        if parameter is not None:
            drawn = torch.empty(parameter.shape)
            parameter.copy_(drawn.uniform_(-bound, bound, generator=generator))


class PatchAutoencoder(nn.Module):
    """Encoder with two decoders: one reconstructs, one marks what is anomalous.

    The reconstruction has to pass the bottleneck; the anomaly decoder also sees the
    encoder's finer features and where the reconstruction differs from the image.
    """

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        a, b, c, d = _WIDTHS
        self.down2 = nn.Sequential(Block(n_channels, a, side=4, stride=2))
        self.down4 = nn.Sequential(Block(a, b, stride=2), Block(b, b))
        self.down8 = nn.Sequential(Block(b, c, stride=2), Block(c, c))
        self.down16 = nn.Sequential(Block(c, d, stride=2), Block(d, d), Block(d, d))

        r8, r4 = _REBUILDING_WIDTHS
        self.rebuild8 = UpBlock(d, 0, r8)
        self.rebuild4 = UpBlock(r8, 0, r4)
        self.to_image = nn.Sequential(
            nn.Conv2d(r4, 16 * n_channels, 3, padding=1), nn.PixelShuffle(4)
        )

        m = _MARKING_WIDTH
        self.mark8 = nn.Sequential(UpBlock(d, c, m), Block(m, m))
        self.residual4 = nn.Sequential(
            nn.PixelUnshuffle(4), nn.Conv2d(16 * n_channels, b // 2, 1)
        )
        self.mark4 = nn.Sequential(UpBlock(m, b + b // 2, m), Block(m, m), Block(m, m))
        self.to_logit = nn.Sequential(nn.Conv2d(m, 4, 3, padding=1), nn.PixelShuffle(2))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return features of images (n, C, H, W), at every stride."""
        x2 = self.down2(x)  # n, a, H/2, W/2
        x4 = self.down4(x2)  # n, b, H/4, W/4
        x8 = self.down8(x4)  # n, c, H/8, W/8
        return x2, x4, x8, self.down16(x8)  # the last n, d, H/16, W/16

    def rebuild(self, x16: Tensor) -> Tensor:
        """Return images (n, C, H, W), rebuilt from the last features."""
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
