"""PatchAutoencoderDetector: a scikit-learn outlier detector over images."""

from contextlib import nullcontext
from typing import Any, ClassVar

import numpy as np

from skad.common.checks import check_pickles, check_size, is_whole
from skad.common.torch_settings import training_settings
from skad.detectors.base import ImageDetector
from skad.detectors.fitted import Fitted
from skad.detectors.learning import Learned, TrainingParameters, TrainingTask, learn
from skad.detectors.parameters import (
    CONSTRAINTS,
    image_size,
    n_epochs,
    open_memory,
    patch_sizes,
    resolve_device,
)
from skad.detectors.progress import Progress, following, with_callbacks
from skad.images.inputs import Images
from skad.images.roi import roi_for
from skad.images.several_sizes import as_resized_images, have_several_sizes
from skad.network.checkpoint import HeldCheckpoint, hold


class PatchAutoencoderDetector(ImageDetector):
    """Find anomalies in images, and where they are, after training on good images.

    A small convolutional network is trained from scratch: an autoencoder, and a
    segmentation decoder that learns to mark synthetic anomalies in the good images.
    The anomaly map combines the output of that decoder, the distances of the encoder's
    features from those of good images, and the reconstruction error.

    Images of more than 1216 x 1216 pixels are scored in overlapping tiles: one of
    4000 x 4000 takes less than 1 GB. Training uses whole images, `batch_size` at a
    time.

    Parameters
    ----------
    patch_size : int or tuple of int, default=40
        Size of the largest defect that you expect, in pixels at the working
        resolution. A tuple means defects of several scales.
    image_size : int or (height, width), default=None
        Working resolution; None = as given. Maps come back at the input's resolution.
        If it is set, `fit` takes a list of images of several sizes, too; then all
        methods take images of any size.
    image_shape : (H, W) or (H, W, C), default=None
        Only for 2-D input: what a row of X is flattened from. None means that a row of
        p features is an image of 1 x p pixels with one channel.
    epochs : int, default=75
        Passes over the training images. An epoch shows at least 64 images (fewer, if
        they have less than 16,384 pixels). Images of fewer than 256 pixels, such as
        rows of a few features, get ``epochs * pixels / 256`` epochs, at least one.
    batch_size : int, default=16
        1 counts as 2, for batch normalisation.
    learning_rate : float, default=0.01
        Peak of the one-cycle schedule.
    validation_fraction : float in (0, 1), default=0.3
        Share of the good images, or of their groups, that is held out from training
        and used for nothing but the threshold.
    contamination : "auto" or float in (0, 0.5], default="auto"
        "auto": the threshold follows from `target_fpr`. A float: this share of the
        images given to `fit` is flagged.
    target_fpr : float in (0, 1), default=0.05
        Promised false-alarm rate: a new good image is flagged with at most this
        probability, if it is exchangeable with the held-out ones.
    roi : array-like of shape (H, W), or path of an image file, default=None
        Mask of the region to inspect, at the resolution of the input: bool, or two
        values such as 0 and 255. Pixels outside are ignored everywhere. For an
        `ImageFolder` that resizes its files, a mask of their size is resized, too.
    device : str, default="auto"
        "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1", … Scores
        of one detector agree between devices within a relative error of 1e-3.
    memory : None, path or joblib.Memory, default=None
        Cache of trainings: `fit` trains once for equal data and equal training
        parameters, so a search over thresholds does not retrain. Needs an int
        `random_state`.
    warm_start : bool, default=False
        `fit` continues from the fitted network. Images that it was trained on before,
        and those of their groups, do not set the threshold.
    random_state : int, RandomState instance or None, default=None
        The only source of randomness. On the CPU, an int gives identical detectors if
        torch uses the same number of threads; with another number, training rounds
        differently. Scores of one detector agree within a relative error of 1e-5.
    verbose : int, default=0
        1 = a progress bar with the loss.

    Attributes
    ----------
    network_ : torch.nn.Module
        In evaluation mode.
    offset_ : float
        ``decision_function = score_samples - offset_``.
    pixel_threshold_ : float
        ``-offset_``: a pixel is anomalous where the anomaly map is larger.
    calibration_scores_ : ndarray of shape (m,)
        Sorted scores of the good images that were held out, or passed to `calibrate`.
        `p_value` compares with them.
    promised_fpr_ : float in (0, 1)
        The false-alarm rate that the threshold promises: `target_fpr`, or
        ``1 / (m + 1)`` if that is more. NaN if labels, `contamination` or you set the
        threshold.
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
        (H, W) or (H, W, C) of the training images; (p,) of rows. For images of
        several sizes, what they are resized to.
    n_features_in_ : int
        Number of values in an image.
    feature_names_in_ : ndarray of str of shape (n_features_in_,)
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
        epochs=75,
        batch_size=16,
        learning_rate=0.01,
        validation_fraction=0.3,
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
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.validation_fraction = validation_fraction
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
            other numbers are standardised. A lazy sequence is read in a thread, one
            batch ahead. With `image_size`, a list of images of several sizes works.
        y : array-like of shape (n,), default=None
            Labels, +1 good and -1 anomalous: images labelled -1 are skipped. A y that
            cannot be labels, such as a continuous target, is ignored.
        groups : array-like of shape (n,), default=None
            One label per image: images of one group show one part, as in a burst.
            Either all images of a group train, or one of them, drawn at random, helps
            to set the threshold. `target_fpr` then holds for an image drawn from a
            new group, and m in `promised_fpr_` counts groups. None: near copies form
            groups.
        checkpoint : path, default=None
            File that stores the unfinished training every half minute. After a stop,
            the same call resumes from it, gives the same result and deletes it. The
            version before it, "….previous", replaces a damaged file. Needs an int
            `random_state`.

        Returns
        -------
        self

        Raises
        ------
        OSError
            If `checkpoint` cannot be read or written when training begins;
            BlockingIOError if another fit is writing to it.
        ValueError
            If a parameter is out of range; if images, labels or groups are invalid; if
            there are fewer than 2 good images or, with `warm_start`, no new one; if a
            lazy sequence cannot be pickled, with `memory` or `checkpoint`; if the
            `checkpoint` is of another training; if training diverges.

        Warns
        -----
        UserWarning
            If y looks like labels but is ignored, such as 0 and 1; if there are too
            few held-out images to promise `target_fpr`; if some images are copies or
            near copies; if some channels are much fainter than others; if training may
            need more memory than there is; if `checkpoint` cannot be written any more.
        """
        keeping = nullcontext() if checkpoint is None else hold(checkpoint)
        with keeping as held:
            self._validate_params()
            images = self._images_to_fit(X)
            parameters = self._training_parameters(images)
            self._check_kept(images, held)
            roi = None if self.roi is None else roi_for(images, self.roi)
            start = self._start(images)
            data = self._split(images, y, groups, parameters.validation_fraction, roi)
            task = TrainingTask(
                parameters,
                images,
                data.split.training,
                data.split.calibration,
                roi,
                start,
                data.seed,
            )
            followed = following(self, X, y, parameters.epochs)
            with training_settings(), followed as progress:
                learned = self._train(task, progress, held)
                self._finish_fit(X, data, learned)
        return self

    def _images_to_fit(self, X: Any) -> Images:
        if self.image_size is None or not have_several_sizes(X):
            return super()._images_to_fit(X)
        return as_resized_images(X, check_size("image_size", self.image_size))

    def _training_parameters(self, images: Images) -> TrainingParameters:
        size = image_size(self.image_size, images.format.image_shape[:2])
        seed = self.random_state
        return TrainingParameters(  # of Python's numbers: NumPy's are not torch's
            patch_size=patch_sizes(self.patch_size),
            image_size=size,
            epochs=n_epochs(self.epochs, size),
            batch_size=int(self.batch_size),
            learning_rate=float(self.learning_rate),
            validation_fraction=float(self.validation_fraction),
            device=resolve_device(self.device),
            random_state=int(seed) if is_whole(seed) else None,
        )

    def _check_kept(self, images: Images, checkpoint: HeldCheckpoint | None) -> None:
        """Raise a ValueError where a kept training could not be told from others."""
        if checkpoint is not None and not is_whole(self.random_state):
            raise ValueError(
                "checkpoint needs a random_state that is an int, for instance 0: else "
                "no second training is the same, and none could go on; got "
                f"{self.random_state!r}."
            )
        if images.is_lazy and not (checkpoint is None and self.memory is None):
            check_pickles(images.source)

    def _start(self, images: Images) -> dict[str, np.ndarray] | None:
        """Return the weights that a warm start goes on from."""
        if not (self.warm_start and hasattr(self, "_fitted")):
            return None
        before: Fitted = self._fitted
        found, right = images.format.image_shape[2], before.format.image_shape[2]
        if found != right:
            raise ValueError(
                f"warm_start=True goes on with a network for {right} channels; X has "
                f"{found}. Set warm_start=False to start anew."
            )
        state = before.mapper.network.state_dict()
        return {name: tensor.numpy(force=True) for name, tensor in state.items()}

    def _train(
        self, task: TrainingTask, progress: Progress, held: HeldCheckpoint | None
    ) -> Learned:
        """Train, or take from `memory` what was trained before."""
        checkpoint = None if held is None else task.checkpoint(held.path)
        if checkpoint is not None and checkpoint.found_at is not None and self.verbose:
            print(f"resuming from  {checkpoint.found_at}")
        run: Any = learn
        if task.start is None:  # what goes on from another training is not kept
            memory = open_memory(self.memory)
            run = memory.cache(learn, ignore=["progress", "checkpoint"])
        learned = run(task, progress=progress, checkpoint=checkpoint)
        learned.mapper.to(task.parameters.device)  # what was kept is on the CPU
        return learned
