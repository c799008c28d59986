"""From good images to all that a detector knows of them, the threshold aside."""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from skad import __version__
from skad.common.threads import threads_for
from skad.common.warnings import warn
from skad.images.batches import batches_of, one_by_one
from skad.network.checkpoint import Checkpoint
from skad.network.model import new_network
from skad.network.preparation import Preparation, to_unit_range
from skad.network.training import Appearance, shades, train
from skad.scoring.anomaly_map import Mapper, NotFiniteError
from skad.scoring.fitting import fit_mapper

_MOST_LOOKED_AT = 256  # images from which statistics are estimated
_EPOCH_FLOOR = 64  # images an epoch, at least …
_FLOOR_PIXELS = 256  # … but no more than the image has pixels, divided by this
_AXES = (2, 3)  # of images (n, C, H, W), along which they may be flipped
_FLIP_QUANTILE = 0.9  # of the distances between two good images
_SQUARABLE = 256  # powers of two whose squares, and sums of them, float64 holds
_LEAST_EXPONENT = -1074  # of a float64
_ROUNDING = 1e-12  # of the mean: what varies less is constant
_BYTES_A_PIXEL = 400  # of a batch, that a training step takes
_MOST_APART = 30.0  # times, that channels' standard deviations differ by unnoticed


@dataclass(frozen=True)
class Settings:
    """The training parameters of a detector, checked and made definite."""

    patch_sizes: tuple[int, ...]
    working_size: tuple[int, int]
    epochs: int
    batch_size: int
    learning_rate: float
    device: str
    version: str = __version__  # so that a memory keeps what each version trained apart


@dataclass
class Learned:
    """What training gives."""

    mapper: Mapper
    calibration_scores: np.ndarray  # (m,), higher = more normal
    calibration_means: np.ndarray  # (m,), mean values of their maps
    history: list[dict[str, float]]


def learn(
    images: Any,
    training: np.ndarray,
    calibration: np.ndarray,
    settings: Settings,
    seed: int,
    roi: np.ndarray | None,
    start: dict[str, np.ndarray] | None,
    progress: Callable[[int, int, dict[str, float]], None] | None,
    checkpoint: Checkpoint | None,
) -> Learned:
    """Train on some of the images, score the others.

    Parameters
    ----------
    images : Images
    training, calibration : ndarray of int
        Places of the images to learn from, and of those held out.
    settings : Settings
    seed : int
        The only source of randomness.
    roi : ndarray of bool of shape (H, W) or None
    start : dict or None
        State of a network to go on from.
    progress : callable or None
        Told the step, the number of steps and the losses, after every step.
    checkpoint : Checkpoint or None
        Goes on from what it has of the training, and keeps it.

    Returns
    -------
    Learned
    """
    device = torch.device(settings.device)
    first_weights = torch.Generator().manual_seed(seed)
    network = new_network(images.format.image_shape[2], first_weights).to(device)
    if start is not None:
        network.load_state_dict({k: torch.from_numpy(v) for k, v in start.items()})
    generator = torch.Generator(device).manual_seed(seed)

    sample = np.random.RandomState(seed).permutation(training)[:_MOST_LOOKED_AT]
    preparation = _prepare(images, sample, settings.working_size, roi)
    appearance = _measure(images, sample, preparation, device)

    def read(places: np.ndarray) -> Iterator[Tensor]:
        with closing(batches_of(images, training[places])) as batches:
            for batch in batches:
                yield preparation(batch, device)

    n_an_epoch = _images_an_epoch(len(training), settings.working_size)
    # Batch normalisation needs two images.
    batch_size = max(2, min(settings.batch_size, n_an_epoch))
    _warn_of_memory(batch_size, settings.working_size, device)
    n_steps = -(-n_an_epoch // batch_size)
    history = History(settings.epochs, n_steps, progress)
    if checkpoint is not None:
        checkpoint.follow(history=history)
    losses = train(
        network,
        read,
        len(training),
        n_steps=settings.epochs * n_steps,
        batch_size=batch_size,
        learning_rate=settings.learning_rate,
        patch_sizes=settings.patch_sizes,
        appearance=appearance,
        roi=None if roi is None else preparation.inside(1).float().to(device),
        generator=generator,
        checkpoint=checkpoint,
    )
    with threads_for(batch_size * math.prod(settings.working_size)):
        for step in losses:
            check_not_astray(step["loss"], settings.learning_rate)
            history.note(step)
    try:
        mapper = fit_mapper(
            network, preparation, images, sample, _combined(appearance.flips)
        )
        scores, means = score_images(mapper, images.subset(calibration))
    except (NotFiniteError, torch.linalg.LinAlgError) as error:  # type: ignore
        raise _astray(settings.learning_rate) from error
    return Learned(mapper, scores, means, history.epochs)


def score_images(mapper: Mapper, images: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return minus the maxima and the means of the images' maps: (n,) and (n,)."""
    scores, means = [], []
    for maps in mapper.over(images, mapper.first_look):
        scores.append(-maps.max((1, 2)).astype(np.float64))
        means.append(maps.mean((1, 2), dtype=np.float64))
    return np.concatenate(scores), np.concatenate(means)


def check_not_astray(numbers: Any, learning_rate: float) -> None:
    """Raise a ValueError where training went astray, and with it what it computes."""
    if not np.isfinite(numbers).all():
        raise _astray(learning_rate)


def _astray(learning_rate: float) -> ValueError:
    return ValueError(
        f"training with learning_rate={learning_rate} went astray: it computes NaN "
        "or infinity. Lower learning_rate."
    )


def _warn_of_memory(n: int, size: tuple[int, int], device: torch.device) -> None:
    """Warn where training on so many images at a time may take more than there is."""
    needed = n * size[0] * size[1] * _BYTES_A_PIXEL
    if device.type == "cuda":
        present = torch.cuda.get_device_properties(device).total_memory
    elif hasattr(os, "sysconf"):
        present = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    else:
        return
    if needed > present:
        warn(
            f"Training takes about {needed / 1e9:.0f} GB for {n} images of {size[0]} x "
            f"{size[1]} pixels at a time; this machine has {present / 1e9:.0f} GB. Set "
            "a smaller image_size or batch_size, or cut the images up.",
        )


def _images_an_epoch(n_images: int, size: tuple[int, int]) -> int:
    return max(n_images, min(_EPOCH_FLOOR, size[0] * size[1] // _FLOOR_PIXELS))


class History:
    """The means of the losses of every epoch.

    Parameters
    ----------
    n_epochs : int
    n_steps : int
        Of an epoch.
    progress : callable or None
        Told the step, the number of steps and the losses, after every step.
    """

    def __init__(
        self,
        n_epochs: int,
        n_steps: int,
        progress: Callable[[int, int, dict[str, float]], None] | None,
    ) -> None:
        self.epochs: list[dict[str, float]] = []
        self._steps: list[dict[str, float]] = []  # of the epoch that is not over
        self._n_epochs, self._n_steps = n_epochs, n_steps
        self._progress = progress

    def note(self, step: dict[str, float]) -> None:
        """Take down the losses of the next step."""
        self._steps.append(step)
        if self._progress is not None:
            n_done = len(self.epochs) * self._n_steps + len(self._steps)
            self._progress(n_done, self._n_epochs * self._n_steps, step)
        if len(self._steps) == self._n_steps:
            means = {
                name: float(np.mean([s[name] for s in self._steps])) for name in step
            }
            self.epochs.append({"epoch": len(self.epochs) + 1, **means})
            self._steps = []

    def state_dict(self) -> dict[str, Any]:
        """Return what was taken down so far."""
        return {"epochs": self.epochs, "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.epochs, self._steps = state["epochs"], state["steps"]


def _prepare(
    images: Any,
    sample: np.ndarray,
    working_size: tuple[int, int],
    roi: np.ndarray | None,
) -> Preparation:
    """Mean and standard deviation of the pixels that count."""
    counts = slice(None) if roi is None else roi
    means, variances, exponents = [], [], []
    for batch in one_by_one(images, sample):
        image = to_unit_range(batch)[0]
        pixels = image[counts].reshape(-1, image.shape[2]).astype(np.float64)
        exponents.append(_exponent(pixels))
        means.append(pixels.mean(0))
        variances.append(np.ldexp(pixels, -exponents[-1]).var(0))
    mean = np.mean(means, 0)
    top = max(exponents)
    below = np.subtract(exponents, top)[:, np.newaxis]
    variance = np.mean(np.ldexp(variances, 2 * below), 0)  # within the images …
    variance += np.var(np.ldexp(means, -top), 0)  # … and between them
    stds = np.ldexp(np.sqrt(variance), top)
    if images.format.kind != "integer":  # integers share the scale of their type
        _warn_of_scales(stds)
    std = float(np.ldexp(np.sqrt(np.mean(np.square(np.ldexp(stds, -top)))), top))
    rounding = _ROUNDING * float(np.abs(mean).max())  # of images of one flat colour
    return Preparation(
        mean=mean,
        std=std if std > rounding else 1.0,
        input_size=images.format.image_shape[:2],
        working_size=working_size,
        roi=None if roi is None else torch.from_numpy(roi.astype(np.float32)),
    )


def _exponent(pixels: np.ndarray) -> int:
    """Return a power of two to divide numbers by, so that they can be squared."""
    largest = max(pixels.max(), -pixels.min())
    exponent = int(np.frexp(largest)[1]) if largest else _LEAST_EXPONENT
    return 0 if abs(exponent) < _SQUARABLE else exponent


def _warn_of_scales(stds: np.ndarray) -> None:
    """Warn where some channels are too faint beside others to be seen."""
    faint = np.flatnonzero((stds > 0) & (stds < stds.max() / _MOST_APART))
    if len(faint):
        warn(
            f"Channel {faint[0]} of X has a standard deviation of "
            f"{stds[faint[0]]:.3g}, channel {stds.argmax()} one of {stds.max():.3g}. "
            "All are divided by the same number, so defects that show in faint "
            "channels alone are missed. Bring the channels to one scale, for instance "
            "X / X.std((0, 1, 2)).",
        )


def _measure(
    images: Any, sample: np.ndarray, preparation: Preparation, device: torch.device
) -> Appearance:
    """Measure how good images differ from each other."""
    means, deviations, noises, shading, descriptors = [], [], [], [], []
    for image in one_by_one(images, sample):
        x = preparation(image, device)
        means.append(x.mean())
        deviations.append(x.std())
        near, around = (
            F.avg_pool2d(x, k, 1, k // 2, count_include_pad=False) for k in (3, 15)
        )
        noises.append((near - around).abs().median())
        shading.append(shades(x))
        flipped = [preparation.flipped(x, (axis,)) for axis in _AXES]
        descriptors.append(torch.stack([_describe(look) for look in (x, *flipped)]))
    return Appearance(
        noise_level=float(torch.stack(noises).median()) + 0.02,
        brightness=_spread(means),
        contrast=_spread(deviations),
        shading=float(torch.cat(shading).std(0, correction=0).mean()),
        flips=tuple(filter(preparation.is_symmetric, _good_flips(descriptors))),
    )


def _spread(values: list[Tensor]) -> float:
    return float(torch.stack(values).std(correction=0))


def _describe(x: Tensor) -> Tensor:
    """Return coarse views of an image (1, C, h, w) and of the slant of its edges."""
    gray = x.mean(1, keepdim=True)
    down, right = gray[:, :, 1:, :-1], gray[:, :, :-1, 1:]
    here = gray[:, :, :-1, :-1]
    slant = (down - here) * (right - here)  # changes its sign when flipped
    views = [F.adaptive_avg_pool2d(v, 16).flatten() for v in (x, slant)]
    return torch.cat(views)


def _good_flips(descriptors: list[Tensor]) -> tuple[int, ...]:
    """Axes along which images, n times (1 + 2, k), look good when they are flipped.

    They do where a flipped image is typically no farther from the others than one in
    ten of the pairs of images are from each other.
    """
    plain, *flipped = torch.stack(descriptors, 1)
    other = ~torch.eye(len(plain), dtype=torch.bool, device=plain.device)
    if not other.any():
        return ()
    usual = torch.cdist(plain, plain)[other].quantile(_FLIP_QUANTILE)
    apart = (torch.cdist(images, plain)[other].median() for images in flipped)
    return tuple(a for a, far in zip(_AXES, apart, strict=True) if far <= usual)


def _combined(flips: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return all combinations of flips, none first."""
    return [axes for k in range(len(flips) + 1) for axes in combinations(flips, k)]
