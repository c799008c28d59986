"""The command line: skad demo, fit, score, convert and benchmark.

What is heavy to import is imported by the commands, so that --help needs none of it.
"""

import argparse
import io
import math
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from skad._arguments import make_parser
from skad._streams import Forgiving

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from skad._demo import Demo
    from skad.images import ImageFolder

_BYTES_IN_MEMORY = 2**30  # of training images, at most
# Told in one line; torch raises a RuntimeError where memory runs out.
_ERRORS = (ValueError, OSError, ImportError, RuntimeError, MemoryError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command of the command line.

    Parameters
    ----------
    argv : sequence of str, default=None
        The arguments; None takes those that the program was called with.

    Returns
    -------
    code : int
        0; 1 where files or runs failed; 2 for an error that ends the command;
        130 where it was stopped from the keyboard.

    Raises
    ------
    SystemExit
        With 2 for wrong arguments, and with 143 where it was told to terminate.
    """
    args = make_parser().parse_args(argv)
    with (
        _terminated_cleanly(),
        _printing_any_name(),
        redirect_stderr(Forgiving(sys.stderr)),
        warnings.catch_warnings(),
    ):
        warnings.showwarning = _show_warning
        try:
            return _COMMANDS[args.command](args)
        except KeyboardInterrupt:
            print("skad: stopped", file=sys.stderr)
            return 130
        except _ERRORS as error:
            if args.debug:
                raise
            print(f"skad: error: {_one_line(error)}", file=sys.stderr)
            return 2


@contextmanager
def _terminated_cleanly() -> Iterator[None]:
    """Let SIGTERM raise, so that no file is left half written and no process runs."""
    before = signal.getsignal(signal.SIGTERM)
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or before is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _printing_any_name() -> Iterator[None]:
    """Let what is printed hold any file name there is."""
    out = sys.stdout
    if not isinstance(out, io.TextIOWrapper) or out.errors != "strict":
        yield
        return
    out.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        with suppress(OSError, ValueError):  # it flushes, and may be closed or full
            out.reconfigure(errors="strict")


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Show a warning in one line, as `warnings.showwarning`."""
    print(f"skad: warning: {_one_line(message)}", file=sys.stderr)


def _one_line(message: object) -> str:
    return " ".join(str(message).split())


# --- The commands -----------------------------------------------------------------


def _demo(args: argparse.Namespace) -> int:
    from skad import _demo
    from skad._files import make_room_for, write_atomically

    picture = make_room_for(args.output / "demo.png")
    scores = make_room_for(args.output / "scores.csv")
    demo = _demo.run(args.surface, epochs=args.epochs, seed=args.seed)
    write_atomically(scores, _demo.scores_csv(demo))
    try:
        histogram = _draw_histogram(demo)
    except ImportError as error:
        print(f"skad: warning: no histogram in the picture: {error}", file=sys.stderr)
        histogram = None
    write_atomically(picture, _demo.picture(demo, histogram))
    print(_demo.report(demo))  # when all is written: who reads this may not wait
    print(f"picture        {picture}\nscores         {scores}")
    return 0


def _draw_histogram(demo: "Demo") -> "NDArray[np.uint8]":
    import numpy as np
    from PIL import Image

    from skad.displays import ScoreDisplay

    display = ScoreDisplay.from_predictions(
        demo.surfaces.y_test, demo.trial.scores, demo.detector.offset_
    )
    figure: Any = display.figure_
    figure.set_size_inches(9, 3)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=200)
    return np.asarray(Image.open(png).convert("RGB"))  # (h, w, 3)


def _fit(args: argparse.Namespace) -> int:
    from skad._detector import PatchAutoencoderDetector
    from skad._files import make_room_for
    from skad._persistence import save
    from skad.images import ImageFolder, find_images

    files = find_images(args.folder)
    _check_not_read(args.model, files)
    make_room_for(args.model)
    image_size = _one_or_several(args.image_size)
    images = ImageFolder(files, image_size=image_size, gray=args.gray)
    print(f"learning from {len(images)} images in {args.folder}")
    unfinished = args.model.with_name(f"{args.model.name}.unfinished")
    if unfinished.exists():
        print(f"going on with  {unfinished}")
    detector = PatchAutoencoderDetector(
        _one_or_several(args.patch_size),
        epochs=args.epochs,
        batch_size=args.batch_size,
        contamination=args.contamination,
        target_fpr=args.target_fpr,
        device=args.device,
        random_state=args.seed,
        verbose=1,
    )
    # What the training can go on from stays until the model is stored.
    kept: Any = detector._fit(_in_memory_if_small(images), None, unfinished)
    save(detector, args.model)
    kept.remove()
    _print_threshold(detector)
    n = len(detector.calibration_scores_)
    print(f"calibration    {n} images that training did not see")
    print(f"model          {args.model}")
    return 0


def _check_not_read(output: Path, inputs: Iterable[Path]) -> None:
    """Refuse to write over one of the files that are read."""
    if os.path.realpath(output) in map(os.path.realpath, inputs):
        raise ValueError(
            f"{output} is one of the files that are read or written otherwise, and "
            "would be replaced; name another file"
        )


def _print_threshold(detector: Any) -> None:
    from skad._threshold import promise_in_words

    print(f"threshold      {detector.pixel_threshold_:.6g}")
    print(f"promise        {promise_in_words(detector)}")


def _in_memory_if_small(images: "ImageFolder") -> Any:
    """Hold images decoded where they fit, not to decode them in every epoch."""
    from skad.images import ImageReader

    if math.prod(images.shape) * images.dtype.itemsize > _BYTES_IN_MEMORY:
        return images
    reader = ImageReader(image_size=images.image_size, gray=images.gray)
    return reader.transform(images.paths)


def _one_or_several(numbers: list[int] | None) -> Any:
    """Return a number alone as it is, and several as a tuple."""
    if numbers is None:
        return None
    return numbers[0] if len(numbers) == 1 else tuple(numbers)


def _score(args: argparse.Namespace) -> int:
    from skad._persistence import load
    from skad._scoring import HEAT_MAPS, TABLE, score_files

    verdicts = score_files(
        load(args.model),
        args.paths,
        args.output,
        heat_maps=args.heat_maps,
        resume=args.resume,
        verbose=1,
    )
    kinds = ("good", "anomalous", "unreadable")
    print(", ".join(f"{verdicts[kind]} {kind}" for kind in kinds))
    print(f"scores         {args.output / TABLE}")
    if args.heat_maps:
        print(f"heat maps      {args.output / HEAT_MAPS}")
    return 1 if verdicts["unreadable"] else 0


def _convert(args: argparse.Namespace) -> int:
    from skad._dense_detector import DenseAutoencoderDetector
    from skad._files import make_room_for
    from skad._keras import find_pair
    from skad._persistence import save
    from skad.images import ImageFolder, find_images

    good = [] if args.good is None else find_images(args.good)
    _check_not_read(args.output, [*(find_pair(args.model) or ()), *good])
    make_room_for(args.output)
    detector = DenseAutoencoderDetector(args.model, target_fpr=args.target_fpr)
    detector.read_model()
    if args.good is None:
        print(
            "skad: warning: the model has no threshold, so it gives scores and maps "
            "but no verdicts; name good images with --good FOLDER",
            file=sys.stderr,
        )
    else:
        height, width, *colours = detector.image_shape_in_
        size = (height, width)
        images = ImageFolder(good, image_size=size, gray=not colours)
        detector.calibrate(images)
        _print_threshold(detector)
    save(detector, args.output)
    print(f"model          {args.output}")
    return 0


def _benchmark(args: argparse.Namespace) -> int:
    from skad import _benchmark
    from skad._benchmark_table import table
    from skad._files import make_room_for, write_atomically
    from skad._finding import SUFFIXES

    files = args.root.rglob("*")
    images = [file for file in files if file.suffix.lower() in SUFFIXES]
    for path in filter(None, (args.output, args.table)):
        _check_not_read(path, images)
    if args.table is not None:
        _check_not_read(args.table, [args.output])
        make_room_for(args.table)
    chosen = {
        "patch_size": _one_or_several(args.patch_size),
        "image_size": _one_or_several(args.image_size),
        "epochs": args.epochs,
        "device": args.device,
    }
    results = _benchmark.run(
        args.root,
        categories=args.categories,
        seeds=args.seeds,
        parameters={name: value for name, value in chosen.items() if value is not None},
        output=args.output,
        fresh=args.fresh,
        models=args.models,
        verbose=1,
    )
    text = table(results)
    print(text, end="")
    if args.table is not None:
        write_atomically(args.table, text)
    failed = sum("error" in result for result in results)
    if failed:
        print(f"skad: {failed} of {len(results)} runs failed", file=sys.stderr)
    return 1 if failed else 0


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "demo": _demo,
    "fit": _fit,
    "score": _score,
    "convert": _convert,
    "benchmark": _benchmark,
}

if __name__ == "__main__":
    sys.exit(main())
