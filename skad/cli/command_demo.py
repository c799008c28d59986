"""`skad demo`: learn a photographed surface, find planted defects, show how it went."""

import argparse
import csv
import io
import sys
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from skimage.segmentation import find_boundaries
from sklearn.utils import Bunch

from skad.benchmark.evaluation import (
    Trial,
    figures_of_images,
    figures_of_pixels,
    fit_and_score,
    rate_in_words,
)
from skad.common.files import make_room_for, write_atomically
from skad.common.locks import locked
from skad.datasets import load_surfaces
from skad.detectors.inspection import InspectionResult
from skad.detectors.patch import PatchAutoencoderDetector
from skad.displays import ScoreDisplay
from skad.overlays import encode, heat_map_image, to_rgb_uint8

_N_TRAIN = 80
_N_CALIBRATION = 40  # enough to promise 5 % of false alarms
_N_GOOD_SHOWN = 2
_SCALE = 2  # pixels of the picture a pixel of a tile
_MARGIN = 12  # pixels of the picture, between tiles
_CAPTION = 30  # pixels of the picture, height of a line of text
_SKY_BLUE = (86, 180, 233)  # the truth, as in AnomalyMapDisplay
_VERDICTS = {  # by label and answer
    (1, False): "passed",
    (1, True): "false alarm",
    (-1, False): "missed",
    (-1, True): "found",
}


class Demo(NamedTuple):
    """What the demo computed, before anything is said or drawn."""

    name: str
    surfaces: Bunch  # as from load_surfaces
    detector: PatchAutoencoderDetector
    trial: Trial
    results: list[InspectionResult]  # of the test tiles


def run(args: argparse.Namespace) -> int:
    """Run the command, and return its exit code."""
    picture = make_room_for(args.output / "demo.png")
    scores = make_room_for(args.output / "scores.csv")
    with locked(args.output):
        sizes = {"n_train": _N_TRAIN, "n_calibration": _N_CALIBRATION}
        surfaces = load_surfaces(args.surface, **sizes, random_state=args.seed)
        detector = PatchAutoencoderDetector(
            epochs=args.epochs, random_state=args.seed, verbose=1
        )
        trial = fit_and_score(detector, surfaces.train, surfaces.test)
        # Training tiles overlap: those held out are not new, their threshold too low.
        detector.calibrate(surfaces.calibration)
        results = detector.inspect(surfaces.test)
        demo = Demo(args.surface, surfaces, detector, trial, results)
        write_atomically(scores, scores_csv(demo))
        write_atomically(picture, encode(draw(demo, _histogram(demo))))
    print(report(demo))  # when all is written: who reads this may not wait
    print(f"picture        {picture}\nscores         {scores}")
    return 0


def report(demo: Demo) -> str:
    """Say how it went, a line for each figure."""
    surfaces, detector, trial = demo.surfaces, demo.detector, demo.trial
    maps = np.stack([result.anomaly_map for result in demo.results])
    images = figures_of_images(surfaces.y_test, trial.scores, detector.offset_)
    pixels = figures_of_pixels(surfaces.masks, maps)
    alarms = rate_in_words(images["false_alarms"], images["n_good"])
    promised = f"{100 * detector.promised_fpr_:.3g} %"
    lines = {
        "surface": f"{demo.name}: {len(surfaces.train)} good tiles to learn from, "
        f"{len(surfaces.calibration)} for the threshold, {len(maps)} to test",
        "image AUROC": f"{images['image_auroc']:.3f}",
        "pixel AUROC": f"{pixels['pixel_auroc']:.3f}",
        "AU-PRO": f"{pixels['au_pro']:.3f}",
        "threshold": f"{detector.pixel_threshold_:.4g}",
        "defects found": rate_in_words(images["detections"], images["n_defective"]),
        "false alarms": f"{alarms}; promised: at most {promised} on tiles like "
        "those that set the threshold",
        "training": f"{trial.training_seconds:.0f} seconds",
        "scoring": f"{trial.images_per_second:.0f} images a second",
    }
    return "\n".join(f"{name:<14} {text}" for name, text in lines.items())


def scores_csv(demo: Demo) -> str:
    """Return the results of the test tiles as the text of a CSV file."""
    text, names = io.StringIO(), ["score", "decision", "p_value", "verdict"]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["tile", "kind", *names])
    for i, result in enumerate(demo.results):
        values = (getattr(result, name) for name in names)
        writer.writerow([i, demo.surfaces.kinds[i], *values])
    return text.getvalue()


def draw(demo: Demo, histogram: Image.Image | None = None) -> NDArray[np.uint8]:
    """Draw some test tiles with the truth and with heat, and the scores below them."""
    kinds = list(demo.surfaces.kinds)
    good = [i for i, kind in enumerate(kinds) if kind == "good"][:_N_GOOD_SHOWN]
    chosen = good + [kinds.index(kind) for kind in sorted(set(kinds) - {"good"})]
    sheet = np.concatenate([_column(demo, i) for i in chosen], axis=1)
    if histogram is None:
        return sheet
    width = sheet.shape[1]
    below = histogram.resize((width, round(histogram.height * width / histogram.width)))
    return np.concatenate([sheet, np.asarray(below)])


def _column(demo: Demo, i: int) -> NDArray[np.uint8]:
    """Draw one tile twice, with captions: with the truth outlined, and with heat."""
    tile, result = demo.surfaces.test[i], demo.results[i]
    truth = _enlarged(to_rgb_uint8(tile))
    mask = _enlarged(demo.surfaces.masks[i])
    truth[find_boundaries(mask, mode="thick")] = _SKY_BLUE
    threshold = float(demo.detector.pixel_threshold_)
    heat = _enlarged(heat_map_image(tile, result.anomaly_map, threshold))
    verdict = _VERDICTS[demo.surfaces.y_test[i], result.is_anomaly]

    side = len(truth)
    column = Image.new(
        "RGB", (side + _MARGIN, 2 * (side + _CAPTION + _MARGIN)), "white"
    )
    pen, font = ImageDraw.Draw(column), ImageFont.load_default(0.7 * _CAPTION)
    left, top = _MARGIN // 2, _MARGIN + _CAPTION
    pen.text((left, _MARGIN), str(demo.surfaces.kinds[i]), "black", font)
    column.paste(Image.fromarray(truth), (left, top))
    column.paste(Image.fromarray(heat), (left, top + side + _MARGIN))
    pen.text((left, top + 2 * side + _MARGIN), verdict, "black", font)
    return np.asarray(column)


def _enlarged(pixels: NDArray) -> NDArray:
    return pixels.repeat(_SCALE, axis=0).repeat(_SCALE, axis=1)


def _histogram(demo: Demo) -> Image.Image | None:
    """Draw the scores; None without matplotlib."""
    y, scores = demo.surfaces.y_test, demo.trial.scores
    try:
        display = ScoreDisplay.from_predictions(y, scores, demo.detector.offset_)
    except ImportError as error:
        print(f"skad: warning: no histogram in the picture: {error}", file=sys.stderr)
        return None
    figure: Any = display.figure_
    figure.set_size_inches(9, 3)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=200)
    return Image.open(png).convert("RGB")
