"""The detectors' parameters: what is allowed, and what each comes to."""

import os
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions

from skad import __version__
from skad.common.checks import check_size
from skad.encoders.efficientnet_lite import NAMES
from skad.encoders.frozen import FrozenEncoder

MOST = 2**31 - 1  # pixels, and epochs
_HIGHEST_RATE = 1e30  # steps of more are infinite
_FEW_PIXELS = 16 * 16  # of an image for which the network has one coarsest feature

CONSTRAINTS: dict[str, list] = {
    "patch_size": [Interval(Integral, 2, None, closed="left"), tuple, list],
    "image_size": [Interval(Integral, 1, None, closed="left"), tuple, list, None],
    "image_shape": [tuple, list, None],
    "encoder": [StrOptions(set(NAMES)), FrozenEncoder, None],
    "epochs": [Interval(Integral, 0, MOST, closed="both")],
    "batch_size": [Interval(Integral, 1, None, closed="left")],
    "learning_rate": [Interval(Real, 0, _HIGHEST_RATE, closed="right")],
    "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
    "calibration": [StrOptions({"split", "cross"})],
    "contamination": [StrOptions({"auto"}), Interval(Real, 0, 0.5, closed="right")],
    "target_fpr": [Interval(Real, 0, 1, closed="neither")],
    "roi": ["array-like", str, os.PathLike, None],
    "device": [str],
    "memory": [str, os.PathLike, HasMethods("cache"), None],
    "warm_start": ["boolean"],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
}


def training_parameters(detector: Any, shape: tuple[int, int]) -> dict[str, Any]:
    """Return what decides a training on images (H, W); torch takes no NumPy numbers."""
    size, seed = image_size(detector.image_size, shape), detector.random_state
    return {
        "patch_size": patch_sizes(detector.patch_size),
        "image_size": size,
        "epochs": n_epochs(detector.epochs, size),
        "batch_size": int(detector.batch_size),
        "learning_rate": float(detector.learning_rate),
        "validation_fraction": float(detector.validation_fraction),
        "device": resolve_device(detector.device),
        "random_state": int(seed) if isinstance(seed, Integral) else None,
        "skad_version": __version__,
    }


def check_untrained(detector: Any) -> None:
    """Raise a ValueError where what is set would need another way of training."""
    if detector.epochs == 0 and detector.encoder is None:
        raise ValueError(
            "epochs=0 trains no network, and without encoder there is nothing to score "
            'with. Set encoder="efficientnet-lite0", or epochs to at least 1.'
        )
    if detector.calibration == "cross" and detector.epochs:
        raise ValueError(
            'calibration="cross" would train a network for each fold; got epochs='
            f"{detector.epochs}. Set epochs=0 and an encoder, or "
            'calibration="split".'
        )


def patch_sizes(patch_size: Any) -> tuple[int, ...]:
    """Return the sizes of the largest defects, in pixels."""
    sizes = patch_size if isinstance(patch_size, tuple | list) else (patch_size,)
    are_whole = all(isinstance(size, Integral) for size in sizes)
    if not (sizes and are_whole and min(sizes) >= 2 and max(sizes) <= MOST):
        raise ValueError(
            f"patch_size must be one or more ints, each from 2 to {MOST}; got "
            f"{patch_size!r}."
        )
    return tuple(map(int, sizes))


def image_size(image_size: Any, given: tuple[int, int]) -> tuple[int, int]:
    """Return the working resolution (height, width); None means that of the images."""
    return given if image_size is None else check_size("image_size", image_size)


def n_epochs(epochs: int, size: tuple[int, int]) -> int:
    """Return the epochs for a working resolution; few pixels hold little to learn."""
    pixels = min(size[0] * size[1], _FEW_PIXELS)
    return max(min(1, int(epochs)), int(epochs) * pixels // _FEW_PIXELS)


def resolve_device(device: str) -> str:
    """Turn "auto" into a device; refuse what this machine does not have."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
    except RuntimeError:
        found = None
    if found is None or found.type not in ("cpu", "cuda"):
        raise ValueError(
            f'device must be "auto", "cpu", "cuda" or "cuda:N"; got {device!r}.'
        )
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device={device!r}, but this machine has {torch.cuda.device_count()} CUDA "
            'devices. Use device="auto" or device="cpu".'
        )
    return device


def device_at_hand(device: str) -> str:
    """Return this device, or the CPU where there is no such device."""
    try:
        return resolve_device(device)
    except ValueError:  # stored on a machine with a GPU, loaded on one without
        return "cpu"


def generator(random_state: Any) -> np.random.RandomState:
    """Return a generator; None means a fresh one, not NumPy's global one."""
    fresh = random_state is None
    return np.random.RandomState() if fresh else check_random_state(random_state)
