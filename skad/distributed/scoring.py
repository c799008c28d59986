"""Score files on a cluster: what travels is paths, and results are on the disk."""

import os
import re
from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.request import url2pathname

from distributed import Client, Future, KilledWorker, as_completed
from distributed.client import FutureCancelledError

from skad.common.bars import bar, say
from skad.common.checks import check_whole
from skad.common.files import make_room_for
from skad.common.locks import locked
from skad.detectors.base import ImageDetector
from skad.distributed.cluster import check_workers
from skad.distributed.parts import Identity, as_text, name_of, read_parts
from skad.distributed.task import MODEL, score_chunk
from skad.images.decoding import PathLike
from skad.images.finding import list_files
from skad.images.resizing import check_bool
from skad.inspection.score_files import heat_map_files
from skad.model_io.fingerprint import fingerprint
from skad.model_io.model_file import load, save

#: Name of the folder, in the output, that holds the parts of the Parquet data set
DATA_SET = "scores.parquet"
_AHEAD = 4  # chunks under way or waiting for each thread of the workers
_LOST = (
    "the scheduler was lost, or has cancelled the tasks; run the same command again to "
    "resume"
)


def score(
    model: ImageDetector | PathLike,
    sources: Iterable[PathLike],
    output: PathLike,
    client: Client,
    *,
    chunk_size: int = 200,
    heat_maps: bool = False,
    recursive: bool = False,
    verbose: int = 0,
) -> Counter[str]:
    """Score image files on a Dask cluster, and write a Parquet data set.

    Each task scores a chunk of files and writes one part, at once and whole. Call it
    again to resume after a stop, or to score files that are new: rows that are there
    stay, also of files that have changed, or could not be read. All machines must see
    the files and the output under the same paths.

    Parameters
    ----------
    model : fitted detector, str or os.PathLike
        With a threshold; or the file of a model.
    sources : iterable of paths
        Image files, and folders of them.
    output : str or os.PathLike
        Folder, or ``file://`` address of one, for heat maps and ``scores.parquet``,
        a folder of parts with a copy of the model. The columns are those of
        ``scores.csv``; the metadata of each part have ``skad.threshold``, and as
        ``skad.model`` the SHA-256 of the detector with its threshold.
    client : distributed.Client
        Its workers must have the same version of skad.
    chunk_size : int, default=200
        Files of one task. A worker that dies loses at most one chunk for each thread.
    heat_maps : bool, default=False
        Write a picture for each image into ``heat_maps``.
    recursive : bool, default=False
        Search subfolders, too.
    verbose : int, default=0
        1 = show a progress bar on terminals.

    Returns
    -------
    counts : collections.Counter
        Rows of the data set that are "good", "anomalous" and "unreadable".

    Raises
    ------
    ValueError
        If there is no image or no threshold; if the output holds results of another
        model or threshold.
    TypeError
        If the detector has an encoder of your own, which no file can hold.
    OSError
        If the scheduler is lost (ConnectionError), there is no worker (TimeoutError),
        another program writes to the output (BlockingIOError), or files cannot be
        read or written.
    RuntimeError
        If workers have another version of skad or none; once all else is scored, if
        chunks have killed every worker that tried them.
    """
    check_whole("chunk_size", chunk_size, 1)
    check_bool("heat_maps", heat_maps)
    detector = model if isinstance(model, ImageDetector) else load(model)
    if not hasattr(detector, "offset_"):
        raise ValueError("model must have a threshold; set one with calibrate first")
    paths = list_files(sources, recursive)
    if not paths:
        raise ValueError("sources must name at least one image file; got none")
    data_set = make_room_for(_as_folder(output) / DATA_SET / MODEL).parent
    folder = data_set.parent
    check_workers(client)
    identity = {
        "skad.model": fingerprint(detector),
        "skad.threshold": repr(float(detector.pixel_threshold_)),
    }
    with locked(folder):
        kept = read_parts(data_set, identity)
        done = {row["path"] for row in kept}
        waiting = [path for path in paths if as_text(path) not in done]
        pictures: Mapping[Path, Path] = {}
        if heat_maps:
            pictures = heat_map_files(paths, waiting, data_set, kept)
        save(detector, data_set / MODEL)
        verdicts = Counter(row["verdict"] for row in kept)
        chunks = [
            waiting[i : i + chunk_size] for i in range(0, len(waiting), chunk_size)
        ]
        scored = _score_chunks(client, folder, chunks, pictures, identity)
        with (
            closing(scored),
            bar(total=len(waiting), unit="image", shown=bool(verbose)) as progress,
        ):
            for counts, problems in scored:
                for problem in problems:
                    say(problem, above=progress)
                verdicts += counts
                progress.update(counts.total())
    return verdicts


def _as_folder(output: PathLike) -> Path:
    """Return the folder that is meant by a path or a file:// address."""
    text = os.path.expanduser(os.fspath(output))
    scheme = re.match(r"([a-z][a-z0-9+.-]+):/", text)  # a Path has lost one slash
    if scheme is None:
        return Path(text).absolute()
    if scheme[1] != "file":
        raise ValueError(
            f"output must be a folder that all workers see; got {text}. Mount it, and "
            "name its path"
        )
    return Path("/" + url2pathname(text.partition(":")[2]).lstrip("/"))


def _score_chunks(
    client: Client,
    folder: Path,
    chunks: Sequence[Sequence[Path]],
    pictures: Mapping[Path, Path],
    identity: Identity,
) -> Generator[tuple[Counter[str], list[str]], None, None]:
    """Yield what each chunk comes to, as they end; at a stop, cancel what is left."""
    running: dict[Any, tuple[Future, Path]] = {}
    ended, waiting, deadly = as_completed(loop=client.loop), iter(chunks), list[Path]()

    def submit() -> None:
        try:
            n_threads = max(1, sum(client.nthreads().values()))  # 0 while all restart
        except OSError as error:
            raise ConnectionError(_LOST) from error
        for chunk in islice(waiting, max(0, _AHEAD * n_threads - len(running))):
            part = folder / DATA_SET / f"{name_of(chunk)}.parquet"
            drawn = {path: pictures[path] for path in chunk if path in pictures}
            future = client.submit(
                score_chunk, part, chunk, drawn, identity, pure=False
            )
            running[future.key] = future, chunk[0]
            ended.add(future)

    try:
        submit()
        for future in ended:
            _, first = running.pop(future.key)
            submit()
            try:
                yield future.result()
            except KilledWorker:  # for instance, an image that takes all memory
                deadly.append(first)
            except FutureCancelledError as error:
                raise ConnectionError(_LOST) from error
    finally:
        with suppress(OSError):  # the scheduler is lost
            client.cancel([future for future, _ in running.values()])
    if deadly:
        raise RuntimeError(
            f"{len(deadly)} chunk(s) killed each worker that scored them; all others "
            f"are done. The first begins with {deadly[0]}. Give the workers more "
            "memory, or find the image with a chunk_size of 1"
        )
