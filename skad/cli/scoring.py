"""Score image files with a fitted detector: a table, and heat maps beside it."""

import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skad.cli.score_table import (
    COLUMNS,
    TABLE,
    Row,
    as_csv,
    row_of,
    rows_of,
    rows_to_keep,
)
from skad.common.bars import bar, say
from skad.common.files import make_room_for, write_atomically
from skad.common.locks import locked
from skad.detectors.drift import one_warning
from skad.images.as_fitted import AsFitted
from skad.images.decoding import Frame, PathLike
from skad.images.finding import list_files
from skad.images.inputs import read_ahead
from skad.images.resizing import Size
from skad.overlays import encode, heat_map_image, line_width, read_picture
from skad.scoring.anomaly_map import NotFiniteError

HEAT_MAPS = "heat_maps"

_AT_ONCE = 16  # images
_PIXELS_AT_ONCE = 2**24  # of the images at once, so that large ones fit into memory


class _Finding(NamedTuple):
    row: Row
    anomaly_map: NDArray | None = None  # (h, w); None where the file is unreadable
    size: Size = (0, 0)  # of the file
    reason: str = ""


def score_files(
    detector: Any,
    sources: Iterable[PathLike],
    output: PathLike,
    *,
    heat_maps: bool = True,
    resume: bool = False,
    recursive: bool = False,
    verbose: int = 0,
) -> Counter[str]:
    """Score files one batch after the other, and write down each at once.

    Parameters
    ----------
    detector : fitted detector of skad's
        Files are read as it was fitted: gray or colour, resized to its images' size.
    sources : iterable of paths
        Image files, folders of them, and patterns, as `find_images` takes.
    output : path
        A folder, made if absent: the table ``scores.csv`` and the folder
        ``heat_maps`` are written into it.
    heat_maps : bool, default=True
        Write a picture for each image, at the file's own resolution; of a file of more
        than 2**25 pixels, at a smaller one of that many.
    resume : bool, default=False
        Keep what the table holds already, also of files that were changed since or are
        not named now, and score the rest; files that could not be read, and those
        whose heat map is wanted and gone, are tried again. False starts over: an
        earlier table is replaced, and the heat maps that it names are removed.
    recursive : bool, default=False
        Search the folders in a folder, too.
    verbose : int, default=0
        1 shows a progress bar.

    Returns
    -------
    verdicts : Counter
        How often the table says "good", "anomalous" and "unreadable"; files of the
        last kind are named on the standard error stream.

    Raises
    ------
    FileNotFoundError
        If a source does not exist.
    OSError
        If the table or a heat map cannot be written; BlockingIOError if another process
        is writing to that folder.
    ValueError
        If a folder holds no image, a heat map would replace an image that is scored,
        the detector's images are no files', it has no threshold, or the table to go on
        with is none, or is of another model or threshold.
    """
    detector = copy(detector)  # stays as it is now, whatever another thread does
    if not hasattr(detector, "offset_"):
        raise ValueError(
            "the model has no threshold yet, and so no verdicts: set one from good "
            "images with skad calibrate MODEL FOLDER, or with its calibrate in Python"
        )
    paths = list_files(sources, recursive)
    reader = AsFitted(detector)
    table = make_room_for(Path(output) / TABLE)
    with locked(table.parent):
        return _score_into(table, paths, detector, reader, heat_maps, resume, verbose)


@one_warning()
def _score_into(
    table: Path,
    paths: Sequence[Path],
    detector: Any,
    reader: AsFitted,
    heat_maps: bool,
    resume: bool,
    verbose: int,
) -> Counter[str]:
    rows = rows_to_keep(table, detector, paths, heat_maps) if resume else []
    pictures = {}
    if heat_maps:
        kept = {row["path"]: table.parent / row["heat_map"] for row in rows}
        pictures = heat_map_files(paths, table.parent / HEAT_MAPS, kept)
    for picture in {file.parent: file for file in pictures.values()}.values():
        make_room_for(picture)  # one in each folder
    if not resume:
        _remove_heat_maps(table, paths)
    verdicts = Counter(row["verdict"] for row in rows)
    held = {row["path"] for row in rows}
    waiting = [path for path in paths if str(path) not in held]
    write_atomically(table, as_csv([dict(zip(COLUMNS, COLUMNS, strict=True)), *rows]))
    with (
        table.open("ab") as file,
        bar(total=len(waiting), unit="image", shown=bool(verbose)) as progress,
    ):
        pixels = math.prod(reader.size)
        at_once = max(1, min(_AT_ONCE, _PIXELS_AT_ONCE // pixels))
        starts = range(0, len(waiting), at_once)
        chunks = (waiting[i : i + at_once] for i in starts)
        with closing(read_ahead(partial(_read_all, reader), chunks)) as chunks_read:
            findings = (f for chunk in chunks_read for f in _examine(detector, chunk))
            for finding in findings:
                finding = _drawn(finding, pictures, table, detector)
                if finding.reason:
                    path = finding.row["path"]
                    say(f"skad: unreadable: {path}: {finding.reason}", above=progress)
                file.write(as_csv([finding.row]))
                file.flush()
                verdicts[finding.row["verdict"]] += 1
                progress.update()
    return verdicts


def heat_map_files(
    paths: Sequence[Path], folder: Path, kept: Mapping[str, Path]
) -> dict[str, Path]:
    """Find a place for the heat map of each image.

    Parameters
    ----------
    paths : sequence of pathlib.Path
        The images, by absolute paths.
    folder : pathlib.Path
        Where heat maps go.
    kept : mapping of str to pathlib.Path
        Heat maps that are there already, by the path of the image, and stay.

    Returns
    -------
    dict of str to pathlib.Path
        From the path of an image to that of its heat map, of all that are not in
        `kept`. Names are those of the images, in their folders relative to the one that
        holds all; a name that is taken already gets a number.

    Raises
    ------
    ValueError
        If a heat map would replace one of the images.
    """
    base = os.path.commonpath([path.parent for path in paths])
    places = [folder / path.parent.relative_to(base) for path in paths]
    images = {os.path.realpath(path) for path in paths}

    def key(path: Path) -> str:
        return str(path).casefold()  # as on disks that know no case

    taken = {key(one) for place in set(places) for one in (place, *place.parents)}
    taken |= set(map(key, kept.values()))
    found = {}
    for path, place in zip(paths, places, strict=True):
        if str(path) in kept:
            continue
        target, number = place / f"{path.stem}.png", 1
        while key(target) in taken:
            number += 1
            target = place / f"{path.stem}-{number}.png"
        if os.path.realpath(target) in images:
            raise ValueError(
                f"the heat map of {path} would replace the image {target}; name "
                "another output folder"
            )
        taken.add(key(target))
        found[str(path)] = target
    return found


def _remove_heat_maps(table: Path, paths: Iterable[Path]) -> None:
    """Remove those that an earlier table names, and that are not scored themselves."""
    folder = Path(os.path.realpath(table.parent / HEAT_MAPS))
    scored = set(map(os.path.realpath, paths))
    for row in rows_of(table) or ():
        picture = os.path.realpath(table.parent / (row["heat_map"] or ""))
        inside = Path(picture).is_relative_to(folder) and picture not in scored
        if inside and os.path.isfile(picture):
            os.unlink(picture)


def _drawn(
    finding: _Finding, pictures: dict[str, Path], table: Path, detector: Any
) -> _Finding:
    """Write the heat map, if it is wanted; a file may be gone by then."""
    if finding.anomaly_map is None or not pictures:
        return finding
    path = Path(finding.row["path"])
    try:
        rgb = read_picture(path, finding.size)
    except (OSError, ValueError) as error:
        return _unreadable(path, error)
    rgb = heat_map_image(
        rgb,
        finding.anomaly_map,
        detector.pixel_threshold_,
        outline=line_width(rgb),
    )
    picture = pictures[str(path)]
    write_atomically(picture, encode(rgb))
    drawn = picture.relative_to(table.parent).as_posix()
    return finding._replace(row={**finding.row, "heat_map": drawn})


# --- One batch --------------------------------------------------------------------


class _Chunk(NamedTuple):
    paths: Sequence[Path]
    frames: dict[Path, Frame]  # images (h, w) or (h, w, 3), by path
    unreadable: dict[Path, _Finding]


def _read_all(reader: AsFitted, paths: Sequence[Path]) -> _Chunk:
    """Read some files; what goes wrong with one is told of that one."""
    chunk = _Chunk(paths, {}, {})
    for path in paths:
        try:
            chunk.frames[path] = reader.read(path)
        except (OSError, ValueError) as error:
            chunk.unreadable[path] = _unreadable(path, error)
    return chunk


def _examine(detector: Any, chunk: _Chunk) -> list[_Finding]:
    """Judge the images of some files, in the order of these."""
    findings = dict(chunk.unreadable)
    # Integers are scaled by their type, so one array must not mix 8 and 16 bits.
    for dtype in dict.fromkeys(frame.image.dtype for frame in chunk.frames.values()):
        same = {p: f for p, f in chunk.frames.items() if f.image.dtype == dtype}
        findings |= _judge(detector, same)
    return [findings[path] for path in chunk.paths]


def _judge(detector: Any, frames: dict[Path, Frame]) -> dict[Path, _Finding]:
    try:
        results = detector.inspect(np.stack([f.image for f in frames.values()]))
    except NotFiniteError:  # no fault of the files
        raise
    except ValueError as error:
        if len(frames) == 1:
            return {path: _unreadable(path, error) for path in frames}
        single = [_judge(detector, {path: frame}) for path, frame in frames.items()]
        return {path: finding for one in single for path, finding in one.items()}
    return {
        path: _Finding(row_of(path, result, frame.size), result.anomaly_map, frame.size)
        for (path, frame), result in zip(frames.items(), results, strict=True)
    }


def _unreadable(path: Path, error: Exception) -> _Finding:
    row = {**dict.fromkeys(COLUMNS, ""), "path": str(path), "verdict": "unreadable"}
    return _Finding(row, reason=str(error))
