"""PatchAutoencoderDetector: a scikit-learn outlier detector over images."""

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
    """Learn from good images what good looks like; find what deviates, and where.

    A small convolutional network is trained from scratch on the good images: an
    autoencoder, and a segmentation decoder that learns to mark synthetic anomalies in
    them. The output of that decoder, the distances of the encoder's features from
    those of good images and the reconstruction error make one map, the calibrated
    anomaly score. Around strong defects, a second pass without them removes their
    halo from the map.

    Images of more than 1216 x 1216 pixels are scored in overlapping tiles: one of
    4000 x 4000 takes less than 1 GB. Training takes whole images, and memory for
    `batch_size` of them.

    Parameters
    ----------
    patch_size : int or tuple of int, default=40
        Size of the largest defect to expect, in pixels at the working resolution. A
        tuple means defects of several scales.
    image_size : int or (height, width), default=None
        Working resolution; None = as given. Maps come back at the input's resolution.
        If it is set, `fit` takes a list of images of several sizes, too, and all
        methods then take images of any size: `resize_image` brings them to this one.
    image_shape : (H, W) or (H, W, C), default=None
        Only for 2-D input: what a row of X is flattened from. None means that a row of
        p features is an image of 1 x p pixels with one channel.
    epochs : int, default=75
        Passes over the training images. An epoch shows at least 64 images, or one per
        256 pixels of an image if that is less. Images of fewer than 256 pixels, such
        as rows of a few features, get ``epochs * pixels / 256`` epochs, at least one.
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
        Where to look, at the resolution of the input: True, or the larger of two
        values, as 255 beside 0. Pixels outside count nowhere. For an `ImageFolder`
        that resizes its files, a mask of their size is resized with them.
    device : str, default="auto"
        "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1", … The same detector
        gives the same scores on all of them to within 1e-3 of their value.
    memory : None, path or joblib.Memory, default=None
        Where trainings are kept: equal data and equal training parameters are trained
        once, so that a search over thresholds trains nothing again. Needs an int
        `random_state`.
    warm_start : bool, default=False
        A further `fit` goes on from the fitted network. Images that it was trained on
        before, and those of their groups, do not set the threshold.
    random_state : int, RandomState instance or None, default=None
        The only source of randomness. On the CPU, equal ints give equal detectors to
        the bit if torch has as many threads; otherwise a training is rounded
        differently. Scores of one detector agree to within 1e-5 of their value.
    verbose : int, default=0
        1 = a progress bar with the loss.

    Attributes
    ----------
    network_ : torch.nn.Module
        In evaluation mode.
    offset_ : float
        ``decision_function = score_samples - offset_``.
    pixel_threshold_ : float
        ``-offset_``: a pixel deviates where the anomaly map is larger.
    calibration_scores_ : ndarray of shape (m,)
        Sorted scores of the good images that were held out, or given to `calibrate`:
        what `p_value` compares with.
    promised_fpr_ : float in (0, 1)
        What the threshold promises: `target_fpr`, or ``1 / (m + 1)`` where that is
        more; NaN where labels, `contamination` or you set it.
    mean_map_ : float
        Mean value of the maps of these images, before the second pass.
    history_ : list of dict
        One an epoch: "epoch", "loss", "reconstruction_loss", "anomaly_loss".
    labelled_threshold_ : LabelledThreshold
        After `calibrate` with labels: the rates and their confidence intervals.
    provenance_ : dict
        "fitted_at" (UTC), "n_images" that `fit` got, "n_training" and "n_calibration"
        of them, "source" (the folder of an `ImageFolder`, else None), "skad_version",
        "torch_version".
    image_shape_in_ : tuple
        (H, W) or (H, W, C) of the training images; (p,) of rows. Of several sizes,
        what they are resized to.
    n_features_in_ : int
        Numbers in an image.
    feature_names_in_ : ndarray of str of shape (n_features_in_,)
        Only where X was a table whose columns have names.

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
            batch ahead. With `image_size`, a list of images of several sizes will do.
        y : array-like of shape (n,), default=None
            Labels, +1 good and -1 anomalous: images labelled -1 are left out. A y that
            cannot be labels, such as a continuous target, is ignored.
        groups : array-like of shape (n,), default=None
            One label an image: images of one group show one part, as in a burst. All
            of them train, or one of them, drawn at random, sets the threshold. The
            promise of `target_fpr` is for an image drawn from a new group, and the m
            in `promised_fpr_` counts groups. None: near copies are one group.
        checkpoint : path, default=None
            A file to write the unfinished training to, every half minute. After a
            stop, the same call goes on from there, comes to the same end and deletes
            the file. A damaged file is replaced by the one before it, which lies
            beside it as "….previous". Needs an int `random_state`.

        Returns
        -------
        self

        Raises
        ------
        OSError
            If `checkpoint` cannot be read or written when training begins;
            BlockingIOError if another fit is writing to it.
        ValueError
            For a parameter out of its range; for wrong images, labels or groups; for
            fewer than 2 good images, or, with `warm_start`, none that is new; for a
            lazy sequence that cannot be pickled, with `memory` or `checkpoint`; for a
            `checkpoint` of something else; for a training that diverges.

        Warns
        -----
        UserWarning
            If y may be labels and is ignored, as 0 and 1 are; if the held-out images
            are too few to promise `target_fpr`, or some are copies or near copies; if
            some channels are too faint beside others, training may need more memory
            than there is, or `checkpoint` can no longer be written.
        """
        with hold(checkpoint) as held:
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
        run: Any = learn
        if task.start is None:  # what goes on from another training is not kept
            memory = open_memory(self.memory)
            run = memory.cache(learn, ignore=["progress", "checkpoint"])
        learned = run(task, progress=progress, checkpoint=checkpoint)
        learned.mapper.to(task.parameters.device)  # what was kept is on the CPU
        return learned
