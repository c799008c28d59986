"""Exported graphs against their detectors: python THIS_FILE ROOT
--models FOLDER --graphs FOLDER.

--models holds detectors that `skad benchmark ROOT --models FOLDER` has stored. Each is
exported to --graphs, unless its file is there, and both see all test images of its set,
one at a time and in turn, on one thread. A difference is a share of the map's value
there or of the threshold, whichever is larger. With --int8, convolutions are quantised
to 8 bits, calibrated on training images.
"""

import argparse
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime
import torch

import skad
from skad.benchmark import find_categories, load_category
from skad.images.inputs import as_images

N_CALIBRATION = 16  # training images, for --int8


def session_of(path: Path) -> Any:
    """Return a session on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        path, options, providers=["CPUExecutionProvider"]
    )


def quantised(path: Path, images: np.ndarray) -> Path:
    """Quantise the convolutions of a graph, and return where it is."""
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter(images[:, None])

        def get_next(self) -> Any:
            batch = next(self.batches, None)
            return None if batch is None else {"images": batch}

    ready, small = path.with_suffix(".ready.onnx"), path.with_suffix(".int8.onnx")
    quantization.quant_pre_process(str(path), str(ready), skip_symbolic_shape=True)
    quantization.quantize_static(
        str(ready), str(small), Reader(), op_types_to_quantize=["Conv"]
    )
    return small


def row_of(model: Path, folder: Path, graphs: Path, int8: bool) -> str:
    """Measure one detector, and return a row of the table."""
    category = load_category(folder)
    detector = skad.load(model, device="cpu")
    fitted, threshold = detector.fitted, detector.pixel_threshold_
    path = graphs / f"{model.stem}.onnx"
    if not path.exists():
        skad.export_onnx(detector, path)
    if int8:
        path = quantised(path, np.stack(list(category.train[:N_CALIBRATION])))
    session, images = session_of(path), as_images(category.test, None, fitted.format)
    of_maps, of_scores, n_other, ratios, peaks = [], [], 0, [], []
    for i in range(len(images)):
        batch = images.take(np.array([i]))
        start = perf_counter()
        expected = fitted.mapper(batch)
        middle = perf_counter()
        given = {"images": batch.reshape(1, *detector.image_shape_in_)}
        maps, (peak,) = session.run(None, given)
        ratios.append((perf_counter() - middle) / (middle - start))
        peaks.append((expected.max(), peak))
        of_maps.append(
            (np.abs(maps - expected) / np.maximum(expected, threshold)).max()
        )
        of_scores.append(abs(peak - expected.max()) / max(expected.max(), threshold))
        n_other += (peak > threshold) != (expected.max() > threshold)
    largest = "{:.0f} / {:.0f}".format(*max(peaks))
    differences = f"{max(of_maps):.1e} | {max(of_scores):.1e} | {n_other}"
    size = f"{path.stat().st_size / 1e6:.1f}"
    cells = (
        folder.name,
        len(images),
        differences,
        size,
        f"{median(ratios):.2f}",
        largest,
    )
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, metavar="ROOT")
    parser.add_argument("--models", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--categories", nargs="+", metavar="NAME")
    parser.add_argument("--graphs", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--int8", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(
        "| set | images | maps | scores | other verdicts | MB | time | largest peaks |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for folder in find_categories(args.root, args.categories):
        model = args.models / f"{folder.name}-{args.seed}.safetensors"
        print(row_of(model, folder, args.graphs, args.int8), flush=True)


if __name__ == "__main__":
    main()
