"""From images to anomaly maps by the old network: where its reconstruction is off."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from skad.common.torch_settings import inference, limit_threads
from skad.images.inputs import Images, Subset
from skad.network.dense import DenseAutoencoder, from_state, state_shapes
from skad.network.preparation import to_unit_range
from skad.scoring.anomaly_map import Mapper

_WINDOW = 9  # pixels; of the windows tried, the best on real images
_PREFIX = "network."


@dataclass
class DenseMapper(Mapper):
    """Turns images of any size into anomaly maps of that size.

    Attributes
    ----------
    network : DenseAutoencoder
        In evaluation mode.
    input_size : (height, width)
        Of the images; they are resized to those of the network.
    """

    network: DenseAutoencoder
    input_size: tuple[int, int]

    def settings(self) -> dict[str, Any]:
        """Return what `from_arrays` needs besides arrays: plain values."""
        return {
            "input_shape": self.network.input_shape,
            "input_size": self.input_size,
        }

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return all numbers but the settings."""
        state = self.network.state_dict()
        return {_PREFIX + name: t.detach().cpu().numpy() for name, t in state.items()}

    @staticmethod
    def array_shapes(input_shape: tuple[int, int, int]) -> dict[str, tuple[int, ...]]:
        """Return the shapes that `to_arrays` gives; allocates nothing."""
        return {_PREFIX + name: s for name, s in state_shapes(input_shape).items()}

    @classmethod
    @limit_threads()
    def from_arrays(
        cls,
        arrays: dict[str, np.ndarray],
        *,
        input_shape: tuple[int, int, int],
        input_size: tuple[int, int],
    ) -> Self:
        """Rebuild a mapper from what `to_arrays` gave, on the CPU."""
        state = {
            name.removeprefix(_PREFIX): torch.from_numpy(array.copy())
            for name, array in arrays.items()
        }
        return cls(from_state(input_shape, state), input_size)

    def prepare(self, batch: np.ndarray) -> Tensor:
        """Turn images (k, H, W, C) into what the network sees, (k, C, h, w)."""
        unit = to_unit_range(batch).astype(np.float32)
        x = torch.from_numpy(unit).to(self.device)
        x = x.permute(0, 3, 1, 2).contiguous()  # k, C, H, W
        if self.input_size != self.network.input_shape[:2]:
            size = self.network.input_shape[:2]
            x = F.interpolate(x, size, mode="bilinear", antialias=True)
        return x

    @inference()
    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """Return the maps (k, H, W), float32 in [0, 1], of images (k, H, W, C)."""
        x = self.prepare(batch)
        error = (x - self.network(x)).abs().mean(1, keepdim=True)  # k, 1, h, w
        maps = F.avg_pool2d(
            error, _WINDOW, 1, _WINDOW // 2, count_include_pad=False
        )  # k, 1, h, w
        return self._resize(maps)[:, 0].cpu().numpy()

    @inference()
    def reconstruct(self, batch: np.ndarray) -> np.ndarray:
        """Return what the network makes of images (k, H, W, C): float32 in [0, 1]."""
        rebuilt = self._resize(self.network(self.prepare(batch)))  # k, C, H, W
        return rebuilt.permute(0, 2, 3, 1).cpu().numpy()

    def over(
        self, images, compute: Callable[[np.ndarray], np.ndarray]
    ) -> Iterator[np.ndarray]:
        """Apply a function of batches to all images, a fixed number at a time."""
        height, width, _ = self.network.input_shape
        return self._batchwise(in_unit_range(images), height * width, compute)

    def _resize(self, x: Tensor) -> Tensor:
        if self.input_size == self.network.input_shape[:2]:
            return x
        return F.interpolate(x, self.input_size, mode="bilinear", align_corners=False)


class _UnitImages(Images):
    """Images that are seen, as they are taken, to be what the network takes."""

    def take(self, indices: np.ndarray) -> np.ndarray:
        batch = super().take(indices)
        for i, image in zip(indices, batch, strict=True):
            if image.min() < 0 or image.max() > 1:
                raise ValueError(
                    "Images for this network must be uint8 or uint16, or hold numbers "
                    f"from 0 to 1; got {image.dtype} from {image.min():.6g} to "
                    f"{image.max():.6g} in image {i}. Scale them as it was trained: "
                    "pixels / 255."
                )
        return batch


def in_unit_range(images: Any) -> Any:
    """Return the same images, and an error for one with numbers out of 0 to 1."""
    if images.format.kind == "integer":  # is scaled by its type
        return images
    if isinstance(images, Subset):
        return Subset(in_unit_range(images.images), images.indices)
    unit = _UnitImages(images.source, images.format, images.dtype)
    unit.watch = images.watch
    return unit
