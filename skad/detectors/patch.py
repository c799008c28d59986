"""PatchAutoencoderDetector: a scikit-learn outlier detector over images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import joblib
import numpy as np

from skad.common.checks import check_pickles, is_whole
from skad.common.files import make_room_for
from skad.common.labels import places_of_good
from skad.common.locks import locked
from skad.common.torch_settings import training_settings
from skad.detectors.base import ImageDetector, known_to
from skad.detectors.drift import Watch
from skad.detectors.fitted import Fitted
from skad.detectors.groups import check_groups
from skad.detectors.learning import Learned, Settings, learn
from skad.detectors.parameters import (
    CONSTRAINTS,
    generator,
    image_size,
    n_epochs,
    open_memory,
    patch_sizes,
    resolve_device,
)
from skad.detectors.progress import Progress, following, with_callbacks
from skad.detectors.split import divide
from skad.images.inputs import Format, Images
from skad.images.roi import roi_for
from skad.images.several_sizes import as_resized_images, have_several_sizes
from skad.network.checkpoint import Checkpoint


class PatchAutoencoderDetector(ImageDetector):
    """Learn from good images what good looks like; find what deviates, and where.

    A small convolutional network is trained from scratch on the good images: an
    autoencoder, and a decoder that learns to mark defects which are simulated in them.
    What that decoder says, how unusual the encoder's features are and how far the
    reconstruction is off make one map, the calibrated anomaly score, in nats. Where
    an image has a plain defect, a second look without it takes its halo off the map;
    the map's maximum stays, and so does the score, which is minus that.

    Images of more than 1216 x 1216 pixels are scored in overlapping tiles: one of
    4000 x 4000 takes less than 1 GB. Training takes whole images, and memory for
    `batch_size` of them.

    Parameters
    ----------
    patch_size : int or tuple of int, default=40
        Size of the largest defect that one expects, in pixels at the working
        resolution. A tuple means defects of several scales.
    image_size : int or (height, width), default=None
        Working resolution; None = as given. Maps come back at the input's resolution.
        Where it is given, `fit` takes a list of images of several sizes, too: it
        resizes each as `resize_image` does. Then all methods take images of any size.
    image_shape : (H, W) or (H, W, C), default=None
        Only for 2-D input: what a row of X is flattened from. None means that a row of
        p features is an image of 1 x p pixels with one channel.
    epochs : int, default=75
        Passes over the training images. An epoch shows at least 64 images (fewer, if
        images have less than 16,384 pixels), so that few images are shown more often.
        Images of fewer than 256 pixels, such as rows of a few features, get fewer
        epochs: `epochs` x pixels / 256, and at least one.
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
        Promised rate of false alarms: a new good image is flagged with at most this
        probability, if it is exchangeable with the held-out ones.
    roi : array-like of shape (H, W), or path of an image file, default=None
        Where to look, at the resolution of the input: True, or the larger of two
        values, as 255 beside 0. Pixels outside count nowhere: not in training, score,
        threshold or map. Where an `ImageFolder` resizes its files, a mask may have
        their size, and is resized as they are. A model file holds the mask itself.
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
        the bit with as many threads of torch. With another number of threads a
        training is rounded otherwise: scores differ slightly, and verdicts may near
        the threshold. Scores of one detector agree to within 1e-5 of their value.
    verbose : int, default=0
        1 = a progress bar with the loss.

    Attributes
    ----------
    network_ : torch.nn.Module
    offset_ : float
        ``decision_function = score_samples - offset_``.
    pixel_threshold_ : float
        ``-offset_``: a pixel deviates where the anomaly map is larger.
    calibration_scores_ : ndarray of shape (m,)
        Sorted scores of the good images that were held out, or given to `calibrate`:
        what `p_value` compares with. They set the threshold, unless `contamination` is
        a float.
    promised_fpr_ : float in (0, 1)
        What the threshold promises: `target_fpr`, or ``1 / (m + 1)`` where that is
        more; NaN where labels or `contamination` set it.
    mean_map_ : float
        Mean value of the maps of these images, at the first look.
    history_ : list of dict
        One an epoch: "epoch", "loss", "reconstruction_loss", "anomaly_loss".
    labelled_threshold_ : LabelledThreshold
        After `calibrate` with labels: the rates and their confidence intervals.
    provenance_ : dict
        "fitted_at" (UTC), "n_images" that `fit` got, "n_training" and "n_calibration"
        of them, "source" (the folder of an `ImageFolder`, else None), "skad_version",
        "torch_version". Empty where an older file does not say.
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
            Good images, channels last. uint8 and uint16 are scaled by their type; other
            numbers are taken as they are and standardised. A lazy sequence is read in a
            thread, one batch ahead; here as in the other methods. With `image_size`, a
            list of images of several sizes will do.
        y : None or array-like of shape (n,)
            Labels, +1 good and -1 anomalous: images labelled -1 are left out. A y that
            cannot be labels, such as a continuous target, is ignored.
        groups : array-like of shape (n,), default=None
            Labels of any kind: images of one label show one part, as in a burst; all
            of them train, or one of them, drawn at random, sets the threshold. None:
            near copies are one group, by a guess. The promise of `target_fpr` is for
            an image drawn at random from a new group, if that is exchangeable with
            the groups held out. m is the number of these groups, not of their images.
        checkpoint : path, default=None
            A file to write the unfinished training to, every half minute. After a
            stop, the same call, with as many threads of torch, goes on from there and
            comes to the same end, where the file is deleted. The one before it lies
            beside it, as "….previous", and takes its place where it is damaged. Needs
            an int `random_state`.

        Returns
        -------
        self

        Raises
        ------
        OSError
            If `checkpoint` cannot be read or written when training begins;
            BlockingIOError if another fit is writing to it.
        ValueError
            For a parameter out of its range; for fewer than 2 good images, or, with
            `warm_start`, none that an earlier fit has not trained on; for groups that
            are no labels, missing, or all the same; for images with
            NaN or infinity, of differing shapes, or without batch axis; for labels that
            are missing, names, or of another number of images; for a lazy sequence that
            cannot be pickled, with `memory` or `checkpoint`; for a `checkpoint` that
            holds something else, or the training of another call; for a training that
            went astray.

        Warns
        -----
        UserWarning
            Where y may be labels and is ignored, as 0 and 1 are; where the held-out
            images are too few to promise `target_fpr`; where images are copies of
            others, many are near copies, or so many look alike that they may be;
            some channels are too faint beside others to be seen, the training may need
            more memory than there is, or `checkpoint` can no longer be written.
        """
        if checkpoint is None:
            self._fit(X, y, None, groups=groups)
            return self
        with locked(make_room_for(checkpoint)):
            kept = self._fit(X, y, checkpoint, groups=groups)
            if kept is not None:
                kept.remove()
        return self

    def _fit(
        self,
        X: Any,
        y: Any,
        checkpoint: Any,
        *,
        groups: Any = None,
        source: Any = None,
        say_resumed: Callable[[Path], None] | None = None,
    ) -> Checkpoint | None:
        """Do as `fit`, and return what can go once the detector is safe elsewhere.

        `source` is the folder of the images, where X does not know it; `say_resumed` is
        told the file that training goes on from.
        """
        self._validate_params()
        if checkpoint is not None and not is_whole(self.random_state):
            raise ValueError(
                "checkpoint needs a random_state that is an int, for instance 0: else "
                "no second training is the same, and none could go on; got "
                f"{self.random_state!r}."
            )
        images = self._images_to_fit(X)
        if images.is_lazy and not (checkpoint is None and self.memory is None):
            check_pickles(images.source)
        good = places_of_good(y, len(images))
        groups = check_groups(groups, len(images))
        roi = roi_for(images, self.roi)
        before = self._before()
        settings = self._settings(images.format.image_shape[:2])
        arguments = {
            "images": images,
            "settings": settings,
            "roi": roi,
            "start": _start(images.format, before),
        }
        rng, share = generator(self.random_state), float(self.validation_fraction)
        known = known_to(before)
        images.watch = watch = Watch(roi)
        division = divide(images, good, known, share, rng, groups=groups, roi=roi)
        images.watch = None  # the memory tells trainings apart by the images alone
        arguments |= {
            "training": division.training,
            "calibration": division.calibration,
            "seed": rng.randint(2**31 - 1),
        }
        kept = None
        if checkpoint is not None:
            kept = Checkpoint(checkpoint, *self._decisive(arguments))
            if kept.found_at is not None and say_resumed is not None:
                say_resumed(kept.found_at)
        followed = following(self, X, y, settings.epochs)
        with training_settings(), followed as progress:
            learned = self._learn(arguments, progress, kept)
            self._take_over(
                X, images, good, learned, before, division, watch.kept(), source
            )
        return kept

    def _images_to_fit(self, X: Any) -> Images:
        if self.image_size is None or not have_several_sizes(X):
            return super()._images_to_fit(X)
        return as_resized_images(X, image_size(self.image_size, (1, 1)))

    def _settings(self, size: tuple[int, int]) -> Settings:
        """Return the parameters of a training on images (height, width)."""
        working_size = image_size(self.image_size, size)
        return Settings(  # of Python's numbers: NumPy's are not torch's
            patch_sizes=patch_sizes(self.patch_size),
            working_size=working_size,
            epochs=n_epochs(self.epochs, working_size),
            batch_size=int(self.batch_size),
            learning_rate=float(self.learning_rate),
            device=resolve_device(self.device),
        )

    def _decisive(
        self, arguments: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what decides a training: plain values, and digests of the rest."""
        settings: Settings = arguments["settings"]
        sizes = settings.patch_sizes
        parameters = {
            "patch_size": sizes[0] if len(sizes) == 1 else sizes,
            "image_size": settings.working_size,
            "epochs": settings.epochs,
            "batch_size": settings.batch_size,
            "learning_rate": settings.learning_rate,
            "validation_fraction": float(self.validation_fraction),
            "device": settings.device,
            "random_state": int(self.random_state),
            "n_images": len(arguments["images"]),
            "skad_version": settings.version,
        }
        division = [arguments[name] for name in ("training", "calibration")]
        digests = {
            "images": joblib.hash(arguments["images"]),
            "roi": joblib.hash(arguments["roi"]),
            "weights to begin with": joblib.hash(arguments["start"]),
            "labels or groups": joblib.hash(division),
        }
        return parameters, digests

    def _learn(
        self, arguments: dict[str, Any], progress: Progress, kept: Checkpoint | None
    ) -> Learned:
        """Train, or take from `memory` what was trained before."""
        memory = open_memory(self.memory)
        cached = memory.cache(learn, ignore=["progress", "checkpoint"])
        # What goes on from another training is not for the memory.
        train = cached if arguments["start"] is None else learn
        learned = train(**arguments, progress=progress, checkpoint=kept)
        learned.mapper.to(resolve_device(self.device))  # what was kept is on the CPU
        return learned


def _start(format: Format, before: Fitted | None) -> dict[str, np.ndarray] | None:
    """Return the state of the network that training goes on from, if it does."""
    if before is None:
        return None
    channels = format.image_shape[2], before.format.image_shape[2]
    if channels[0] != channels[1]:
        raise ValueError(
            f"warm_start=True goes on with a network for {channels[1]} channels; "
            f"X has {channels[0]}. Set warm_start=False to start anew."
        )
    state = before.mapper.network.state_dict()
    return {name: tensor.numpy(force=True) for name, tensor in state.items()}
