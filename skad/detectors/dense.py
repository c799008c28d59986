"""DenseAutoencoderDetector: the network of the old script, as a detector."""

import copy
import os
from collections.abc import Iterable, Iterator
from contextlib import closing
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.utils._param_validation import Interval
from torch import Tensor

from skad.common.torch_settings import training_settings
from skad.detectors.base import ImageDetector
from skad.detectors.fitted import Fitted, Learned
from skad.detectors.parameters import CONSTRAINTS, MOST, resolve_device
from skad.detectors.progress import Progress, with_callbacks
from skad.detectors.split import NONE
from skad.images.inputs import Format, batches_of
from skad.network.dense import DenseAutoencoder, train
from skad.network.keras import read_network
from skad.scoring.dense_map import DenseMapper

_NOT_HERE = {"patch_size", "image_size", "roi", "memory"}  # of the other detector


class DenseAutoencoderDetector(ImageDetector):
    """Use a network that the old script trained, with a calibrated threshold.

    The network is read from the script's two files, "model.json" and "model.h5",
    without Keras; h5py reads the weights. The anomaly map is the reconstruction error,
    averaged over 9 x 9 pixels, as a share of the range of values: 0 to 1.

    By default, `fit` trains nothing: all images set the threshold. With ``epochs``
    above 0, it trains the network further as the old script is assumed to have done:
    mean squared error, Adam, no augmentation. `PatchAutoencoderDetector`, which is
    trained from scratch, finds more.

    Other parameters and the attributes are those of `PatchAutoencoderDetector`.

    Parameters
    ----------
    model : path, default=None
        The pair of files: one of them, or their common name, as "Models/model". None
        if `fit` continues from a fitted network, with ``warm_start=True``.
    epochs : int, default=0
        Passes over the training images; 0 = the weights stay.
    batch_size : int, default=32
    learning_rate : float, default=0.001
    validation_fraction : float in (0, 1), default=0.3
        Share of the good images that is held out from training and used for nothing
        but the threshold. With ``epochs=0`` all are.
    target_fpr : float in (0, 1), default=0.05
        Promised false-alarm rate on good images, if they are exchangeable with those
        that set the threshold. Images that the old script trained on are not.
    warm_start : bool, default=False
        `fit` continues from the fitted network, and does not read `model`.

    Examples
    --------
    >>> from skad import DenseAutoencoderDetector
    >>> detector = DenseAutoencoderDetector("Models/model", target_fpr=0.02)
    >>> detector.fit(good).predict(new)  # doctest: +SKIP
    array([ 1, -1])
    """

    _parameter_constraints: ClassVar[dict] = {
        **{name: c for name, c in CONSTRAINTS.items() if name not in _NOT_HERE},
        "model": [str, os.PathLike, None],
        "epochs": [Interval(Integral, 0, MOST, closed="both")],
    }

    def __init__(
        self,
        model=None,
        *,
        image_shape=None,
        epochs=0,
        batch_size=32,
        learning_rate=0.001,
        validation_fraction=0.3,
        contamination="auto",
        target_fpr=0.05,
        device="auto",
        warm_start=False,
        random_state=None,
        verbose=0,
    ):
        self.model = model
        self.image_shape = image_shape
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.validation_fraction = validation_fraction
        self.contamination = contamination
        self.target_fpr = target_fpr
        self.device = device
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    @with_callbacks
    def fit(self, X, y=None, *, groups=None):
        """Set the threshold from good images, after training on some if `epochs` > 0.

        X, y, groups, errors and warnings are those of `PatchAutoencoderDetector.fit`.
        Images have as many channels as the network takes; numbers other than uint8 and
        uint16 are from 0 to 1. Raises FileNotFoundError if there is no `model`, a
        ValueError if it is another network, ImportError without h5py.
        """
        self._validate_params()
        images = self._images_to_fit(X)
        if self.warm_start and hasattr(self, "_fitted"):
            network = copy.deepcopy(self.network_)
        else:
            network = self._read_network()
        found, expected = images.format.image_shape[2], network.input_shape[2]
        if found != expected:
            raise ValueError(
                f"The network takes images with {expected} channel(s); X has {found}. "
                f"Read them so: skad.read_images(path, gray={expected == 1})."
            )
        share = float(self.validation_fraction) if self.epochs else 1
        data = self._split(images, y, groups, share)
        mapper = DenseMapper(network, images.format.image_shape[:2])
        mapper.to(resolve_device(self.device))
        with (
            training_settings(),
            self._following(X, y, int(self.epochs)) as progress,
        ):
            history = self._train(mapper, data, progress) if self.epochs else []
            scores, means = mapper.score_images(images.subset(data.split.calibration))
            self._finish_fit(X, data, Learned(mapper, scores, means, history))
        return self

    def _train(
        self, mapper: DenseMapper, data: Any, progress: Progress | None
    ) -> list[dict]:
        """Train the mapper's network in place, and return the history."""
        training = data.split.training

        def read(places: Iterable[np.ndarray]) -> Iterator[Tensor]:
            chosen = (training[i] for i in places)
            with closing(batches_of(data.images, chosen)) as batches:
                yield from map(mapper.prepare, batches)

        return train(
            mapper.network,
            read,
            len(training),
            epochs=int(self.epochs),
            batch_size=int(self.batch_size),
            learning_rate=float(self.learning_rate),
            generator=torch.Generator().manual_seed(data.seed),
            progress=progress,
        )

    def read_model(self):
        """Read the network alone: it gives scores and maps, but no verdicts.

        For uint8 and uint16 images of the network's size, (H, W) or (H, W, 3);
        `calibrate` with good images sets the threshold. Raises what `fit` raises.
        """
        self._validate_params()
        network = self._read_network()
        height, width, n_channels = network.input_shape
        shape = (height, width) if n_channels == 1 else network.input_shape
        mapper = DenseMapper(network, (height, width))
        mapper.to(resolve_device(self.device))
        format = Format(shape, network.input_shape, "integer")
        provenance = {"source": str(self.model)}
        self._fitted = Fitted(mapper, format, [], NONE, provenance)
        return self

    def _read_network(self) -> DenseAutoencoder:
        if self.model is None:
            raise ValueError(
                "model must be the path of a model of the old script, as "
                '"Models/model"; got None. Name it, or set warm_start=True to go on '
                "from the network of a detector that is fitted."
            )
        return read_network(self.model)
