"""Anomaly maps of the old script's network: its reconstruction error."""

from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from skad.common.torch_settings import inference, limit_threads
from skad.images.inputs import is_scaled
from skad.network.dense import DenseAutoencoder
from skad.network.preparation import to_device, top_of
from skad.scoring.anomaly_map import Mapper

_WINDOW = 9  # pixels: of the averages tried, the best on real images


class DenseMapper(Mapper):
    """Turns images of one size into anomaly maps of that size."""

    def __init__(self, network: DenseAutoencoder, input_size: tuple[int, int]) -> None:
        super().__init__()
        self.network = network  # in evaluation mode
        self.input_size = input_size  # of the images, which are resized for the network
        self.network_size = network.input_shape[:2]
        self.settings = {"network_shape": network.input_shape, "input_size": input_size}

    @classmethod
    def array_shapes(
        cls, input_shape: tuple[int, int, int]
    ) -> dict[str, tuple[int, ...]]:
        """Return the shapes that `to_arrays` gives; allocates nothing."""
        state = cls(DenseAutoencoder(input_shape), input_shape[:2]).state_dict()
        return {name: tuple(tensor.shape) for name, tensor in state.items()}

    @classmethod
    @limit_threads()
    def from_arrays(
        cls,
        arrays: dict[str, np.ndarray],
        *,
        network_shape: tuple[int, int, int],
        input_size: tuple[int, int],
    ) -> Self:
        """Rebuild a mapper from what `to_arrays` gave, on the CPU."""
        mapper = cls(DenseAutoencoder(network_shape), input_size)
        tensors = {name: torch.from_numpy(a.copy()) for name, a in arrays.items()}
        mapper.load_state_dict(tensors, assign=True)
        return mapper.eval()

    def prepare(self, batch: np.ndarray) -> Tensor:
        """Turn images (k, H, W, C) into the network's input, (k, C, h, w) in [0, 1]."""
        return self._as_input(self._checked(batch))

    @inference()
    def forward(self, batch: np.ndarray) -> np.ndarray:
        """Return the maps (k, H, W), float32 in [0, 1], of images (k, H, W, C)."""
        return self.maps_of(self._checked(batch)).cpu().numpy()

    def maps_of(self, batch: Tensor) -> Tensor:
        """Return the maps (k, H, W) of images (k, H, W, C) on the network's device."""
        x = self._as_input(batch)
        error = (x - self.network(x)).abs().mean(1, keepdim=True)  # k, 1, h, w
        maps = F.avg_pool2d(error, _WINDOW, 1, _WINDOW // 2, count_include_pad=False)
        return _resize(maps, self.input_size)[:, 0]  # k, H, W

    def _checked(self, batch: np.ndarray) -> Tensor:
        low, high = batch.min(), batch.max()
        if not is_scaled(batch.dtype) and (low < 0 or high > 1):
            raise ValueError(
                "Images for this network must be uint8 or uint16, or hold numbers from "
                f"0 to 1; got {batch.dtype} from {low:.6g} to {high:.6g}. "
                "Scale them as it was trained: pixels / 255."
            )
        return to_device(batch, self.device)

    def _as_input(self, batch: Tensor) -> Tensor:
        x = (batch.double() / top_of(batch.dtype)).float()
        x = x.permute(0, 3, 1, 2).contiguous()  # k, C, H, W
        return _resize(x, self.network.input_shape[:2], antialias=True)

    @inference()
    def reconstruct(self, batch: np.ndarray) -> np.ndarray:
        """Return the reconstructions (k, H, W, C), float32 in [0, 1], of images."""
        rebuilt = _resize(self.network(self.prepare(batch)), self.input_size)
        return rebuilt.permute(0, 2, 3, 1).cpu().numpy()


def _resize(x: Tensor, size: tuple[int, int], antialias: bool = False) -> Tensor:
    """Resize images (k, C, h, w), bilinearly."""
    if x.shape[2:] == size:
        return x
    return F.interpolate(x, size, mode="bilinear", antialias=antialias)
