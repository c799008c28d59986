"""The calls of the old script: one class that reads folders, trains, draws, saves."""

import os
from copy import copy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from skad import overlays
from skad.common.bars import bar
from skad.common.checks import as_float, check_size, check_whole, is_whole
from skad.common.files import make_room_for, write_atomically
from skad.common.warnings import warn
from skad.detectors.base import ImageDetector
from skad.detectors.dense import DenseAutoencoderDetector as Dense
from skad.detectors.files import inspect_files
from skad.detectors.parameters import patch_sizes
from skad.detectors.patch import PatchAutoencoderDetector
from skad.encoders.efficientnet_lite import NAMES
from skad.images.decoding import PathLike, Reader
from skad.images.folder import as_fitted, survey_files
from skad.inspection.regions import Region, above, marked_patches, scaled_box
from skad.legacy import files
from skad.model_io.model_file import save

Pixels = NDArray[np.unsignedinteger]  # (H, W) or (H, W, 3), of 8 or 16 bits

_PRESETS = {"AD0": (200, False), "AD1": (200, True), "AD2": (256, True)}  # side, gray
_DEFAULTS = {
    "gray_scale": True,
    "img_size": (200, 200),
    "patch_size": 40,
    "encoder": None,
}
_CALIBRATED = 0.8  # the value of thresh that means the calibrated threshold
_UNTRAINED = "Not trained yet: call load_data and train first, or load a stored model."


class Result(NamedTuple):
    """What `AD.predict` says about one image; a higher score is more normal."""

    path: Path  # the image file
    is_anomaly: bool  # whether the anomaly map exceeds the threshold anywhere
    score: float  # as from score_samples: minus the maximum of the map
    regions: list[Region]  # as from anomaly_regions, in pixels of the file, upright


class AD:
    """Anomaly detector with the calls of the old script.

    Parameters
    ----------
    model_name : str or path, default="AD1"
        A new model: ``"AD0"`` of 200 x 200 pixels in colour, ``"AD1"`` 200 x 200 gray,
        ``"AD2"`` 256 x 256 gray; another name warns and is AD1. Or the path of a stored
        model, of skad or of the old script, with or without suffix.
    train_path : path, default="Dataset/"
        Good images, for `train` without `load_data`.
    gray_scale : bool, default=True
        Read images as gray. True leaves it to the name. Colour models read gray files
        as colour.
    save_path : path, default="Models/"
        The folder where `train` saves the model, as "model.safetensors".
    img_size : (height, width), default=(200, 200)
        Images are resized to this many pixels. The default leaves it to the name.
    patch_size : int or tuple of int, default=40
        Size in pixels of the largest defects, as in `PatchAutoencoderDetector`.
    encoder : None, "efficientnet-lite0" or "efficientnet-lite2", default=None
        A pretrained network that helps, as in `PatchAutoencoderDetector`; new here.

    Attributes
    ----------
    detector : PatchAutoencoderDetector or DenseAutoencoderDetector
        What does the work; the second for models of the old script.
    images : ndarray of shape (n, height, width) or (n, height, width, 3), or None
        What `load_data` has read: uint8 or uint16, like the files.
    gray_scale, img_size, patch_size, encoder
        As used. A stored model keeps its own, and warns of others.

    Examples
    --------
    >>> AD("AD2").img_size
    (256, 256)
    """

    def __init__(
        self,
        model_name: PathLike = "AD1",
        train_path: PathLike = "Dataset/",
        gray_scale: bool = True,
        save_path: PathLike = "Models/",
        img_size: tuple[int, int] = (200, 200),
        patch_size: int | tuple[int, ...] = 40,
        *,
        encoder: str | None = None,
    ) -> None:
        if gray_scale not in (0, 1):
            raise ValueError(f"gray_scale must be True or False; got {gray_scale!r}.")
        if encoder not in (None, *NAMES):
            names = ", ".join(map(repr, NAMES))
            raise ValueError(f"encoder must be None, {names}; got {encoder!r}.")
        patch_sizes(patch_size)  # for its errors
        self.train_path, self.save_path = train_path, save_path
        self.gray_scale, self.patch_size = bool(gray_scale), patch_size
        self.encoder = encoder
        self.img_size = check_size("img_size", img_size)
        self.images: Pixels | None = None
        name = os.fspath(model_name)
        stored = None if name in _PRESETS else files.stored_model(name, _PRESETS)
        if stored is not None:
            self.detector: ImageDetector = stored
            self._take_over()
            return
        side, gray = _PRESETS.get(name, _PRESETS["AD1"])
        self.gray_scale = self.gray_scale and gray
        if self.img_size == _DEFAULTS["img_size"]:
            self.img_size = (side, side)
        self.detector = PatchAutoencoderDetector(
            patch_size, encoder=encoder, random_state=0
        )

    def load_data(self, path: PathLike | None = None) -> None:
        """Read the good images to train on; they replace those read before.

        They also set the threshold of a model of the old script, which has none: use
        other images than it was trained on.

        `path` is a folder, searched for ``*.jpg``, ``*.jpeg``, ``*.png`` and ``*.bmp``
        in any case, not recursively; or one file; None means `train_path`. A warning
        names files that cannot be read. No image, or a mixture of 8 and 16 bits, is an
        error.
        """
        path = self.train_path if path is None else path
        found = files.image_files(path)
        self.images = survey_files(found, self._reader, keep=True).images
        print(f"Loaded {len(self.images)} images from {path}")
        if isinstance(self.detector, Dense) and not hasattr(self.detector, "offset_"):
            self.detector.calibrate(self.images)
            print(f"Set the threshold, {self.detector.pixel_threshold_:.4g}, from them")

    def train(self, epochs: int = 75) -> None:
        """Train on the loaded images, set the threshold, and save the model.

        `epochs` are passes over the images, at least 1; 0 with an `encoder` trains no
        network, and takes seconds. A trained model goes on training. Run the same call
        again to resume after a stop (not with an old model):
        "model.safetensors.unfinished" keeps the state.

        Raises an OSError if `train_path` is needed and missing, or `save_path` cannot
        be written to; a ValueError if there are too few images, or that file is of
        another training.
        """
        epochs = check_whole("epochs", epochs, 1 if self.encoder is None else 0)
        target = make_room_for(Path(self.save_path) / "model.safetensors")
        if self.images is None:
            self.load_data()
        detector = self.detector
        detector.set_params(epochs=epochs, warm_start=True, verbose=1)
        options: dict[str, Any] = {}
        if not isinstance(detector, Dense) and is_whole(detector.random_state):
            options["checkpoint"] = target.with_name(f"{target.name}.unfinished")
        detector.fit(self.images, **options)
        save(detector, target)
        print(f"Saved the model as {target}")

    def test_img(self, path_to_img: PathLike) -> Pixels:
        """Show an image file beside its reconstruction, where there is a screen.

        If both look alike, training is on the right track. Returns both, the image
        left: (height, 2 * width) or (height, 2 * width, 3), uint8 or uint16. Raises a
        ValueError after `train(0)`, which trains nothing that could reconstruct.
        """
        check_is_fitted(self.detector, msg=_UNTRAINED)
        image = self._reader.read(path_to_img).image
        pair = np.hstack([image, self.detector.reconstruct(image[np.newaxis])[0]])
        files.show(overlays.to_rgb_uint8(pair), Path(path_to_img).name)
        return pair

    def predict(
        self,
        path: PathLike,
        save_path: PathLike = "Output/",
        show: bool = False,
        save: bool = True,
        patch_size: int = 0,
        thresh: float = 0.8,
        hardcore: bool = False,
    ) -> list[Result]:
        """Find and draw what is anomalous in an image or in a folder of images.

        Parameters
        ----------
        path : path
            An image file, or a folder as in `load_data`.
        save_path : path, default="Output/"
            The folder for the pictures, made if missing; not that of the images. A
            picture has the name, format and size of its image, up to 2**25 pixels.
        show, save : bool
            Show each picture, where there is a screen and matplotlib; write each.
        patch_size : int, default=0
            Side of the boxes of `hardcore`, in pixels at `img_size`; 0 = the model's.
        thresh : float, default=0.8
            Higher = fewer anomalies. The threshold is ``m + thresh / 0.8 * (t - m)``,
            t the calibrated one and m the mean map value of held-out good images.
        hardcore : bool, default=False
            Box every patch of `patch_size` with a pixel that exceeds the threshold,
            instead of drawing heat on exactly these pixels.

        Returns a list of (path, is_anomaly, score, regions), sorted by name. A warning
        names files that cannot be read; if none can, that is an error.
        """
        check_is_fitted(self.detector, msg=_UNTRAINED)
        side = check_whole("patch_size", patch_size, 0) or int(np.max(self.patch_size))
        detector = self._with_threshold(thresh)
        threshold = getattr(detector, "pixel_threshold_", np.inf)
        paths = files.image_files(path)
        folder = files.output_folder(save_path, paths) if save else None
        results: list[Result] = []
        unreadable: list[Exception] = []
        items, total = inspect_files(detector, paths), len(paths)
        with bar(items, shown=True, desc="scoring", unit="image", total=total) as found:
            for file, frame, one in found:
                if isinstance(one, Exception):
                    unreadable.append(one)
                    continue
                size = one.anomaly_map.shape
                regions = [r.scaled(size, frame.size) for r in one.regions]
                results.append(Result(file, one.is_anomaly, one.score, regions))
                if folder is None and not show:
                    continue
                rgb = overlays.read_picture(file, frame.size)
                rgb = _draw(rgb, one.anomaly_map, threshold, side if hardcore else 0)
                if folder is not None:
                    content = overlays.encode(rgb, files.FORMATS[file.suffix.lower()])
                    write_atomically(folder / file.name, content)
                if show:
                    files.show(rgb, file.name)
        if not results:
            raise unreadable[0]
        for error in unreadable:
            warn(f"left out: {error}")
        return results

    def _take_over(self) -> None:
        """Take over the settings of a stored model; warn of others that were passed."""
        fitted = as_fitted(self.detector)
        held = {"gray_scale": fitted.channels == 1, "img_size": fitted.size}
        held["encoder"] = getattr(self.detector, "encoder", None)
        if hasattr(self.detector, "patch_size"):
            held["patch_size"] = self.detector.patch_size
        for option, value in held.items():
            if getattr(self, option) not in (_DEFAULTS[option], value):
                warn(
                    f"{option}={getattr(self, option)} is ignored: the stored model "
                    f"has {option}={value}. Train a new model to change it."
                )
            setattr(self, option, value)

    def _with_threshold(self, thresh: float) -> ImageDetector:
        """Return the detector with the threshold that `thresh` means."""
        if not 0 <= as_float(thresh) < np.inf:
            rule = "thresh must be at least 0 (0.8 = as calibrated)"
            raise ValueError(f"{rule}; got {thresh!r}.")
        detector = copy(self.detector)
        if not hasattr(detector, "offset_"):
            warn("The model has no threshold yet, and flags nothing. Call load_data.")
        elif thresh != _CALIBRATED:
            t, m = detector.pixel_threshold_, detector.mean_map_
            detector.offset_ = -(m + thresh / _CALIBRATED * (t - m))
        return detector

    @property
    def _reader(self) -> Reader:
        return Reader(self.img_size, 1 if self.gray_scale else 3)


def _draw(
    rgb: NDArray[np.uint8], anomaly_map: NDArray, threshold: float, box_side: int
) -> NDArray[np.uint8]:
    """Draw heat; or boxes, if `box_side` pixels of the map are not 0."""
    width = overlays.line_width(rgb)
    if not box_side:
        return overlays.heat_map_image(rgb, anomaly_map, threshold, outline=width)
    patches = marked_patches(above(anomaly_map, threshold), box_side)
    boxes = [scaled_box(box, anomaly_map.shape[:2], rgb.shape[:2]) for box in patches]
    return overlays.boxes_image(rgb, boxes, thickness=max(2, width))
