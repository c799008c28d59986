"""What a frozen encoder adds: two more branches of evidence at each pixel."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skad.encoders.frozen import FrozenEncoder
from skad.network.model import MAP_STRIDE
from skad.network.preparation import Preparation
from skad.scoring.gaussians import N_COMPONENTS, Gaussians, principal_components
from skad.scoring.neighbours import Neighbours

FINE, COARSE = 8, 16  # strides of the features of neighbours and of Gaussians
_OF_FINE, _OF_COARSE = (4, 16), (16, 32)  # strides of what joins them
_LEAST_SIDE = 192  # pixels: smaller images are enlarged by a whole factor …
_MOST_ENLARGED = 4  # … up to this one
_LEAST_SPREAD = 1e-3  # of the largest: channels that say nothing stay small
_STD_OF_FLOATS = 0.25  # of numbers without a known range, when they come to an encoder


class EncoderFeatures(nn.Module):
    """Turns the network's input into fine and coarse features of a frozen encoder.

    All channels are brought to one spread. Then coarse features get the length 1; fine
    ones l / (l + m), with the median m of lengths l: features of a plain background,
    which are short, stay so.
    """

    encoder: Any
    scale: Tensor  # (C, 1, 1): from the network's input …
    shift: Tensor  # … to values in [0, 1]
    fine_spread: Tensor  # (c, 1, 1): standard deviations of the channels
    coarse_spread: Tensor
    fine_length: Tensor  # (): the median
    projection: Tensor  # (k, c): the first principal components of coarse features

    def __init__(
        self, encoder: FrozenEncoder, scale: Tensor, shift: Tensor, enlarged: int
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)
        self.enlarged = enlarged
        strides = [stride for _, stride in encoder.layout]
        self.of_fine = _chosen(strides, FINE, _OF_FINE)
        self.of_coarse = _chosen(strides, COARSE, _OF_COARSE)
        n_fine, n_coarse = self.n_channels
        n = min(n_coarse, N_COMPONENTS)
        self.register_buffer("fine_spread", torch.empty(n_fine, 1, 1))
        self.register_buffer("coarse_spread", torch.empty(n_coarse, 1, 1))
        self.register_buffer("fine_length", torch.empty(()))
        self.register_buffer("projection", torch.empty(n, n_coarse))

    @property
    def n_channels(self) -> list[int]:
        """Channels of fine and coarse features, without a projection."""
        layout = self.encoder.layout
        return [sum(layout[i][0] for i in of) for of in (self.of_fine, self.of_coarse)]

    def coarse_size(self, size: Sequence[int]) -> list[int]:
        """Return the size of coarse features of input (height, width)."""
        stride = self.encoder.layout[self.of_coarse[0]][1]
        return [-(-side * self.enlarged // stride) for side in size]

    def fit(self, images: Callable[..., Iterable[tuple[Tensor, Tensor]]]) -> None:
        """Measure the spreads, then the principal components, on some images.

        `images` applies a function to the inputs, one after the other.
        """
        found = zip(*images(self.unscaled), strict=True)
        fine, coarse = (torch.cat(some) for some in found)
        self.fine_spread, self.coarse_spread = _spread(fine), _spread(coarse)
        lengths = torch.linalg.vector_norm(fine / self.fine_spread, dim=1)
        self.fine_length = lengths.median().clamp(min=torch.finfo().tiny)
        scaled = F.normalize(coarse / self.coarse_spread)
        self.projection = principal_components(scaled)

    def unscaled(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return fine and coarse features as the encoder gives them."""
        x = (x * self.scale + self.shift).clamp_(0, 1)
        if self.enlarged > 1:
            x = F.interpolate(x, scale_factor=float(self.enlarged), mode="bilinear")
        found = self.encoder(x)
        fine = _join([found[i] for i in self.of_fine])
        return fine, _join([found[i] for i in self.of_coarse])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return fine and coarse features (n, c, h', w') of input (n, C, h, w)."""
        fine, coarse = self.unscaled(x)
        coarse = F.normalize(coarse / self.coarse_spread).movedim(1, 3)
        coarse = (coarse @ self.projection.T).movedim(3, 1)
        fine = fine / self.fine_spread
        length = torch.linalg.vector_norm(fine, dim=1, keepdim=True)
        return fine / (length + self.fine_length), coarse


class EncoderBranches(nn.Module):
    """The branches of a frozen encoder: neighbours, and a Gaussian per position."""

    def __init__(
        self, features: EncoderFeatures, neighbours: Neighbours, gaussians: Gaussians
    ) -> None:
        super().__init__()
        self.features = features
        self.neighbours = neighbours
        self.gaussians = gaussians

    @property
    def setting(self) -> dict[str, Any]:
        """What `empty` needs, in plain values."""
        encoder = self.features.encoder
        return {
            "name": encoder.name,
            "digest": None if encoder.name is not None else encoder.digest(),
            "n_neighbours": len(self.neighbours.bank),
        }

    @classmethod
    def empty(
        cls,
        preparation: Preparation,
        setting: dict[str, Any],
        own_encoder: FrozenEncoder | None,
    ) -> Self:
        """Return branches without values, but for an encoder of the user's own."""
        encoder = own_encoder
        if encoder is None:
            encoder = FrozenEncoder.named(setting["name"], pretrained=False)
        features = new_features(encoder, preparation, False)
        size = features.coarse_size(preparation.padded_size)
        bank = torch.empty(setting["n_neighbours"], features.n_channels[0])
        gaussians = Gaussians.empty(len(features.projection), size)
        return cls(features, Neighbours(bank), gaussians)

    def forward(self, x: Tensor, corner: Sequence[int], whole: Sequence[int]) -> Tensor:
        """Return the values of both branches, (2, n, h/2, w/2), at x (n, C, h, w)."""
        both = self.neighbours, self.gaussians
        return encoder_branches(self.features, x, *both, corner, whole)


def encoder_branches(
    features: EncoderFeatures,
    x: Tensor,
    neighbours: Neighbours,
    gaussians: Gaussians,
    corner: Sequence[int],
    whole: Sequence[int],
) -> Tensor:
    """Return the values of both branches, (2, n, h/2, w/2), at x (n, C, h, w).

    The distance of fine features from their nearest neighbours, and the logarithm of
    that of coarse features from the Gaussian of their position. x may be a tile, as in
    `network_branches`.
    """
    fine, coarse = features(x)
    place, size = map(features.coarse_size, (corner, whole))
    found = neighbours.distance(fine), gaussians.distance(coarse, place, size).log1p_()
    size = [side // MAP_STRIDE for side in x.shape[2:]]
    return torch.cat(
        [F.interpolate(one[None], size, mode="bilinear") for one in found]
    )  # 2, n, h/2, w/2


def new_features(
    encoder: FrozenEncoder, preparation: Preparation, is_scaled: bool
) -> EncoderFeatures:
    """Return features of an encoder for prepared images, which are not fitted yet.

    Integers come to it as they are, from 0 to 1. Other numbers may have any range, and
    come with the mean 0.5 and the standard deviation 0.25.
    """
    n = len(preparation.mean)
    scale, shift = torch.full((n, 1, 1), _STD_OF_FLOATS), torch.full((n, 1, 1), 0.5)
    if is_scaled:
        scale = torch.full((n, 1, 1), preparation.std)
        shift = torch.from_numpy(preparation.mean).float().reshape(n, 1, 1)
    enlarged = -(-_LEAST_SIDE // min(preparation.padded_size))
    return EncoderFeatures(encoder, scale, shift, min(enlarged, _MOST_ENLARGED))


def _chosen(strides: Sequence[int], wanted: int, ends: tuple[int, int]) -> list[int]:
    """Return the places of the strides between two ends, that wanted first."""
    by_distance = sorted(
        range(len(strides)), key=lambda i: abs(math.log2(strides[i] / wanted))
    )
    inside = [i for i in by_distance if ends[0] <= strides[i] <= ends[1]]
    return inside or by_distance[:1]


def _join(features: list[Tensor]) -> Tensor:
    """Join feature maps (n, c, h, w) at the resolution of the first one."""
    size = (features[0].shape[2], features[0].shape[3])
    joined = []
    for f in features:
        if f.shape[2] > size[0]:
            f = F.adaptive_avg_pool2d(f, size)
        elif f.shape[2] < size[0]:
            f = F.interpolate(f, size, mode="bilinear")
        joined.append(f)
    return torch.cat(joined, 1)


def _spread(features: Tensor) -> Tensor:
    """Return standard deviations (c, 1, 1) of the channels of features (n, c, h, w)."""
    spread = features.std((0, 2, 3), correction=0)[:, None, None]
    return spread.clamp(min=_LEAST_SPREAD * spread.max() + torch.finfo().tiny)
