"""`skad demo`: learn a photographed surface, find planted defects, show how it went."""

import argparse
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from skimage.segmentation import find_boundaries
from sklearn.utils import Bunch

from skad.benchmark.evaluation import (
    figures_of_images,
    figures_of_pixels,
    rate_in_words,
)
from skad.common.files import make_room_for, write_atomically
from skad.common.locks import locked
from skad.common.warnings import warn
from skad.datasets import load_surfaces
from skad.detectors.patch import PatchAutoencoderDetector
from skad.inspection.verdict import InspectionResult
from skad.overlays import heat_map_image, to_rgb_uint8

_SURFACE = "brick"  # of scikit-image
_N_TRAIN = 80
_N_CALIBRATION = 40  # enough to promise 5 % of false alarms
_N_GOOD_SHOWN = 2
_SKY_BLUE = (86, 180, 233)  # the truth: M. Okabe and K. Ito, 2008
_VERDICTS = {  # by label and answer
    (1, False): "passed",
    (1, True): "false alarm",
    (-1, False): "missed",
    (-1, True): "found",
}

Results = Sequence[InspectionResult]  # of the test tiles


def run(args: argparse.Namespace) -> int:
    """Run the command, and return its exit code."""
    picture = make_room_for(args.output / "demo.png")
    with locked(args.output):
        sizes = {"n_train": _N_TRAIN, "n_calibration": _N_CALIBRATION}
        surfaces = load_surfaces(_SURFACE, **sizes, random_state=args.seed)
        detector = PatchAutoencoderDetector(
            encoder=args.encoder,
            epochs=args.epochs,
            random_state=args.seed,
            verbose=1,
        )
        detector.fit(surfaces.train)
        # Training tiles overlap: those held out are not new, their threshold too low.
        detector.calibrate(surfaces.calibration)
        results = detector.inspect(surfaces.test)
        drawn = io.BytesIO()
        try:
            draw(surfaces, detector, results).savefig(drawn, format="png", dpi=150)
        except ImportError:
            warn("no picture without matplotlib: pip install matplotlib")
        else:
            write_atomically(picture, drawn.getvalue())
    print(report(surfaces, detector, results))  # when all is written
    if drawn.getvalue():
        print(f"picture        {picture}")
    return 0


def report(surfaces: Bunch, detector: Any, results: Results) -> str:
    """Say how it went, a line for each figure."""
    maps, scores = (
        np.stack([getattr(result, name) for result in results])
        for name in ("anomaly_map", "score")
    )
    images = figures_of_images(surfaces.y_test, scores, detector.offset_)
    pixels = figures_of_pixels(surfaces.masks, maps)
    alarms = rate_in_words(images["false_alarms"], images["n_good"])
    promised = f"{100 * detector.promised_fpr_:.3g} %"
    lines = {
        "surface": f"{_SURFACE}: {len(surfaces.train)} good tiles to learn from, "
        f"{len(surfaces.calibration)} for the threshold, {len(maps)} to test",
        "image AUROC": f"{images['image_auroc']:.3f}",
        "pixel AUROC": f"{pixels['pixel_auroc']:.3f}",
        "AU-PRO": f"{pixels['au_pro']:.3f}",
        "threshold": f"{detector.pixel_threshold_:.4g}",
        "defects found": rate_in_words(images["detections"], images["n_defective"]),
        "false alarms": f"{alarms}; promised: at most {promised} on tiles like "
        "those that set the threshold",
    }
    return "\n".join(f"{name:<14} {text}" for name, text in lines.items())


def draw(surfaces: Bunch, detector: Any, results: Results) -> Any:
    """Draw some test tiles with the truth and, below them, with heat."""
    from matplotlib.figure import Figure

    kinds = list(surfaces.kinds)
    good = [i for i, kind in enumerate(kinds) if kind == "good"][:_N_GOOD_SHOWN]
    chosen = good + [kinds.index(kind) for kind in sorted(set(kinds) - {"good"})]
    figure = Figure(figsize=(2 * len(chosen), 5), layout="constrained")
    no_ticks: dict[str, Any] = {"xticks": [], "yticks": []}
    axes = figure.subplots(2, len(chosen), squeeze=False, subplot_kw=no_ticks)
    for i, (upper, lower) in zip(chosen, axes.T, strict=True):
        tile, result = surfaces.test[i], results[i]
        truth = to_rgb_uint8(tile)
        truth[find_boundaries(surfaces.masks[i], mode="outer")] = _SKY_BLUE
        upper.imshow(truth)
        upper.set_title(kinds[i])
        threshold = float(detector.pixel_threshold_)
        lower.imshow(heat_map_image(tile, result.anomaly_map, threshold))
        lower.set_title(_VERDICTS[surfaces.y_test[i], result.is_anomaly])
    return figure
