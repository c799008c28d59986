"""The calls of the old script: one class that reads folders, trains, draws, saves."""

import os
from collections.abc import Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from skad.common.bars import bar
from skad.common.checks import as_float, check_size, check_whole, is_whole
from skad.common.files import make_room_for
from skad.common.warnings import warn
from skad.detectors.base import ImageDetector
from skad.detectors.dense import DenseAutoencoderDetector as Dense
from skad.detectors.drift import one_warning
from skad.detectors.inspection import judge
from skad.detectors.parameters import patch_sizes
from skad.detectors.patch import PatchAutoencoderDetector
from skad.detectors.regions import Region
from skad.displays.drawing import show_picture
from skad.displays.pictures import draw, read_picture
from skad.images.decoding import Frame, PathLike, as_colour, read_frame
from skad.images.finding import is_shape_of_files
from skad.legacy.files import (
    find_stored_model,
    image_files,
    output_folder,
    write_picture,
)
from skad.model_io import model_file as _persistence
from skad.network.checkpoint import OtherTrainingError, forget
from skad.network.keras import Pair
from skad.overlays.overlays import to_rgb_uint8

Pixels = NDArray[np.unsignedinteger]  # (H, W) or (H, W, 3), of 8 or 16 bits

_PRESETS = {"AD0": (200, False), "AD1": (200, True), "AD2": (256, True)}  # side, gray
_DEFAULTS = {"gray_scale": True, "img_size": (200, 200), "patch_size": 40}
_CHUNK = 16  # images read and scored at a time
_UNTRAINED = "Not trained yet: call load_data and train first, or load a stored model."
_NO_THRESHOLD = (
    "The model has no threshold yet, so nothing is flagged: scores and maps alone are "
    "given. Call load_data with good images first, or train."
)


class Result(NamedTuple):
    """What `AD.predict` says about one image; a higher score is more normal."""

    path: Path  # the image file
    is_anomaly: bool  # whether the anomaly map exceeds the threshold anywhere
    score: float  # as from score_samples: minus the maximum of the map
    regions: list[Region]  # as from anomaly_regions, in pixels of the file, upright


class AD:
    """Anomaly detector with the calls of the old script.

    A name makes a new model; the path of a stored model loads it. Images are read as
    they are, with 8 or 16 bits a channel, gray files as colour where the model is so.

    Parameters
    ----------
    model_name : str or path, default="AD1"
        ``"AD0"``: 200 x 200 pixels, colour; ``"AD1"``: 200 x 200, gray; ``"AD2"``:
        256 x 256, gray. Or a stored model: its file, with or without the suffix, as
        in ``AD("Models/model")``; where there is none, the files "model.json" and
        "model.h5" of the old script, which h5py reads. Another plain name warns and is
        AD1; one with a separator or a model's suffix is a path, and must exist.
    train_path : path, default="Dataset/"
        Good images, for `train` where `load_data` was not called. May be missing.
    gray_scale : bool, default=True
        Read images as gray. True leaves it to the name (AD0 is in colour), False
        means colour under every name.
    save_path : path, default="Models/"
        The folder where `train` saves the model, as "model.safetensors".
    img_size : (height, width), default=(200, 200)
        What every image is resized to, in pixels. The default leaves it to the name
        (AD2 is 256 x 256), another size holds under every name.
    patch_size : int or tuple of ints, default=40
        The largest defect to be expected, in pixels at `img_size`.

    Attributes
    ----------
    detector : PatchAutoencoderDetector, or DenseAutoencoderDetector for an old model
        What does the work. A new one's random_state is 0: equal calls with as many
        threads give equal models.
    images : ndarray of shape (n, height, width) or (n, height, width, 3), or None
        What `load_data` has read: uint8, or uint16 if any file has 16 bits.
    gray_scale, img_size, patch_size
        What holds in the end. A stored model keeps its own, and warns of others.

    Raises
    ------
    FileNotFoundError
        If `model_name` looks like a path and no model is stored there.
    ImportError
        If it is a model of the old script, and h5py is not installed.
    ValueError
        If a parameter is out of its range, or the stored model is none for `AD`.

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
    ) -> None:
        _check(gray_scale in (0, 1), "gray_scale must be True or False", gray_scale)
        patch_sizes(patch_size)  # for its errors
        is_path = isinstance(save_path, str | os.PathLike)
        _check(is_path, "save_path must be a path", save_path)
        self.train_path, self.save_path = train_path, save_path
        self.gray_scale, self.patch_size = bool(gray_scale), patch_size
        self.img_size = check_size("img_size", img_size, square=False)
        self.images: Pixels | None = None
        name = os.fspath(model_name)
        stored = None if name in _PRESETS else find_stored_model(name, _PRESETS)
        if stored is None:
            side, gray = _PRESETS.get(name, _PRESETS["AD1"])
            self.gray_scale = self.gray_scale and gray
            if self.img_size == _DEFAULTS["img_size"]:
                self.img_size = (side, side)
            new = PatchAutoencoderDetector(patch_size, random_state=0)
            self.detector: ImageDetector = new
        else:
            self._load(stored)

    def load_data(self, path: PathLike | None = None) -> None:
        """Read the good images to train on; they replace what was read before.

        A model of the old script has no threshold at first: these images set it. Take
        others than it was trained on, which it rebuilds better than new ones.

        Parameters
        ----------
        path : path, default=None
            A folder, searched for ``*.jpg``, ``*.jpeg``, ``*.png`` and ``*.bmp`` in
            any case, not recursively; or one file. None means `train_path`.

        Raises
        ------
        FileNotFoundError, ValueError
            If there is no such path, or no image that can be read. Single ones that
            cannot are left out and named in a warning.
        """
        path = self.train_path if path is None else path
        paths = image_files(path)
        channels = () if self.gray_scale else (3,)
        images = np.empty((len(paths), *self.img_size, *channels), np.uint8)
        for n_images, (_, frame) in enumerate(self._readable(paths, "reading"), 1):
            image = frame.image
            if image.dtype != images.dtype:
                images, image = _in_16_bits(images), _in_16_bits(image)
            images[n_images - 1] = image
        self.images = images[:n_images]
        print(f"Loaded {n_images} images from {path}")
        if isinstance(self.detector, Dense) and not hasattr(self.detector, "offset_"):
            self.detector.calibrate(self.images)
            print(f"Set the threshold, {self.detector.pixel_threshold_:.4g}, from them")

    def train(self, epochs: int = 75) -> None:
        """Train on the loaded images, set the threshold, and save the model.

        A part of the images is held out from training, for the threshold. A model that
        is trained, by an earlier call or as it was stored, goes on from there. It is
        saved as "model.safetensors" in `save_path`: ``AD("Models/model")`` loads it.
        After a stop, the same call goes on with "model.safetensors.unfinished", but
        not with a model of the old script.

        Parameters
        ----------
        epochs : int, default=75
            Passes over the images, at least 1.

        Raises
        ------
        OSError
            If `train_path` is needed and missing, or `save_path` cannot be written to,
            which is found out before training.
        ValueError
            If `epochs` is out of its range, or the images are too few.
        """
        check_whole("epochs", epochs, 1)
        target = make_room_for(Path(self.save_path) / "model.safetensors")
        if self.images is None:
            self.load_data()
        detector = self.detector
        detector.set_params(epochs=int(epochs), warm_start=True, verbose=1)
        options: dict[str, Any] = {}
        if not isinstance(detector, Dense) and is_whole(detector.random_state):
            options["checkpoint"] = target.with_name(f"{target.name}.unfinished")
        try:
            detector.fit(self.images, **options)
        except OtherTrainingError as error:
            warn(f"{error.reason}: it is replaced by this one")
            forget(options["checkpoint"])
            detector.fit(self.images, **options)
        _persistence.save(detector, target)
        print(f"Saved the model as {target}")

    def test_img(self, path_to_img: PathLike) -> Pixels:
        """Set an image and what the model makes of it side by side.

        If both look alike, training is on the right path. With a screen and matplotlib
        they are shown, too.

        Parameters
        ----------
        path_to_img : path
            An image file.

        Returns
        -------
        pair : ndarray of shape (height, 2 * width) or (height, 2 * width, 3)
            The image left, its reconstruction right, at `img_size`: uint8 or uint16,
            as the file is.

        Raises
        ------
        NotFittedError, FileNotFoundError, ValueError
            If the model is not trained, there is no such file, or it is no image.
        """
        check_is_fitted(self.detector, msg=_UNTRAINED)
        image = self._read(Path(path_to_img)).image
        pair = np.hstack([image, self.detector.reconstruct(image[np.newaxis])[0]])
        show_picture(to_rgb_uint8(pair), Path(path_to_img).name, feature="AD")
        return pair

    @one_warning()
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
        """Find what is anomalous in one image or in a folder of images, and draw it.

        Parameters
        ----------
        path : path
            An image file, or a folder as in `load_data`.
        save_path : path, default="Output/"
            The folder for the pictures, made where it is missing. A picture has the
            name, format and size of its image; one of more than 2**25 pixels is made
            smaller.
        show, save : bool
            Show each picture, with a screen and matplotlib; write each picture.
        patch_size : int, default=0
            Side of the boxes of `hardcore`, in pixels at `img_size`, from where they
            are scaled to the picture; 0 = the model's.
        thresh : float, default=0.8
            Moves the threshold, higher = fewer anomalies: 0.8 is the calibrated one,
            t, and in general it is ``m + (thresh / 0.8) * (t - m)`` with m the mean
            map value of good images that were held out from training.
        hardcore : bool, default=False
            False lays heat over exactly what is above the threshold, and a line around
            it. True cuts the image into patches of `patch_size`, from the upper left,
            and boxes every patch with a pixel above the threshold; the last ones may be
            cut short.

        Returns
        -------
        results : list of Result
            (path, is_anomaly, score, regions) of each image, in order of the names;
            regions are in pixels of the file.

        Raises
        ------
        NotFittedError, OSError
            If the model is not trained, there is nothing at `path`, or `save_path`
            cannot be written to.
        ValueError
            If a parameter is out of its range, the pictures would overwrite the images,
            or no image can be read. Single ones that cannot are named in a warning.
        """
        check_is_fitted(self.detector, msg=_UNTRAINED)
        threshold = self._threshold(thresh)
        check_whole("patch_size", patch_size, 0)  # 0: the model's
        side = patch_size or int(np.max(self.patch_size))
        paths = image_files(path)
        folder = output_folder(save_path, paths) if save else None
        readable = self._readable(paths, "scoring")
        results = []
        for chunk in _chunks(readable):
            images = np.stack([frame.image for _, frame in chunk])
            maps = self.detector.anomaly_map(images)
            for (file, frame), values in zip(chunk, maps, strict=True):
                found = judge(values, -threshold, None)
                regions = [r.scaled(values.shape, frame.size) for r in found.regions]
                results.append(Result(file, found.is_anomaly, found.score, regions))
                if folder is None and not show:
                    continue
                rgb = read_picture(file, frame.size, self.detector._mapper.value_range)
                picture = draw(rgb, values, threshold, box_side=hardcore * side)
                if folder is not None:
                    write_picture(picture, folder / file.name)
                if show:
                    show_picture(picture, file.name, feature="AD")
        return results

    def _load(self, stored: Path | Pair) -> None:
        if isinstance(stored, Pair):
            self.detector = Dense(stored.weights, random_state=0).read_model()
        else:
            self.detector = _persistence.load(stored)
        shape = tuple(self.detector.image_shape_in_)
        kind = self.detector._format.kind
        if kind != "integer" or not is_shape_of_files(shape):
            rule = "AD needs a model of uint8 or uint16 images (H, W) or (H, W, 3)"
            found = f"{stored} has {kind} ones of {shape}"
            raise ValueError(f"{rule}; {found}. Load it with skad.load.")
        patch_size = getattr(self.detector, "patch_size", self.patch_size)
        held = (shape[2:] != (3,), shape[:2], patch_size)
        for (name, default), value in zip(_DEFAULTS.items(), held, strict=True):
            if getattr(self, name) not in (default, value):
                warn(
                    f"{name}={getattr(self, name)} is ignored: the stored model has "
                    f"{name}={value}. Train a new model to change it.",
                )
            setattr(self, name, value)

    def _threshold(self, thresh: float) -> float:
        """Return the map value that `thresh` means: for 0.8 the calibrated, exactly."""
        fits = 0 <= as_float(thresh) < np.inf
        _check(fits, "thresh must be at least 0 (0.8 = as calibrated)", thresh)
        found = self.detector._fitted.threshold
        if found is None:
            warn(_NO_THRESHOLD)
            return np.inf
        calibrated, mean = -found.offset, found.mean_map
        return calibrated + (float(thresh) / 0.8 - 1) * (calibrated - mean)

    def _readable(self, paths: list[Path], doing: str) -> Iterator[tuple[Path, Frame]]:
        """Read file after file; name and leave out what is no image, if others are."""
        n_bad = 0
        with bar(paths, desc=doing, unit="image", shown=True) as moving:
            for path in moving:
                try:
                    frame = self._read(path)
                except (OSError, ValueError) as error:
                    n_bad += 1
                    if n_bad == len(paths):
                        raise
                    warn(f"left out: {error}")
                else:
                    yield path, frame

    def _read(self, path: Path) -> Frame:
        """Read a file as the model wants it: (H, W) or (H, W, 3), uint8 or uint16."""
        frame = read_frame(path, self.img_size, gray=self.gray_scale)
        if frame.image.dtype.kind == "f":
            raise ValueError(f"{path} holds floating-point numbers; save it as a PNG.")
        if self.gray_scale:
            return frame
        return frame._replace(image=as_colour(frame.image))


def _check(fits: bool, rule: str, value: object) -> None:
    if not fits:
        raise ValueError(f"{rule}; got {value!r}.")


def _in_16_bits(pixels: Pixels) -> Pixels:
    return pixels if pixels.dtype == np.uint16 else 257 * pixels.astype(np.uint16)


def _chunks(readable: Iterator[tuple[Path, Frame]]) -> Iterator[list]:
    """Yield a few at a time, of one number type: an array holds no more."""
    for _, alike in groupby(readable, lambda one: one[1].image.dtype):
        while chunk := list(islice(alike, _CHUNK)):
            yield chunk
