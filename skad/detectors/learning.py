"""From good images to a network and what scores with it: prepare, train, fit, score."""

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

import joblib
import numpy as np
import torch
from torch import Tensor

from skad import __version__
from skad.common.torch_settings import limit_threads
from skad.detectors.progress import Progress
from skad.images.inputs import Images, batches_of
from skad.network.checkpoint import Checkpoint
from skad.network.model import new_network
from skad.network.preparation import fit_preparation, measure_variation
from skad.network.training import diverged, train, warn_of_memory
from skad.scoring.anomaly_map import Mapper, NotFiniteError
from skad.scoring.fitting import fit_mapper

_MAX_SAMPLE = 256  # images from which statistics are estimated
_PIXELS_FOR_THREADS = 2**17  # of a batch: with fewer, several threads are no quicker
_EPOCH_FLOOR = 64  # images an epoch, at least …
_FLOOR_PIXELS = 256  # … but no more than the image has pixels, divided by this


@dataclass(frozen=True)
class TrainingParameters:
    """The parameters that decide a training, each resolved for given images."""

    patch_size: tuple[int, ...]
    image_size: tuple[int, int]
    epochs: int
    batch_size: int
    learning_rate: float
    validation_fraction: float
    device: str
    random_state: int | None
    skad_version: str = __version__  # a memory keeps the trainings of versions apart


@dataclass(frozen=True)
class TrainingTask:
    """All that decides what a training comes to; joblib can hash it."""

    parameters: TrainingParameters
    images: Images
    training: np.ndarray  # places of the images to learn from
    calibration: np.ndarray  # places of those held out
    roi: np.ndarray | None  # (H, W), bool
    start: dict[str, np.ndarray] | None  # weights to begin with; None = new ones
    seed: int  # the only source of randomness

    def checkpoint(self, path: Any) -> Checkpoint:
        """Open the checkpoint of this training; raise where it is of another."""
        sizes = self.parameters.patch_size
        parameters = asdict(self.parameters) | {
            "patch_size": sizes[0] if len(sizes) == 1 else sizes,
            "n_images": len(self.images),
        }
        digests = {
            "images": joblib.hash(self.images),
            "roi": joblib.hash(self.roi),
            "weights to begin with": joblib.hash(self.start),
            "labels or groups": joblib.hash([self.training, self.calibration]),
        }
        return Checkpoint(path, parameters, digests)


@dataclass
class Learned:
    """What training gives."""

    mapper: Mapper
    calibration_scores: np.ndarray  # (m,), higher = more normal
    calibration_means: np.ndarray  # (m,), mean values of their maps
    history: list[dict[str, float]]


def learn(
    task: TrainingTask, progress: Progress | None, checkpoint: Checkpoint | None
) -> Learned:
    """Train a network, fit what scores with it, and score the calibration images."""
    images, parameters, roi = task.images, task.parameters, task.roi
    device = torch.device(parameters.device)
    first_weights = torch.Generator().manual_seed(task.seed)
    network = new_network(images.format.image_shape[2], first_weights).to(device)
    if task.start is not None:
        network.load_state_dict({k: torch.from_numpy(v) for k, v in task.start.items()})
    rng = np.random.RandomState(task.seed)
    sample = rng.permutation(task.training)[:_MAX_SAMPLE]
    preparation = fit_preparation(images, sample, parameters.image_size, roi)
    variation = measure_variation(images, sample, preparation, device)

    def read(places: np.ndarray) -> Iterator[Tensor]:
        with closing(batches_of(images, task.training[places])) as batches:
            for batch in batches:
                yield preparation(batch, device)

    pixels = math.prod(parameters.image_size)
    n_images = max(len(task.training), min(_EPOCH_FLOOR, pixels // _FLOOR_PIXELS))
    # Batch normalisation needs two images.
    batch_size = max(2, min(parameters.batch_size, n_images))
    warn_of_memory(batch_size, parameters.image_size, device)
    is_small = batch_size * pixels < _PIXELS_FOR_THREADS
    with limit_threads(1 if is_small else None):
        history = train(
            network,
            read,
            len(task.training),
            epochs=parameters.epochs,
            epoch_steps=-(-n_images // batch_size),
            batch_size=batch_size,
            learning_rate=parameters.learning_rate,
            patch_sizes=parameters.patch_size,
            variation=variation,
            roi=None if roi is None else preparation.inside(1).float().to(device),
            generator=torch.Generator(device).manual_seed(task.seed),
            progress=progress,
            checkpoint=checkpoint,
        )
    try:
        mapper = fit_mapper(network, preparation, images, sample)
        scores, means = mapper.score_images(images.subset(task.calibration))
    except (NotFiniteError, torch.linalg.LinAlgError) as error:  # type: ignore
        raise diverged(parameters.learning_rate) from error
    return Learned(mapper, scores, means, history)
