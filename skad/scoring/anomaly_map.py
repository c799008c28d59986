"""From images to anomaly maps: kinds of evidence, joined to one map."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skad.common.torch_settings import inference, limit_threads
from skad.images.inputs import batchwise
from skad.network.folding import fold
from skad.network.model import FEATURE_STRIDES, MAP_STRIDE, STRIDE, PatchAutoencoder
from skad.network.preparation import Preparation
from skad.scoring.context import Expectation
from skad.scoring.fusion import (
    N_KNOTS,
    N_VIEW_KNOTS,
    combine,
    on_one_scale,
)
from skad.scoring.gaussians import Gaussians, gaussians_shapes
from skad.scoring.second_pass import has_plain_defect, without_halo
from skad.scoring.tiles import in_tiles

# What counts for how much: the anomaly decoder, the features at strides 2, 4, 8 and 16,
# and the reconstruction. The decoder alone was trained to find defects; the coarsest
# features and the reconstruction see least of them.
VIEWS = (
    (3.0, 1.0, 1.0, 1.0, 0.5, 0.5),  # broad: all of them
    (1.0, 0.0, 0.0, 0.0, 0.0, 0.0),  # the decoder again: where the others are blind
    (0.0, 1.0, 0.0, 0.0, 0.0, 1.0),  # fine: what sees a few pixels, and no farther
)
_N_KINDS = len(VIEWS[0])
_PIXELS_A_PASS = 256 * 256  # on the CPU, where small batches stay in the cache …
PIXELS_AT_A_TIME = 16 * 256 * 256  # … and threads have batches of their own
_PIXELS_A_PASS_ON_GPU = 64 * 256 * 256
_PASSES_ON_GPU = 2  # at a time: one is prepared while the other is computed with
_BIT_DEPTHS = (10, 12, 14)  # of cameras, whose numbers are stored as uint16
_NEARLY_ALL = 3.0  # standard deviations above the mean


class NotFiniteError(ValueError):
    """A network makes something else than finite numbers of images."""

    def __init__(self) -> None:
        super().__init__(
            "The network turns finite images into NaN or infinity: its weights are "
            "damaged, or its training went astray. Load it again, or fit it again "
            "with a lower learning_rate."
        )


class Mapper(ABC):
    """Turns images into maps, by a network that may be on any device."""

    network: nn.Module
    from_arrays: ClassVar[Callable[..., Any]]  # arrays and settings in, a mapper out

    @abstractmethod
    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """Return the maps (k, H, W), float32, of images (k, H, W, C)."""

    @abstractmethod
    def reconstruct(self, batch: np.ndarray) -> np.ndarray:
        """Return what the network makes of images (k, H, W, C)."""

    @abstractmethod
    def over(
        self, images: Any, compute: Callable[[np.ndarray], np.ndarray]
    ) -> Iterator[np.ndarray]:
        """Apply a function of batches to all images, a fixed number at a time."""

    def first_look(self, batch: np.ndarray) -> np.ndarray:
        """Return maps whose maxima are the same: what scores need."""
        return self(batch)

    def score_images(self, images: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return minus the maxima and the means of the images' maps: (n,) and (n,)."""
        scores, means = [], []
        for maps in self.over(images, self.first_look):
            scores.append(-maps.max((1, 2)).astype(np.float64))
            means.append(maps.mean((1, 2), dtype=np.float64))
        return np.concatenate(scores), np.concatenate(means)

    def value_range(self, dtype: np.dtype) -> tuple[int, int] | None:
        """Return what is black and white for the eye; None: what the type can hold.

        Cameras of 10, 12 or 14 bits give images that are dark for their 16 bits.
        """
        return None

    @property
    def roi(self) -> np.ndarray | None:
        """Where to look, bool (H, W); None: everywhere."""
        return None

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return what `from_arrays` needs besides arrays: plain values."""

    @abstractmethod
    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return all other numbers."""

    def __reduce__(self) -> tuple:
        """Pickle arrays: a machine without the device can read them."""
        return partial(self.from_arrays, **self.settings()), (self.to_arrays(),)

    def to(self, device: str) -> Self:
        """Move everything to a device, in place."""
        self.network.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def _batchwise(
        self, images, pixels: int, compute: Callable[[np.ndarray], np.ndarray]
    ) -> Iterator[np.ndarray]:
        """Apply a function of batches to images of so many pixels in the network.

        Raises NotFiniteError where it gives anything but finite numbers.
        """
        if self.device.type == "cpu":
            size = max(1, _PIXELS_A_PASS // pixels)
            at_a_time = max(1, PIXELS_AT_A_TIME // (size * pixels))
        else:
            size, at_a_time = max(1, _PIXELS_A_PASS_ON_GPU // pixels), _PASSES_ON_GPU

        def compute_finite(batch: np.ndarray) -> np.ndarray:
            found = compute(batch)
            if not np.isfinite(found).all():
                raise NotFiniteError
            return found

        return batchwise(images, size, compute_finite, at_a_time)


@dataclass
class AnomalyMapper(Mapper):
    """All that is needed to turn images into anomaly maps.

    Attributes
    ----------
    network : PatchAutoencoder
        As it was trained, in evaluation mode.
    folded : PatchAutoencoder
        The same, quicker: what scores.
    preparation : Preparation
    gaussians : tuple of Gaussians
        Of the features at every stride in `FEATURE_STRIDES`.
    expectation : Expectation
        Of all kinds of evidence but what the anomaly decoder says.
    tails : Tensor of shape (kinds, k, 2)
        How surprising the values of every kind of evidence are, from `fit_tails`.
    view_lines : Tensor of shape (views - 1, k, 2)
        What brings the views to the scale of the first one, from `fit_view_lines`.
    """

    network: PatchAutoencoder
    preparation: Preparation
    gaussians: tuple[Gaussians, ...]
    expectation: Expectation
    tails: Tensor
    view_lines: Tensor
    folded: PatchAutoencoder = field(init=False)

    def __post_init__(self) -> None:
        self.folded = fold(self.network)

    def to(self, device: str) -> Self:
        """Move everything to a device, in place."""
        super().to(device)
        self.folded.to(device)
        self.gaussians = tuple(
            Gaussians(*(t.to(device) for t in level)) for level in self.gaussians
        )
        self.expectation = Expectation(*(t.to(device) for t in self.expectation))
        self.tails = self.tails.to(device)
        self.view_lines = self.view_lines.to(device)
        return self

    @property
    def roi(self) -> np.ndarray | None:
        """Where to look, bool (H, W); None: everywhere."""
        roi = self.preparation.roi
        return None if roi is None else roi.numpy(force=True) > 0

    def value_range(self, dtype: np.dtype) -> tuple[int, int] | None:
        """Return 0 and 2**n - 1, n the bits that nearly all training pixels need."""
        if dtype != np.uint16:
            return None
        seen = self.preparation
        needed = 65535 * (seen.mean.max() + _NEARLY_ALL * seen.std)
        return next(((0, 2**n - 1) for n in _BIT_DEPTHS if needed < 2**n), None)

    @inference()
    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """Return the maps (k, H, W), float32 and >= 0, of images (k, H, W, C)."""
        x = self.preparation(batch, self.device)
        seen = self._look(x)
        maps = self.preparation.to_input(seen.amax(1))
        plain = has_plain_defect(maps)
        if plain.any():  # the whole batch: numbers do not depend on how many they are
            second = without_halo(
                x, seen, maps, look=self._look, to_input=self.preparation.to_input
            )
            maps[plain] = second[plain]
        return maps.cpu().numpy()

    @inference()
    def first_look(self, batch: np.ndarray) -> np.ndarray:
        """Return the maps, halos of defects included: quicker, with the same maxima."""
        x = self.preparation(batch, self.device)
        return self.preparation.to_input(self._look(x).amax(1)).cpu().numpy()

    @inference()
    def reconstruct(self, batch: np.ndarray) -> np.ndarray:
        """Return what the autoencoder makes of images (k, H, W, C), as float64."""

        def rebuild(x: Tensor, *_: tuple[int, int]) -> Tensor:
            return self.folded.rebuild(self.folded.encode(x)[-1])

        # Without names for what lies between: large images are not held twice.
        rebuilt = self.preparation.undo(
            in_tiles(rebuild, self.preparation(batch, self.device), 1)
        )
        return rebuilt.cpu().numpy()  # k, H, W, C

    def _look(self, x: Tensor) -> Tensor:
        """Return far and fine views (k, 2, h/2, w/2) of what the network sees."""

        def join(x: Tensor, corner: tuple[int, int], whole: tuple[int, int]) -> Tensor:
            found = evidence(
                self.folded, x, self.gaussians, self.expectation, corner, whole
            )
            views = on_one_scale(combine(found, self.tails, VIEWS), self.view_lines)
            return torch.stack([views[:, :-1].amax(1), views[:, -1]], 1)

        return in_tiles(join, x, MAP_STRIDE)

    def over(
        self, images, compute: Callable[[np.ndarray], np.ndarray]
    ) -> Iterator[np.ndarray]:
        """Apply a function of batches to all images, a fixed number at a time.

        The number depends on the size of an image alone, so that what comes out does
        not depend on what else is in X.
        """
        height, width = self.preparation.padded_size
        return self._batchwise(images, height * width, compute)

    def settings(self) -> dict[str, Any]:
        """Return what `from_arrays` needs besides arrays: plain values."""
        p = self.preparation
        return {
            "std": p.std,
            "input_size": p.input_size,
            "working_size": p.working_size,
        }

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return all numbers but the settings."""
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        for stride, level in zip(FEATURE_STRIDES, self.gaussians, strict=True):
            tensors |= {f"gaussians{stride}.{k}": v for k, v in level._asdict().items()}
        expectation = self.expectation._asdict()
        tensors |= {f"expectation.{k}": v for k, v in expectation.items()}
        tensors |= {"tails": self.tails, "view_lines": self.view_lines}
        arrays = {name: t.detach().cpu().numpy() for name, t in tensors.items()}
        arrays["mean"] = self.preparation.mean
        if self.preparation.roi is not None:
            arrays["roi"] = self.preparation.roi.numpy()
        return arrays

    @staticmethod
    def array_shapes(
        n_channels: int, working_size: tuple[int, int]
    ) -> dict[str, tuple[int, ...]]:
        """Return the shapes that `to_arrays` gives, without the roi's."""
        with torch.device("meta"):
            state = PatchAutoencoder(n_channels).state_dict()
        shapes = {f"network.{name}": tuple(t.shape) for name, t in state.items()}
        height, width = (s + -s % STRIDE for s in working_size)
        for stride in FEATURE_STRIDES:
            c = state[f"down{stride}.0.0.weight"].shape[0]
            level = gaussians_shapes((height // stride, width // stride), c)
            shapes |= {f"gaussians{stride}.{name}": s for name, s in level.items()}
        return shapes | {
            "expectation.weight": (_N_KINDS - 1, c),  # those at the coarsest stride
            "expectation.bias": (_N_KINDS - 1,),
            "expectation.most": (_N_KINDS - 1,),
            "tails": (_N_KINDS, N_KNOTS, 2),
            "view_lines": (len(VIEWS) - 1, N_VIEW_KNOTS, 2),
            "mean": (n_channels,),
        }

    @classmethod
    @limit_threads()
    def from_arrays(
        cls,
        arrays: dict[str, np.ndarray],
        *,
        std: float,
        input_size: tuple[int, int],
        working_size: tuple[int, int],
    ) -> Self:
        """Rebuild a mapper from what `to_arrays` gave, on the CPU."""
        tensors = {name: torch.from_numpy(a.copy()) for name, a in arrays.items()}
        with torch.device("meta"):  # no weights are drawn, only to be overwritten
            network = PatchAutoencoder(len(arrays["mean"]))
        network.load_state_dict(_group(tensors, "network"), assign=True)
        network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        roi = tensors.get("roi")
        return cls(
            network,
            Preparation(arrays["mean"], std, input_size, working_size, roi),
            tuple(
                Gaussians(**_group(tensors, f"gaussians{s}")) for s in FEATURE_STRIDES
            ),
            Expectation(**_group(tensors, "expectation")),
            tensors["tails"],
            tensors["view_lines"],
        )


def _group(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a group's, by the rest of the name."""
    start = f"{name}."
    return {k.removeprefix(start): t for k, t in tensors.items() if k.startswith(start)}


def evidence(
    network: nn.Module,
    x: Tensor,
    gaussians: tuple[Gaussians, ...],
    expectation: Expectation | None,
    corner: tuple[int, int] = (0, 0),
    whole: tuple[int, int] | None = None,
) -> Tensor:
    """Return maps (n, kinds, h/2, w/2) that rise with how unusual images are.

    What the anomaly decoder says; how far the encoder's features are from those of good
    images, at every stride; and how far the reconstruction of x (n, C, h, w) is off.
    The first is a logarithm of odds; the others are made logarithms because their tails
    are long, and what is to be expected in these surroundings is taken off them. x may
    be a part, cut at this upper left corner, of images whose size as a `whole` is
    (height, width).
    """
    reconstruction, logits, features = network(x)
    whole = whole or (x.shape[2], x.shape[3])
    others = []  # n, 1, h', w' each
    for stride, level, f in zip(FEATURE_STRIDES, gaussians, features, strict=True):
        place, of = ([side // stride for side in pair] for pair in (corner, whole))
        others.append(level.distance(f, place, of)[:, None].log1p_())
    others.append(_cell_means((x - reconstruction).abs_()).log1p_())
    if expectation is not None:
        expected = expectation(features[-1]).split(1, 1)
        for found, off in zip(others, expected, strict=True):
            found -= F.interpolate(off, found.shape[2:], mode="bilinear")
    size = (logits.shape[1], logits.shape[2])
    others = [F.interpolate(found, size, mode="bilinear") for found in others]
    return torch.cat([logits[:, None], *others], 1)


def _cell_means(x: Tensor) -> Tensor:
    """Return means (n, 1, h/2, w/2) of cells of images (n, C, h, w), all channels.

    By a convolution, which is quicker than pooling where the channels come last.
    """
    shape = (1, x.shape[1], MAP_STRIDE, MAP_STRIDE)
    mean = x.new_full(shape, 1 / math.prod(shape))
    return F.conv2d(x, mean, stride=MAP_STRIDE)
