"""Images in, anomaly maps out: branches of evidence, calibrated, joined."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from functools import cached_property, partial
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from skad.common.torch_settings import inference, limit_threads, side_by_side
from skad.encoders.frozen import FrozenEncoder
from skad.images.inputs import batches_of
from skad.network.model import MAP_STRIDE, PatchAutoencoder, fold
from skad.network.preparation import Preparation, to_device
from skad.scoring.encoder_branches import EncoderBranches
from skad.scoring.fusion import (
    N_KNOTS,
    coarsest_branch,
    join,
    piecewise_linear,
    raise_by_whole,
    weights_of,
)
from skad.scoring.gaussians import Gaussians
from skad.scoring.network_branches import N_BRANCHES, STRIDES, network_branches
from skad.scoring.tiles import ENCODER_MARGIN, MARGIN, TILE, in_tiles

_OWN = "encoder.features.encoder."  # names of an encoder's arrays
PIXELS = {  # in a batch, small enough for the cache, and in all batches at a time
    "cpu": (256 * 256, 16 * 256 * 256),
    "cuda": (64 * 256 * 256, 128 * 256 * 256),
}


class NotFiniteError(ValueError):
    """The network turns images into NaN or infinity."""

    def __init__(self) -> None:
        super().__init__(
            "The network turns finite images into NaN or infinity: its weights are "
            "damaged, or its training diverged. Load it again, or fit it again with a "
            "lower learning_rate."
        )


class Mapper(nn.Module):
    """Turns images into anomaly maps, by a network that may be on any device."""

    network: Any
    network_size: tuple[int, int]  # height and width of an image in the network
    roi: np.ndarray | None = None  # where to look, bool (H, W); None: everywhere
    settings: dict[str, Any]  # what `from_arrays` needs besides arrays: plain values
    from_arrays: Callable[..., Any]
    maps_of: Callable[[Tensor], Tensor]  # (k, H, W), of images (k, H, W, C) as given
    reconstruct: Callable[[np.ndarray], np.ndarray]

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.parameters()).device

    def __reduce__(self) -> tuple:
        """Pickle arrays: a machine without the device can read them."""
        return partial(self.from_arrays, **self.settings), (self.to_arrays(),)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return all numbers but the settings."""
        return {name: t.numpy(force=True) for name, t in self.state_dict().items()}

    def over(
        self, images: Any, compute: Callable[[np.ndarray], np.ndarray]
    ) -> Iterator[np.ndarray]:
        """Apply a function of batches (k, H, W, C) to all images, in order.

        Raises NotFiniteError where it does not give finite numbers.
        """
        pixels_a_batch, pixels_at_a_time = PIXELS[self.device.type]
        pixels = math.prod(self.network_size)
        size = max(1, pixels_a_batch // pixels)
        groups = np.split(np.arange(len(images)), range(size, len(images), size))
        at_a_time = min(max(1, pixels_at_a_time // (size * pixels)), len(groups))

        def compute_finite(batch: np.ndarray) -> np.ndarray:
            # Filled up: rounding in float32 depends on the size of a batch, and scores
            # must not depend on what else is in X.
            n = len(batch)
            full = batch if n == size else batch[np.resize(np.arange(n), size)]
            found = compute(full)[:n]
            if not np.isfinite(found).all():
                raise NotFiniteError
            return found

        with closing(batches_of(images, groups)) as batches:
            yield from side_by_side(compute_finite, batches, at_a_time)

    def score_images(self, images: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return minus the maxima and the means of the images' maps: (n,) and (n,)."""
        return scores_of(self.over(images, self))


def scores_of(maps: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return minus the maxima and the means, (n,) each, of maps (k, H, W)."""
    scores, means = [], []
    for some in maps:
        scores.append(-some.max((1, 2)).astype(np.float64))
        means.append(some.mean((1, 2), dtype=np.float64))
    return np.concatenate(scores), np.concatenate(means)


class AnomalyMapper(Mapper):
    """What gives evidence, the network, an encoder, or both, and how it is joined."""

    tails: Tensor  # (branches, N_KNOTS, 2): knots, from values to calibrated scores
    usual: Tensor  # (2,): mean and standard deviation of good images' mean values

    def __init__(
        self,
        preparation: Preparation,
        network: PatchAutoencoder | None,
        gaussians: Iterable[Gaussians],
        context: nn.Linear | None,
        encoder: EncoderBranches | None,
        tails: Tensor,
        usual: Tensor,
    ) -> None:
        super().__init__()
        self.preparation = preparation
        self.network = network
        self.context = context
        for stride, level in zip(STRIDES, gaussians, strict=network is not None):
            self.add_module(f"gaussians{stride}", level)
        self.encoder = encoder
        self.register_buffer("tails", tails)
        self.register_buffer("usual", usual)
        parts = network is not None, encoder is not None
        self.weights, self.whole_weight = weights_of(*parts)
        self.coarsest = coarsest_branch(*parts)
        self.network_size = preparation.padded_size
        if preparation.roi is not None:
            self.roi = preparation.roi.numpy(force=True) > 0
        names = ("std", "input_size", "working_size")
        self.settings = {name: getattr(preparation, name) for name in names}
        self.settings["has_network"] = network is not None
        self.settings["encoder"] = None if encoder is None else encoder.setting

    @inference()
    def forward(self, batch: np.ndarray) -> np.ndarray:
        """Return the maps (k, H, W), float32 and >= 0, of images (k, H, W, C)."""
        return self.maps_of(to_device(batch, self.device)).cpu().numpy()

    def maps_of(self, batch: Tensor) -> Tensor:
        """Return the maps (k, H, W) of images (k, H, W, C) on the network's device."""
        x = self.preparation.prepare(batch)  # k, C, h, w

        def evidence(*part: Any) -> Tensor:
            return self.joined(self.values(*part))

        return self.to_maps(self.by_tiles(evidence, x, MAP_STRIDE))

    def values(self, x: Tensor, corner: Sequence[int], whole: Sequence[int]) -> Tensor:
        """Return the values of all branches at prepared images, or tiles, (n, C, h, w).

        (branches, n, h/2, w/2), as `network_branches` and `encoder_branches` give them.
        """
        found = []
        if self.network is not None:
            levels = [getattr(self, f"gaussians{stride}") for stride in STRIDES]
            parts = self.folded, x, levels, self.context
            found.append(network_branches(*parts, corner, whole))
        if self.encoder is not None:
            found.append(self.encoder(x, corner, whole))
        return torch.cat(found)

    def joined(self, values: Tensor) -> Tensor:
        """Join values (branches, n, h/2, w/2): (n, 2, h/2, w/2), for `to_maps`."""
        scores = piecewise_linear(values, self.tails)
        return torch.stack([join(scores, self.weights), values[self.coarsest]], 1)

    def to_maps(self, evidence: Tensor) -> Tensor:
        """Turn what `joined` gives, of whole images, into maps (k, H, W)."""
        raised = self.raised(*evidence.unbind(1))
        return self.preparation.to_input(raised.expm1_())

    def raised(self, joined: Tensor, of_whole: Tensor) -> Tensor:
        """Raise joined scores (k, h/2, w/2) where images as a whole are unusual."""
        inside = self.inside
        joined = joined * inside
        means = (of_whole * inside).sum((1, 2)) / inside.sum()
        part = self.whole_weight / sum(self.weights)
        return raise_by_whole(joined, means, self.usual, part)

    @inference()
    def reconstruct(self, batch: np.ndarray) -> np.ndarray:
        """Return what the autoencoder makes of images (k, H, W, C), as float64."""
        if self.network is None:
            raise ValueError(
                "This detector was fitted with epochs=0: it has an encoder and no "
                "autoencoder that could reconstruct. Fit it with epochs > 0."
            )

        def rebuild(x: Tensor, *_: Sequence[int]) -> Tensor:
            return self.folded.rebuild(self.folded.encode(x)[-1])

        # Without a name for x: large images are not held twice.
        rebuilt = self.by_tiles(rebuild, self.preparation(batch, self.device), 1)
        return self.preparation.undo(rebuilt).cpu().numpy()

    def by_tiles(
        self, compute: Callable[..., Tensor], x: Tensor, stride: int
    ) -> Tensor:
        """Compute maps of images (k, C, h, w), tile by tile where they are large."""
        margin = MARGIN if self.encoder is None else ENCODER_MARGIN
        if x.shape[2] * x.shape[3] <= (TILE + 2 * margin) ** 2:
            return compute(x, (0, 0), x.shape[2:])
        return in_tiles(compute, x, stride, margin)

    @cached_property  # which is no part of the state
    def folded(self) -> PatchAutoencoder:
        """The network's function in less arithmetic."""
        return fold(self.network)

    @cached_property
    def inside(self) -> Tensor:
        """Where maps show the image and the roi: (h/2, w/2), 0 or 1."""
        return self.preparation.inside(MAP_STRIDE).float().to(self.device)

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move everything to a device, in place."""
        before = self.device
        super().to(*args, **kwargs)
        if self.device != before:
            for name in ("folded", "inside"):
                self.__dict__.pop(name, None)
        return self

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return all numbers but the settings."""
        arrays = super().to_arrays()
        if self.own_encoder is not None:
            arrays = {k: a for k, a in arrays.items() if not k.startswith(_OWN)}
        arrays["mean"] = self.preparation.mean
        if self.preparation.roi is not None:
            arrays["roi"] = self.preparation.roi.numpy()
        return arrays

    @property
    def own_encoder(self) -> FrozenEncoder | None:
        """An encoder of the user's own, which is no part of the arrays."""
        found = None if self.encoder is None else self.encoder.features.encoder
        return None if found is None or found.name is not None else found

    def __reduce__(self) -> tuple:
        """Pickle arrays, and an encoder of the user's own."""
        settings = self.settings | {"own_encoder": self.own_encoder}
        return partial(self.from_arrays, **settings), (self.to_arrays(),)

    @classmethod
    @limit_threads()
    def from_arrays(
        cls,
        arrays: dict[str, np.ndarray],
        *,
        has_network: bool,
        encoder: dict[str, Any] | None,
        own_encoder: FrozenEncoder | None = None,
        **settings: Any,
    ) -> Self:
        """Rebuild a mapper from what `to_arrays` gave, on the CPU."""
        tensors = {name: torch.from_numpy(a.copy()) for name, a in arrays.items()}
        mean, roi = tensors.pop("mean").numpy(), tensors.pop("roi", None)
        preparation = Preparation(mean, roi=roi, **settings)
        mapper = cls._empty(preparation, has_network, encoder, own_encoder)
        own = {k: t for k, t in mapper.state_dict().items() if k.startswith(_OWN)}
        tensors |= own if own_encoder is not None else {}
        mapper.load_state_dict(tensors, assign=True)
        return mapper.eval().to(memory_format=torch.channels_last)

    @classmethod
    def array_shapes(
        cls,
        n_channels: int,
        working_size: tuple[int, int],
        has_network: bool,
        encoder: dict[str, Any] | None,
        own_encoder: FrozenEncoder | None = None,
    ) -> dict[str, tuple[int, ...]]:
        """Return the shapes that `to_arrays` gives, without the roi's."""
        mean = np.broadcast_to(0.0, n_channels)  # takes no memory
        preparation = Preparation(mean, 1.0, working_size, working_size)
        mapper = cls._empty(preparation, has_network, encoder, own_encoder)
        shapes = {name: tuple(t.shape) for name, t in mapper.state_dict().items()}
        if own_encoder is not None:
            shapes = {k: s for k, s in shapes.items() if not k.startswith(_OWN)}
        return shapes | {"mean": (n_channels,)}

    @classmethod
    def _empty(
        cls,
        preparation: Preparation,
        has_network: bool,
        encoder: dict[str, Any] | None,
        own_encoder: FrozenEncoder | None,
    ) -> Self:
        """Return a mapper without values, which takes no memory."""
        with torch.device("meta"):
            network = context = branches = None
            gaussians = []
            if has_network:
                network = PatchAutoencoder(len(preparation.mean))
                for stride in STRIDES:
                    c = getattr(network, f"down{stride}")[0][0].out_channels
                    size = [side // stride for side in preparation.padded_size]
                    gaussians.append(Gaussians.empty(c, size))
                context = nn.Linear(c, N_BRANCHES - 1)
            if encoder is not None:
                branches = EncoderBranches.empty(preparation, encoder, own_encoder)
            weights, _ = weights_of(has_network, encoder is not None)
            tails = torch.empty(len(weights), N_KNOTS, 2)
            usual = torch.empty(2)
            return cls(preparation, network, gaussians, context, branches, tails, usual)
