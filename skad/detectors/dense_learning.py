"""From good images to all that the old network's detector knows of them."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skad.detectors.learning import Learned
from skad.detectors.split import Split
from skad.images.inputs import batches_of
from skad.network.dense import DenseAutoencoder, from_state, train
from skad.network.training import History, check_finite_loss
from skad.scoring.dense_map import DenseMapper


@dataclass(frozen=True)
class Settings:
    """The training parameters of a detector, checked and made definite."""

    epochs: int
    batch_size: int
    learning_rate: float
    device: str


def copy_of(network: DenseAutoencoder) -> DenseAutoencoder:
    """Return a network with the same weights, on the CPU, that can be trained on."""
    state = {k: t.detach().cpu().clone() for k, t in network.state_dict().items()}
    return from_state(network.input_shape, state)


def learn(
    network: DenseAutoencoder,
    images,
    split: Split,
    settings: Settings,
    seed: int,
    progress: Callable[[int, int, dict[str, float]], None],
) -> Learned:
    """Train a network on some of the images, if at all, and score the others.

    Parameters
    ----------
    network : DenseAutoencoder
        Trained in place.
    images : Images
    split : Split
        Into images to learn from, and those held out.
    settings : Settings
    seed : int
        The only source of randomness.
    progress : callable
        Told the step, the number of steps and the loss, after every step.

    Returns
    -------
    Learned
    """
    mapper = DenseMapper(network, images.format.image_shape[:2])
    mapper.to(settings.device)

    def read(places: Iterable[np.ndarray]) -> Iterator[Tensor]:
        chosen = (split.training[i] for i in places)
        with closing(batches_of(images, chosen)) as batches:
            for batch in batches:
                yield mapper.prepare(batch)

    losses = train(
        network,
        read,
        len(split.training),
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        generator=torch.Generator().manual_seed(seed),
    )
    n_steps = -(-len(split.training) // settings.batch_size)
    history = History(settings.epochs, n_steps, progress)
    for loss in losses:
        check_finite_loss(loss, settings.learning_rate)
        history.note({"loss": loss})
    scores, means = mapper.score_images(images.subset(split.calibration))
    return Learned(mapper, scores, means, history.epochs)
