"""What `fit` computes: a network, what scores with it, and calibration scores."""

import copy
import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skad.common.torch_settings import limit_threads
from skad.detectors.fitted import Learned
from skad.detectors.progress import Progress
from skad.encoders.frozen import FrozenEncoder
from skad.images.inputs import Images, batches_of
from skad.network.checkpoint import Checkpoint
from skad.network.model import PatchAutoencoder, new_network
from skad.network.preparation import (
    Preparation,
    fit_preparation,
    measure_variation,
)
from skad.network.training import diverged, train
from skad.scoring.anomaly_map import NotFiniteError, scores_of
from skad.scoring.fitting import fit_mapper, in_folds

_MAX_SAMPLE = 256  # images from which statistics are estimated
_N_FOLDS = 10  # of cross-fitted calibration
_PIXELS_FOR_THREADS = 2**17  # of a batch: with fewer, several threads are no quicker
_EPOCH_FLOOR = 64  # images an epoch, at least …
_FLOOR_PIXELS = 256  # … but no more than the image has pixels, divided by this


@dataclass(frozen=True)
class TrainingTask:
    """All that decides what a training comes to; joblib can hash it."""

    parameters: dict[str, Any]  # of the detector, resolved for these images
    images: Images
    training: np.ndarray  # places of the images to learn from
    calibration: np.ndarray  # places of those held out
    parts: np.ndarray | None  # numbers of the groups of those to learn from, if …
    # … they calibrate as well, each with what was learned from other groups
    encoder: str | None  # its name or digest
    roi: np.ndarray | None  # (H, W), bool
    start: dict[str, np.ndarray] | None  # weights to begin with; None = new ones
    seed: int  # the only source of randomness


def learn(
    task: TrainingTask,
    encoder: FrozenEncoder | None,
    progress: Progress | None,
    checkpoint: Checkpoint | None,
) -> Learned:
    """Train a network, fit what scores with it, and score the calibration images."""
    images, p = task.images, task.parameters
    device = torch.device(p["device"])
    rng = np.random.RandomState(task.seed)
    order = rng.permutation(len(task.training))[:_MAX_SAMPLE]
    sample = task.training[order]
    preparation = fit_preparation(images, sample, p["image_size"], task.roi)
    if encoder is not None:
        encoder = copy.deepcopy(encoder).to(device)  # that of the parameter stays
    network: PatchAutoencoder | None = None
    history: list[dict[str, float]] = []
    if p["epochs"]:
        followed = progress, checkpoint
        network, history = train_network(task, preparation, sample, *followed)
    try:
        if task.parts is None:
            parts = in_folds(sample)
            mapper, _ = fit_mapper(network, preparation, images, parts, encoder)
            scores, means = mapper.score_images(images.subset(task.calibration))
        else:
            parts = in_folds(sample, _N_FOLDS, task.parts[order])
            mapper, maps = fit_mapper(network, preparation, images, parts, encoder)
            calibrates = np.isin(np.concatenate(parts), task.calibration)
            scores, means = (found[calibrates] for found in scores_of(maps()))
    except (NotFiniteError, torch.linalg.LinAlgError) as error:  # type: ignore
        raise diverged(p["learning_rate"]) from error
    return Learned(mapper, scores, means, history, task.parts is not None)


def train_network(
    task: TrainingTask,
    preparation: Preparation,
    sample: np.ndarray,
    progress: Progress | None,
    checkpoint: Checkpoint | None,
) -> tuple[PatchAutoencoder, list[dict[str, float]]]:
    """Train a network, or go on with one; with its history."""
    images, p = task.images, task.parameters
    device = torch.device(p["device"])
    first_weights = torch.Generator().manual_seed(task.seed)
    network = new_network(images.format.image_shape[2], first_weights).to(device)
    if task.start is not None:
        network.load_state_dict({k: torch.from_numpy(v) for k, v in task.start.items()})
    variation = measure_variation(images, sample, preparation, device)

    def read(places: np.ndarray) -> Iterator[Tensor]:
        with closing(batches_of(images, task.training[places])) as batches:
            for batch in batches:
                yield preparation(batch, device)

    pixels = math.prod(p["image_size"])
    n_images = max(len(task.training), min(_EPOCH_FLOOR, pixels // _FLOOR_PIXELS))
    # Batch normalisation needs two images.
    batch_size = max(2, min(p["batch_size"], n_images))
    is_small = batch_size * pixels < _PIXELS_FOR_THREADS
    with limit_threads(1 if is_small else None):
        history = train(
            network,
            read,
            len(task.training),
            epochs=p["epochs"],
            epoch_steps=-(-n_images // batch_size),
            batch_size=batch_size,
            learning_rate=p["learning_rate"],
            patch_sizes=p["patch_size"],
            variation=variation,
            roi=None if task.roi is None else preparation.inside(1).float().to(device),
            generator=torch.Generator(device).manual_seed(task.seed),
            progress=progress,
            checkpoint=checkpoint,
        )
    return network, history
