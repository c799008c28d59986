"""Benchmark over folders in the layout of MVTec AD: every category with every seed.

Each run has a process of its own, so that its peak memory is its own and a crash
costs one run; results are stored after every run.
"""

import hashlib
import json
import math
import os
import platform
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from skad import __version__
from skad.benchmark.evaluation import figures_of_images, figures_of_pixels
from skad.benchmark.mvtec import find_categories, fingerprint, load_category
from skad.benchmark.process import in_a_process
from skad.common.bars import bar, say
from skad.common.files import make_room_for, write_atomically
from skad.common.locks import locked
from skad.detectors.parameters import check_untrained, training_parameters
from skad.detectors.patch import PatchAutoencoderDetector
from skad.encoders.frozen import check_encoder
from skad.images.decoding import PathLike
from skad.model_io.model_file import save

Result = dict[str, Any]


def run(
    root: PathLike,
    output: PathLike,
    *,
    seeds: Sequence[int],
    parameters: Mapping[str, Any],
    categories: Sequence[str] | None = None,
    models: PathLike | None = None,
) -> list[Result]:
    """Run every category, or those named, with every seed.

    `parameters` are further ones of the detector, such as JSON can hold. `output` is a
    JSON file, written anew after every run: runs that it holds already, of the same
    skad version, with the same parameters on the same files, are taken from it.
    `models` is a folder for the detectors, as CATEGORY-SEED.safetensors; a run without
    its own detector there is made again.

    Returns a dict for each run: what tells runs apart, what `run_one` returns, and the
    SHA-256 of the stored detector; or `error`, which is not stored.
    """
    for seed in seeds:  # an error that every run would end with
        detector = PatchAutoencoderDetector(**parameters, random_state=seed)
        detector._validate_params()
        check_untrained(detector)
        training_parameters(detector, (1, 1))
    check_encoder(parameters.get("encoder"), 3)
    runs = list(product(find_categories(root, categories), dict.fromkeys(seeds)))
    data_in = cache(fingerprint)  # every category is read once, not with every seed
    results = []
    with ExitStack() as stack:
        stack.enter_context(locked(make_room_for(output)))
        if models is not None:
            for folder, seed in runs:
                make_room_for(_model_file(models, folder, seed))
            stack.enter_context(locked(models))
        stored = _read_results(Path(output))
        progress = stack.enter_context(bar(runs, unit="run", shown=True))
        for folder, seed in progress:
            progress.set_postfix_str(f"{folder.name}, seed {seed}")
            model = None if models is None else _model_file(models, folder, seed)
            settings = {
                "category": folder.name,
                "seed": seed,
                "parameters": json.loads(json.dumps(dict(parameters))),
                "skad": __version__,
                "data": data_in(folder),
            }
            same = [r for r in stored if settings.items() <= r.items()]
            if same and (model is None or same[0].get("model") == _sha256(model)):
                result = same[0]
            else:
                try:
                    outcome = in_a_process(run_one, folder, seed, parameters, model)
                except Exception as error:
                    said = f"{type(error).__name__}: {error}"
                    outcome = {"error": said, "notes": [f"error: {said}"]}
                result = settings | outcome
                if "error" not in result:
                    stored = [r for r in stored if r not in same] + [result]
                    write_atomically(output, json.dumps(stored, indent=1) + "\n")
            results.append(result)
            for text in result["notes"]:
                say(f"{folder.name}, seed {seed}: {text}", above=progress)
    return results


def _model_file(models: PathLike, folder: Path, seed: int) -> Path:
    return Path(models) / f"{folder.name}-{seed}.safetensors"


def _sha256(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _read_results(output: Path) -> list[Result]:
    """Read stored results; none where there is no such file."""
    if not output.exists():
        return []
    try:
        results = json.loads(output.read_text(encoding="utf-8"))
    except ValueError:
        results = None
    if not isinstance(results, list) or not all(isinstance(r, dict) for r in results):
        raise ValueError(
            f"{output} does not hold results of a benchmark; name another file"
        )
    return results


# --- One run ----------------------------------------------------------------------


def run_one(
    path: PathLike,
    seed: int,
    parameters: Mapping[str, Any],
    model: Path | None = None,
) -> Result:
    """Fit a detector on a category, test it, and store it in `model`, if given.

    Returns the figures by name, None where undefined; `peak_memory_mb` is of the
    process until scoring ended, in MB of 10^6 bytes; `notes` is a list of str.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        category = load_category(path, parameters.get("image_size"))
        detector = PatchAutoencoderDetector(**parameters, random_state=seed)
        start = time.perf_counter()
        detector.fit(category.train)
        fitted = time.perf_counter()
        scores = detector.score_samples(category.test)
        scored, peak_memory = time.perf_counter(), peak_memory_mb()
        maps = detector.anomaly_map(category.test) if category.masks else ()
        figures = {
            "n_train": len(category.train),
            "n_calibration": len(detector.calibration_scores_),
            **figures_of_images(category.y, scores, detector.offset_),
            **figures_of_pixels(category.masks, maps),
            "threshold": float(detector.pixel_threshold_),
            "target_fpr": float(detector.target_fpr),
            "promised_fpr": detector.promised_fpr_,
            "training_seconds": fitted - start,
            "images_per_second": len(scores) / (scored - fitted),
            "peak_memory_mb": peak_memory,
        }
    notes = list(dict.fromkeys(str(warning.message) for warning in caught))
    result = {name: None if v != v else v for name, v in figures.items()}  # no NaN
    result["notes"] = notes
    if model is not None:
        save(detector, model)
        result["model"] = _sha256(model)
    return {"platform": platform.platform(), "cpus": os.cpu_count(), **result}


def peak_memory_mb() -> float:
    """Peak resident memory of this process so far, in MB; NaN on Windows."""
    try:
        import resource
    except ImportError:
        return math.nan
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, else KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
