"""From good images to all that a detector knows of them, the threshold aside."""

import math
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skad import __version__
from skad.common.torch_settings import limit_threads
from skad.images.inputs import batches_of
from skad.network.augmentation import flip_combinations, measure_variation
from skad.network.checkpoint import Checkpoint
from skad.network.model import new_network
from skad.network.preparation import fit_preparation
from skad.network.training import (
    History,
    check_finite_loss,
    diverged,
    train,
    warn_of_memory,
)
from skad.scoring.anomaly_map import Mapper, NotFiniteError
from skad.scoring.fitting import fit_mapper

_MOST_LOOKED_AT = 256  # images from which statistics are estimated
_EPOCH_FLOOR = 64  # images an epoch, at least …
_FLOOR_PIXELS = 256  # … but no more than the image has pixels, divided by this
_PIXELS_FOR_THREADS = 2**17  # of a batch: with fewer, several threads are no quicker


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
    preparation = fit_preparation(images, sample, settings.working_size, roi)
    variation = measure_variation(images, sample, preparation, device)

    def read(places: np.ndarray) -> Iterator[Tensor]:
        with closing(batches_of(images, training[places])) as batches:
            for batch in batches:
                yield preparation(batch, device)

    n_an_epoch = _images_an_epoch(len(training), settings.working_size)
    # Batch normalisation needs two images.
    batch_size = max(2, min(settings.batch_size, n_an_epoch))
    warn_of_memory(batch_size, settings.working_size, device)
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
        variation=variation,
        roi=None if roi is None else preparation.inside(1).float().to(device),
        generator=generator,
        checkpoint=checkpoint,
    )
    n_pixels = batch_size * math.prod(settings.working_size)
    with limit_threads(1 if n_pixels < _PIXELS_FOR_THREADS else None):
        for step in losses:
            check_finite_loss(step["loss"], settings.learning_rate)
            history.note(step)
    try:
        mapper = fit_mapper(
            network, preparation, images, sample, flip_combinations(variation.flips)
        )
        scores, means = score_images(mapper, images.subset(calibration))
    except (NotFiniteError, torch.linalg.LinAlgError) as error:  # type: ignore
        raise diverged(settings.learning_rate) from error
    return Learned(mapper, scores, means, history.epochs)


def score_images(mapper: Mapper, images: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return minus the maxima and the means of the images' maps: (n,) and (n,)."""
    scores, means = [], []
    for maps in mapper.over(images, mapper.first_look):
        scores.append(-maps.max((1, 2)).astype(np.float64))
        means.append(maps.mean((1, 2), dtype=np.float64))
    return np.concatenate(scores), np.concatenate(means)


def _images_an_epoch(n_images: int, size: tuple[int, int]) -> int:
    return max(n_images, min(_EPOCH_FLOOR, size[0] * size[1] // _FLOOR_PIXELS))
