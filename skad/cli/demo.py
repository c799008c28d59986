"""The demo: learn a photographed surface, find planted defects, show how it went."""

import csv
import io
from collections.abc import Sequence
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
from skad.datasets import load_surfaces
from skad.detectors.inspection import InspectionResult
from skad.detectors.patch import PatchAutoencoderDetector
from skad.overlays import heat_map_image, to_rgb_uint8

_N_TRAIN = 80
_N_CALIBRATION = 40  # enough to promise 5 % of false alarms
_SCALE = 2  # screen pixels a tile's pixel
_MARGIN = 12  # screen pixels
_CAPTION = 30  # screen pixels, height of a line of text
_TRUTH = (86, 180, 233)  # the sky blue that skad.displays draws the truth in
_N_GOOD_SHOWN = 2


class Demo(NamedTuple):
    """What the demo computed, before anything is said or drawn."""

    name: str
    surfaces: Bunch  # as from load_surfaces
    detector: PatchAutoencoderDetector
    trial: Trial
    results: list[InspectionResult]  # of the test tiles
    figures: dict[str, Any]  # as from _evaluation


def run(name: str, *, epochs: int, seed: int) -> Demo:
    """Fit a detector on a surface and score its test tiles; shows a progress bar.

    Parameters
    ----------
    name : str
        The surface, as for `load_surfaces`.
    epochs : int
        Passes over the training tiles.
    seed : int
        Of the tiles and of the detector.

    Returns
    -------
    demo : Demo
        The data, the fitted detector and the figures.
    """
    surfaces = load_surfaces(
        name, n_train=_N_TRAIN, n_calibration=_N_CALIBRATION, random_state=seed
    )
    detector = PatchAutoencoderDetector(epochs=epochs, random_state=seed, verbose=1)
    trial = fit_and_score(detector, surfaces.train, surfaces.test)
    # Training tiles overlap: those held out are not new, and their threshold too low.
    detector.calibrate(surfaces.calibration)
    results = detector.inspect(surfaces.test)
    maps = np.stack([result.anomaly_map for result in results])
    figures = figures_of_images(surfaces.y_test, trial.scores, detector.offset_)
    figures |= figures_of_pixels(surfaces.masks, maps)
    return Demo(name, surfaces, detector, trial, results, figures)


def report(demo: Demo) -> str:
    """Say how it went, a line for each figure."""
    figures, trial = demo.figures, demo.trial
    sets = ("train", "calibration", "test")
    n_train, n_calibration, n_test = (len(demo.surfaces[name]) for name in sets)
    detected = rate_in_words(figures["detections"], figures["n_defective"])
    alarms = rate_in_words(figures["false_alarms"], figures["n_good"])
    promised = 100 * demo.detector.promised_fpr_
    lines = {
        "surface": f"{demo.name}: {n_train} good tiles to learn from, "
        f"{n_calibration} for the threshold, {n_test} to test",
        "image AUROC": f"{figures['image_auroc']:.3f}",
        "pixel AUROC": f"{figures['pixel_auroc']:.3f}",
        "AU-PRO": f"{figures['au_pro']:.3f}",
        "threshold": f"{demo.detector.pixel_threshold_:.4g}",
        "defects found": detected,
        "false alarms": f"{alarms}; promised: at most {promised:.3g} % where tiles are "
        "like those for the threshold",
        "training": f"{trial.training_seconds:.0f} seconds",
        "scoring": f"{trial.images_per_second:.0f} images a second",
    }
    return "\n".join(f"{name:<14} {text}" for name, text in lines.items())


def scores_csv(demo: Demo) -> str:
    """Scores of the test tiles as the text of a CSV file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ["score", "decision", "p_value", "verdict"]
    writer.writerow(["tile", "kind", *names])
    kinds = map(str, demo.surfaces.kinds)
    for i, (kind, result) in enumerate(zip(kinds, demo.results, strict=True)):
        writer.writerow([i, kind, *(getattr(result, name) for name in names)])
    return text.getvalue()


def picture(demo: Demo, histogram: NDArray[np.uint8] | None = None) -> bytes:
    """Draw some test tiles with the truth and with what was found, as a PNG file.

    Parameters
    ----------
    demo : Demo
        What `run` returned.
    histogram : ndarray of shape (h, w, 3), uint8, default=None
        A drawing of the scores, put below the tiles at their width.

    Returns
    -------
    png : bytes
        The file's contents.
    """
    chosen = _chosen_tiles(demo.surfaces.kinds)
    columns = [_column(demo, i) for i in chosen]
    sheet = np.concatenate(columns, axis=1)
    if histogram is not None:
        height = round(histogram.shape[0] * sheet.shape[1] / histogram.shape[1])
        drawing = Image.fromarray(histogram).resize((sheet.shape[1], height))
        sheet = np.concatenate([sheet, np.asarray(drawing)])
    png = io.BytesIO()
    Image.fromarray(sheet).save(png, "PNG", optimize=True)
    return png.getvalue()


def _chosen_tiles(kinds: Sequence[str]) -> list[int]:
    """Return the first tiles without a defect, and the first with each kind of one."""
    kinds = list(kinds)
    good = [i for i, kind in enumerate(kinds) if kind == "good"][:_N_GOOD_SHOWN]
    return good + [kinds.index(kind) for kind in sorted(set(kinds) - {"good"})]


def _column(demo: Demo, i: int) -> NDArray[np.uint8]:
    """Caption, tile with the truth outlined, tile with heat, verdict: one column."""
    tile, threshold = demo.surfaces.test[i], float(demo.detector.pixel_threshold_)
    mask = _enlarge(demo.surfaces.masks[i])  # (H, W)
    truth = to_rgb_uint8(_enlarge(tile))  # (H, W, 3)
    truth[find_boundaries(mask, mode="thick")] = _TRUTH
    result = demo.results[i]
    heat = _enlarge(heat_map_image(tile, result.anomaly_map, threshold))
    if demo.surfaces.y_test[i] == 1:
        verdict = "false alarm" if result.is_anomaly else "passed"
    else:
        verdict = "found" if result.is_anomaly else "missed"
    width = truth.shape[1]
    gap = np.full((_MARGIN, width, 3), 255, dtype=np.uint8)
    kind = _text(str(demo.surfaces.kinds[i]), width)
    rows = [gap, kind, truth, gap, heat, _text(verdict, width), gap]
    side = [(0, 0), (_MARGIN // 2, _MARGIN // 2), (0, 0)]
    return np.pad(np.concatenate(rows), side, constant_values=255)


def _enlarge(pixels: NDArray) -> NDArray:
    return pixels.repeat(_SCALE, axis=0).repeat(_SCALE, axis=1)


def _text(words: str, width: int) -> NDArray[np.uint8]:
    line = Image.new("RGB", (width, _CAPTION), "white")
    font = ImageFont.load_default(size=0.7 * _CAPTION)
    ImageDraw.Draw(line).text((0, 0), words, fill="black", font=font)
    return np.asarray(line)
