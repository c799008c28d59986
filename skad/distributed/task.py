"""What a worker does: score a chunk of files, and write its part."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

from distributed import get_worker

from skad.common.torch_settings import limit_threads
from skad.detectors.files import inspect_files
from skad.distributed.parts import Identity, write_part
from skad.inspection.score_files import rows_of
from skad.model_io.fingerprint import fingerprint
from skad.model_io.model_file import load

MODEL = "_model.safetensors"  # beside the parts; readers of Parquet pass over it
_lock = Lock()  # so that two threads of a worker do not load one model twice


def score_chunk(
    part: Path, paths: Sequence[Path], pictures: Mapping[Path, Path], identity: Identity
) -> tuple[Counter[str], list[str]]:
    """Score files and write their part; return counts of verdicts, and what failed."""
    if not any(map(os.path.lexists, paths)):
        raise FileNotFoundError(
            f"the worker {get_worker().address} finds none of {len(paths)} files, as "
            f"{paths[0]}; every worker must see them under the same path"
        )
    folder, problems = part.parents[1], list[str]()
    with limit_threads(1):  # the worker runs as many tasks at once as it has threads
        with _lock:
            detector = _load_once(part.parent / MODEL, identity["skad.model"])
        threshold = detector.pixel_threshold_
        with closing(inspect_files(detector, paths)) as inspected:
            rows = list(
                rows_of(inspected, threshold, folder, pictures, problems.append)
            )
    write_part(part, rows, identity)
    return Counter(row["verdict"] for row in rows), problems


@lru_cache(maxsize=2)
def _load_once(file: Path, wanted: str) -> Any:
    """Load a model, and keep it for the next chunk."""
    detector = load(file)
    found = fingerprint(detector)
    if found != wanted:
        raise RuntimeError(f"{file} is another model ({found}) than {wanted}")
    return detector
