"""Benchmark over folders in the layout of MVTec AD: every category with every seed.

Each run has a process of its own, so that its peak memory is its own and a crash
costs one run; results are stored after every run.
"""

import hashlib
import json
import math
import multiprocessing
import os
import platform
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from skad import __version__
from skad.benchmark.evaluation import (
    figures_by_kind,
    figures_of_images,
    figures_of_pixels,
    fit_and_score,
)
from skad.benchmark.mvtec import find_categories, fingerprint, load_category
from skad.common.bars import bar, say
from skad.common.files import make_room_for, write_atomically
from skad.common.locks import locked
from skad.images.decoding import PathLike

Result = dict[str, Any]

_SECONDS_TO_END = 10.0  # for a process that has given its result
_LAYOUT = 2  # of a stored result: raised when figures are added, so that all have them

# --- One run ----------------------------------------------------------------------


def run_one(
    path: PathLike,
    seed: int,
    parameters: Mapping[str, Any],
    model: PathLike | None = None,
) -> Result:
    """Fit on the good training images of a category and test on its test images.

    Parameters
    ----------
    path : path
        The category, as for `load_category`.
    seed : int
        The detector's `random_state`.
    parameters : mapping of str to object
        Further parameters of `PatchAutoencoderDetector`; what is not named keeps its
        default.
    model : path, default=None
        A file to store the detector in.

    Returns
    -------
    result : dict
        What `_evaluation` computes of images and pixels, and under `defects` of each
        kind of defect; `threshold`, `target_fpr`
        and `promised_fpr` (which is larger where calibration images are few),
        `n_train`, `n_calibration`, `training_seconds`, `images_per_second` (scoring),
        `peak_memory_mb` (MB of 10^6 bytes: of the process until scoring ended, before
        the metrics are computed) and `notes`, a list of str. What is undefined or
        unknown is None.
    """
    from skad.detectors.patch import PatchAutoencoderDetector
    from skad.model_io.model_file import save

    category = load_category(path)
    detector = PatchAutoencoderDetector(**parameters, random_state=seed)
    trial = fit_and_score(detector, category.train, category.test)
    peak_memory = _peak_memory_mb()
    if model is not None:
        save(detector, model)
    maps = detector.anomaly_map(category.test) if category.masks else ()
    figures = {
        "n_train": len(category.train),
        "n_calibration": len(detector.calibration_scores_),
        **figures_of_images(category.y, trial.scores, detector.offset_),
        **figures_of_pixels(category.masks, maps),
        "defects": figures_by_kind(
            category.kinds,
            category.y,
            trial.scores,
            detector.offset_,
            category.masks,
            maps,
        ),
        "threshold": float(detector.pixel_threshold_),
        "target_fpr": float(detector.target_fpr),
        "promised_fpr": detector.promised_fpr_,
        "training_seconds": trial.training_seconds,
        "images_per_second": trial.images_per_second,
        "peak_memory_mb": peak_memory,
    }
    return {**_without_nan(figures), "notes": _note_on_masks(category.unmasked)}


def _without_nan(figures: Any) -> Any:
    """Return figures with None where they are undefined, as JSON has it."""
    if isinstance(figures, dict):
        return {key: _without_nan(value) for key, value in figures.items()}
    return None if math.isnan(figures) else figures


def _note_on_masks(unmasked: list[Path]) -> list[str]:
    if not unmasked:
        return []
    return [
        f"no pixel metrics: {len(unmasked)} defective image(s) have no mask in "
        f"ground_truth, the first is {unmasked[0].parent.name}/{unmasked[0].name}"
    ]


def _peak_memory_mb() -> float:
    """Largest resident memory that this process had so far; NaN on Windows."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss counts pages of the parent, too, when it is larger
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024 / 1e6
    try:
        import resource
    except ImportError:
        return math.nan
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, else KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


# --- All runs ---------------------------------------------------------------------


def run(
    root: PathLike,
    *,
    categories: Sequence[str] | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    parameters: Mapping[str, Any] | None = None,
    output: PathLike | None = None,
    fresh: bool = False,
    models: PathLike | None = None,
    verbose: int = 0,
) -> list[Result]:
    """Run every category with every seed, each in a process of its own.

    Parameters
    ----------
    root : path
        A folder of categories, or one category.
    categories : sequence of str, default=None
        Names of those to run; None runs all.
    seeds : sequence of int, default=(0, 1, 2)
        The detector's `random_state`, one after the other.
    parameters : mapping of str to object, default=None
        Further parameters of the detector, such as JSON can hold.
    output : path, default=None
        A JSON file that is written anew after every run. Runs that it holds already,
        of the same skad version, with the same parameters on the same files, are
        taken from it; other results in it stay.
    fresh : bool, default=False
        Start the file over instead.
    models : path, default=None
        A folder to store the detectors in, as CATEGORY-SEED.safetensors. A run is
        taken from `output` only where its own detector is there.
    verbose : int, default=0
        1 shows a progress bar and names failed runs at once.

    Returns
    -------
    results : list of dict
        One a run: `category`, `seed`, `parameters`, `skad`, `layout` (of the result),
        `data` (a fingerprint of the files), `platform`, `cpus`, what `run_one`
        returns, and `model` (the SHA-256 of the stored detector); or, where the run
        failed, `error` (which is not stored, so that a rerun tries again).

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such folder or category, or `output` holds something else.
    OSError
        If `output` or `models` cannot be written to; BlockingIOError if another
        benchmark is writing there.
    """
    folders = find_categories(root, categories)
    with ExitStack() as locks:
        if output is not None:
            locks.enter_context(locked(make_room_for(output)))
        if models is not None:
            make_room_for(Path(models) / "model")
            locks.enter_context(locked(models))
        return _run_all(
            folders, seeds, parameters or {}, output, fresh, models, verbose
        )


def _run_all(
    folders: Sequence[Path],
    seeds: Sequence[int],
    parameters: Mapping[str, Any],
    output: PathLike | None,
    fresh: bool,
    models: PathLike | None,
    verbose: int,
) -> list[Result]:
    stored = [] if output is None else _open_results(Path(output), fresh)
    runs = [
        (folder, seed, _model_file(models, folder, seed))
        for folder in folders
        for seed in dict.fromkeys(seeds)
    ]
    data_in = cache(fingerprint)  # every category is read once, not with every seed
    results = []
    with bar(runs, unit="run", shown=bool(verbose)) as progress:
        for folder, seed, model in progress:
            progress.set_postfix_str(f"{folder.name}, seed {seed}")
            settings = _settings(folder, seed, parameters, data_in(folder))
            result = next((r for r in stored if _is_of(r, settings)), None)
            if result is None or not _has_model(result, model):
                outcome = _run_in_a_process(folder, seed, parameters, model)
                result = settings | outcome
                if model is not None and model.is_file():
                    result["model"] = _sha256(model)
                if output is not None and "error" not in result:
                    stored = [r for r in stored if not _is_of(r, settings)] + [result]
                    write_atomically(output, json.dumps(stored, indent=1) + "\n")
            results.append(result)
            for line in _complaints(result) if verbose else ():
                say(line, above=progress)
    return results


def _model_file(models: PathLike | None, folder: Path, seed: int) -> Path | None:
    """Return where the detector of a run goes, which can be written there."""
    if models is None:
        return None
    return make_room_for(Path(models) / f"{folder.name}-{seed}.safetensors")


def _settings(
    path: Path, seed: int, parameters: Mapping[str, Any], data: str
) -> Result:
    """Return all that decides whether two runs are the same, as JSON gives it back."""
    settings = {
        "category": path.name,
        "seed": seed,
        "parameters": dict(parameters),
        "skad": __version__,
        "layout": _LAYOUT,
        "data": data,
    }
    return json.loads(json.dumps(settings))


def _is_of(result: Result, settings: Result) -> bool:
    return all(result.get(key) == value for key, value in settings.items())


def _has_model(result: Result, model: Path | None) -> bool:
    """Tell whether that file, if one is wanted, holds the detector of this result."""
    return model is None or (model.is_file() and result.get("model") == _sha256(model))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _complaints(result: Result) -> list[str]:
    run = f"{result['category']}, seed {result['seed']}"
    error = [f"error: {result['error']}"] if "error" in result else []
    return [f"{run}: {text}" for text in error + result["notes"]]


def _open_results(output: Path, fresh: bool) -> list[Result]:
    if fresh or not output.exists():
        return []
    try:
        results = json.loads(output.read_text(encoding="utf-8"))
    except ValueError:
        results = None
    if not isinstance(results, list) or not all(isinstance(r, dict) for r in results):
        raise ValueError(
            f"{output} does not hold results of a benchmark; name another file, or "
            "start it over with fresh=True"
        )
    return results


def _run_in_a_process(
    path: Path, seed: int, parameters: Mapping[str, Any], model: Path | None
) -> Result:
    """Call `run_one` in a new process, which is ended if this one is interrupted."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(
        target=_child, args=(sender, path, seed, dict(parameters), model), daemon=True
    )
    child.start()
    sender.close()  # so that the pipe ends when the child does
    try:
        result = receiver.recv()
        child.join(_SECONDS_TO_END)  # killed sooner, it would leave semaphores behind
        return result
    except EOFError:
        child.join()
        error = f"the process of the run ended with code {child.exitcode}"
        return {"error": error, "notes": []}
    finally:
        child.kill()
        child.join()
        receiver.close()


def _child(
    sender: Connection,
    path: Path,
    seed: int,
    parameters: Mapping[str, Any],
    model: Path | None,
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told, and ends this
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    result: Result = {"platform": platform.platform(), "cpus": os.cpu_count()}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        try:
            result |= run_one(path, seed, parameters, model)
        except (ValueError, OSError) as error:
            result = {"error": str(error), "notes": []}
        except Exception as error:
            traceback.print_exc()
            result = {"error": repr(error), "notes": []}
    said = dict.fromkeys(str(warning.message) for warning in caught)
    result["notes"] += list(said)
    sender.send(result)
    sender.close()


def _end_with_the_parent() -> None:
    """End this process when its parent does, also where that one was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
