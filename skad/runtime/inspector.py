"""Inspector: verdicts about images, from an exported file."""

import math
import os
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skad.common.checks import as_float, check_whole, refuse_mask
from skad.images.decoding import PathLike, reader_for
from skad.images.resizing import max_pool, resize
from skad.inspection.score_files import Inspected
from skad.inspection.verdict import InspectionResult, in_frames, judge
from skad.runtime.metadata import Metadata, metadata_of
from skad.threshold.conformal import promise_of, target_threshold


class _Threshold(NamedTuple):
    """Replaced as a whole, so that threads see the old one or the new one."""

    value: float  # larger values of a map are anomalous
    promised_fpr: float  # NaN: nothing is promised


class Inspector:
    """A detector that `skad export` wrote to an ONNX file, without torch.

    Results are those of the detector's `inspect`, up to the rounding that the export
    has measured: ``metadata.parity``. Several threads may share one inspector.

    Parameters
    ----------
    path : path
        The file.
    threshold : float, default=None
        Pixels with larger values of the anomaly map are anomalous; this promises
        nothing. None: the detector's `pixel_threshold_`.
    n_threads : int, default=None
        Threads for one image. None: as many as there are physical cores.

    Attributes
    ----------
    metadata : skad.runtime.metadata.Metadata
        What the file says about the detector: `image_shape`, `dtype`, `provenance` …
    threshold, promised_fpr : float
        The threshold, and its promised false-alarm rate, NaN for none.
    promise : str
        The same in words.

    Raises
    ------
    ImportError
        If onnxruntime is not installed.
    OSError
        If the file cannot be read.
    ValueError
        If it is not a whole file of `skad export`, or one of a newer skad, or if a
        parameter is invalid.

    Examples
    --------
    >>> from skad.runtime import Inspector
    >>> inspector = Inspector("part.onnx", n_threads=1)  # doctest: +SKIP
    >>> inspector.inspect_file("new.png").verdict  # doctest: +SKIP
    'good'
    """

    def __init__(
        self,
        path: PathLike,
        *,
        threshold: float | None = None,
        n_threads: int | None = None,
    ) -> None:
        if threshold is not None and math.isnan(as_float(threshold)):
            raise ValueError(f"threshold must be a number; got {threshold!r}.")
        if n_threads is not None:
            check_whole("n_threads", n_threads, 1)
        content = Path(os.path.expanduser(path)).read_bytes()
        try:
            self.metadata = metadata_of(content)
            self._session = _start(content, self.metadata, n_threads)
        except ValueError as error:
            raise ValueError(f"{path} cannot be run: {error}") from None
        self._scores = np.array(self.metadata.calibration_scores)
        promised = self.metadata.promised_fpr or math.nan
        self._threshold = _Threshold(self.metadata.threshold, promised)
        if threshold is not None:
            self._threshold = _Threshold(float(threshold), math.nan)

    @property
    def threshold(self) -> float:
        """Pixels with larger values of the anomaly map are anomalous."""
        return self._threshold.value

    @property
    def promised_fpr(self) -> float:
        """The rate of false alarms that the threshold promises; NaN for none."""
        return self._threshold.promised_fpr

    @property
    def promise(self) -> str:
        """What the threshold promises, in words."""
        threshold, rate = self._threshold
        return promise_of(-threshold, self.metadata.calibration_scores, rate)

    def retarget(self, target_fpr: float) -> Self:
        """Set the threshold for another false-alarm rate, in (0, 1), and return self.

        It comes from the calibration scores in the file. A warning says if they are too
        few for this rate.
        """
        rate = as_float(target_fpr)
        if not 0 < rate < 1:
            raise ValueError(f"target_fpr must lie in (0, 1); got {target_fpr!r}.")
        is_cross = self.metadata.is_cross
        offset, promised = target_threshold(self._scores, rate, is_cross)
        self._threshold = _Threshold(-offset, promised)
        return self

    def inspect(self, image: ArrayLike) -> InspectionResult:
        """Return score, verdict, regions and map of one image, as from the camera.

        Parameters
        ----------
        image : array-like of shape ``metadata.image_shape``
            Of ``metadata.dtype``, not scaled; floats of any width. If
            ``metadata.any_size``, any height and width: the image is resized for the
            detector, and map and regions have the size of the image.

        Raises
        ------
        ValueError
            If shape or dtype differ, or a pixel is NaN or infinite.
        """
        given, size = self._checked(image), self.metadata.image_shape[:2]
        amap = self._map_of(resize(given, (size[0], size[1])))
        return self._judge(max_pool(amap, given.shape[:2]))

    def inspect_batch(self, images: Iterable[ArrayLike]) -> list[InspectionResult]:
        """Return `inspect` of each image; results do not depend on the other images.

        A ValueError names the image that is wrong.
        """
        results = []
        for i, image in enumerate(images):
            try:
                results.append(self.inspect(image))
            except ValueError as error:
                raise ValueError(f"image {i}: {error}") from None
        return results

    def inspect_file(self, path: PathLike) -> InspectionResult:
        """Return `inspect` of an image file, with regions in pixels of the file.

        It is decoded as `skad.read_image` does, made gray or colour and resized as the
        training images were. Raises a FileNotFoundError, or a ValueError if it cannot
        be read, or has other numbers than ``metadata.dtype``.
        """
        frame = reader_for(self.metadata.image_shape).read(path)
        result = self._inspect_resized(frame.image)
        return in_frames([result], [frame.size])[0]

    def inspect_files(self, paths: Sequence[Path]) -> Generator[Inspected, None, None]:
        """Yield path, frame and result of files; errors in the place of the latter two.

        Regions are in pixels of the map.
        """
        reader = reader_for(self.metadata.image_shape)
        for path in paths:
            frame: Any
            result: Any
            try:
                frame = reader.read(path)
                result = self._inspect_resized(frame.image)
            except (OSError, ValueError) as error:
                frame = result = error
            yield path, frame, result

    def _inspect_resized(self, image: NDArray[Any]) -> InspectionResult:
        return self._judge(self._map_of(self._checked(image)))

    def _judge(self, amap: NDArray[np.float32]) -> InspectionResult:
        return judge(amap, -self._threshold.value, self._scores)

    def _map_of(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """Return the anomaly map (H, W) of a checked image at its size."""
        batch = image.reshape(1, *self.metadata.image_shape)
        try:
            (maps,) = self._session.run(["anomaly_map"], {"images": batch})
        except Exception as error:  # such as one for memory, of a type of its own
            raise RuntimeError(f"onnxruntime cannot run the graph: {error}") from error
        amap = maps.reshape(self.metadata.image_shape[:2])
        if not np.isfinite(amap).all():  # it would pass as good
            raise ValueError("the anomaly map is not finite: the image is too extreme")
        return amap

    def _checked(self, image: ArrayLike) -> NDArray[Any]:
        """Return an image as an array, native and contiguous."""
        refuse_mask(image, "image")
        array, shape = np.asarray(image), self.metadata.image_shape
        dtype = np.dtype(self.metadata.dtype)
        if array.dtype.kind == dtype.kind == "f":
            with np.errstate(over="ignore"):  # infinity is refused
                array = array.astype(dtype)
        any_size = self.metadata.any_size and array.ndim in (2, 3) and array.size
        wanted = (*(array.shape[:2] if any_size else shape[:2]), *(shape[2:] or (1,)))
        found = (*array.shape, 1) if array.ndim == 2 else array.shape
        if found != wanted or array.dtype.newbyteorder("=") != dtype:
            size = ("any height", "any width") if self.metadata.any_size else shape[:2]
            rule = ", ".join(map(str, (*size, *shape[2:])))
            raise ValueError(
                f"image must have shape ({rule}) and dtype {dtype}, which the file was "
                f"exported for; got shape {array.shape} of {array.dtype}. Put channels "
                "last, resize with skad.resize_image, or export for this dtype."
            )
        if dtype.kind == "f" and not np.isfinite(array).all():
            rule = "image must hold finite numbers of 32 bits"
            raise ValueError(f"{rule}; got NaN, infinity or one above 3e38.")
        return np.ascontiguousarray(array, dtype)


def _start(content: bytes, metadata: Metadata, n_threads: int | None) -> Any:
    """Return a session of onnxruntime whose input and output are as they must be."""
    try:
        import onnxruntime
    except ImportError:
        raise ImportError(
            "skad.runtime runs exported detectors with onnxruntime, which is not "
            "installed: pip install onnxruntime"
        ) from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    # Else waiting threads keep the processor from other programs, and from each other.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.intra_op_num_threads = n_threads or 0  # 0: one for each physical core
    try:
        session = onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # of several types, one of them for each status
        reason = str(error).partition("\n")[0]
        version = onnxruntime.__version__
        raise ValueError(f"onnxruntime {version} refuses it: {reason}") from None
    kind = {"float32": "float"}.get(metadata.dtype, metadata.dtype)
    inputs = [(i.name, i.type, i.shape[1:]) for i in session.get_inputs()]
    outputs = [(o.name, o.type) for o in session.get_outputs()]
    is_right = inputs == [("images", f"tensor({kind})", [*metadata.image_shape])]
    if not is_right or ("anomaly_map", "tensor(float)") not in outputs:
        raise ValueError(f"its graph is another than its metadata say: {inputs}")
    return session
