"""FrozenEncoder: a network trained elsewhere that turns images into feature maps."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor, nn

from skad.encoders.efficientnet_lite import (
    MEAN,
    NAMES,
    STD,
    EfficientNetLite,
    load_pretrained,
)

_PROBE = 128  # side of the image by which strides are found
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


class FrozenEncoder(nn.Module):
    """A pretrained network whose features a detector reads, and never changes.

    Parameters
    ----------
    network : torch.nn.Module
        Maps images (n, 3, h, w) to a list of feature maps (n, c, h / s, w / s), float,
        of strides s from fine to coarse; among them at least one from 4 to 16. This is
        what ``timm.create_model(..., features_only=True)`` gives.
    mean, std : sequence of 3 floats
        What the network expects to be taken off, and to be divided by, for values from
        0 to 1. The defaults are those of most networks trained on ImageNet.

    Examples
    --------
    >>> import torch
    >>> from skad import FrozenEncoder
    >>> network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 8, 8))
    >>> network.forward = lambda x: [network[0](x)]
    >>> encoder = FrozenEncoder(network)
    >>> [tuple(f.shape) for f in encoder(torch.zeros(1, 3, 64, 64))]
    [(1, 8, 8, 8)]
    """

    name: str | None = None  # of an encoder that skad knows
    mean: Tensor  # (3, 1, 1)
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        mean: Sequence[float] = _IMAGENET_MEAN,
        std: Sequence[float] = _IMAGENET_STD,
    ) -> None:
        super().__init__()
        if not isinstance(network, nn.Module):
            raise TypeError(
                "network must be a torch.nn.Module that maps images (n, 3, h, w) to a "
                f"list of feature maps; got {type(network).__name__}."
            )
        self.network = network.eval().requires_grad_(False)
        for name, value in (("mean", mean), ("std", std)):
            tensor = torch.as_tensor(value, dtype=torch.float32, device="cpu")
            if tensor.shape != (3,) or not tensor.isfinite().all():
                raise ValueError(f"{name} must be 3 finite numbers; got {value!r}.")
            self.register_buffer(name, tensor.clone().reshape(3, 1, 1))
        if (self.std <= 0).any():
            raise ValueError(f"std must be 3 numbers > 0; got {std!r}.")

    @classmethod
    def named(cls, name: str, *, pretrained: bool = True) -> Self:
        """Return an encoder that skad knows; without its weights, all is empty."""
        if pretrained:
            network = load_pretrained(name)
        else:
            with torch.device("meta"):
                network = EfficientNetLite(name)
        encoder = cls(network, 3 * [MEAN], 3 * [STD])
        encoder.name = name
        return encoder

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the feature maps of images (n, 1 or 3, h, w) in [0, 1]."""
        x = (x.expand(-1, 3, -1, -1) - self.mean) / self.std
        return self.network(x.contiguous(memory_format=torch.channels_last))

    @cached_property
    def layout(self) -> list[tuple[int, int]]:
        """Channels and stride of every feature map."""
        device = next(self.network.parameters(), self.mean).device
        with torch.device(device), torch.no_grad():
            found = self.network(torch.zeros(1, 3, _PROBE, _PROBE))
        maps = found if isinstance(found, list | tuple) else []
        if not maps or any(not isinstance(f, Tensor) or f.ndim != 4 for f in maps):
            raise ValueError(
                "network must return a list of feature maps (n, c, h, w); got "
                f"{type(found).__name__}. Of timm, use features_only=True."
            )
        return [(f.shape[1], _PROBE // f.shape[2]) for f in maps]

    def digest(self) -> str:
        """Sum up the network's class, weights, mean and std in 64 hex digits."""
        found = hashlib.sha256(type(self.network).__qualname__.encode())
        for name, tensor in sorted(self.state_dict().items()):
            found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            numbers = tensor.cpu().flatten().view(torch.uint8)  # NumPy has no bfloat16
            found.update(numbers.numpy().tobytes())
        return found.hexdigest()


def check_encoder(encoder: Any, n_channels: int) -> Any:
    """Return a `FrozenEncoder`, or None; raise where images do not suit it."""
    if encoder is None:
        return None
    if n_channels not in (1, 3):
        raise ValueError(
            "encoder was trained on colour images, so X must have 1 or 3 channels; got "
            f"{n_channels}. Pass three of them, as X[..., :3], or set encoder=None."
        )
    if isinstance(encoder, FrozenEncoder):
        _ = encoder.layout  # raises where its outputs are wrong
        return encoder
    if not isinstance(encoder, str) or encoder not in NAMES:
        names = ", ".join(f'"{name}"' for name in NAMES)
        raise ValueError(
            f"encoder must be None, {names} or a skad.FrozenEncoder; got {encoder!r}."
        )
    return FrozenEncoder.named(encoder)
