"""Score image files with a fitted detector: a table, and heat maps beside it."""

import math
import os
from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from skad.cli.score_table import (
    HEADER,
    TABLE,
    Row,
    as_csv,
    make_row,
    read_table,
    rows_to_keep,
)
from skad.common.bars import bar, say
from skad.common.files import make_room_for, write_atomically
from skad.common.locks import locked
from skad.detectors.drift import one_warning
from skad.detectors.inspection import InspectionResult
from skad.images.as_fitted import AsFitted
from skad.images.decoding import Frame, PathLike
from skad.images.finding import list_files
from skad.images.inputs import read_ahead
from skad.overlays import encode, heat_map_image, line_width, read_picture
from skad.scoring.anomaly_map import NotFiniteError

HEAT_MAPS = "heat_maps"

_AT_ONCE = 16  # images
_PIXELS_AT_ONCE = 2**24  # of the images at once, so that large ones fit into memory


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
    """Score image files, write down each at once, and return counts of verdicts.

    ``scores.csv`` and ``heat_maps`` are made in the folder `output`. `resume` keeps the
    rows that are there, also of files that have changed or are not named now, and
    scores the rest; unreadable files, and those whose heat map is wanted and gone, are
    tried again. Else the table is replaced, and the heat maps that it names go.
    """
    paths, reader = list_files(sources, recursive), AsFitted(detector)
    table = make_room_for(Path(output) / TABLE)
    with locked(table.parent), one_warning():
        kept = rows_to_keep(table, detector.offset_) if resume else []
        pictures = {}
        if heat_maps:
            wanted = set(map(str, paths))
            kept = [r for r in kept if r["path"] not in wanted or _is_drawn(r, table)]
            drawn = {row["path"]: table.parent / row["heat_map"] for row in kept}
            pictures = heat_map_files(paths, table.parent / HEAT_MAPS, drawn)
        if not resume:
            _remove_heat_maps(table, paths)
        write_atomically(table, as_csv([HEADER, *kept]))
        done = {row["path"] for row in kept}
        waiting = [path for path in paths if str(path) not in done]
        verdicts = Counter(row["verdict"] for row in kept)
        with (
            table.open("ab") as file,
            bar(total=len(waiting), unit="image", shown=bool(verbose)) as progress,
            closing(_inspect_files(detector, reader, waiting)) as inspected,
        ):
            for path, frame, result in inspected:
                picture = pictures.get(path)
                if picture and not isinstance(result, Exception):
                    result = _draw(detector, path, frame, result, picture)
                if isinstance(result, Exception):
                    say(f"skad: unreadable: {path}: {result}", above=progress)
                    row = {"path": str(path), "verdict": "unreadable"}
                else:
                    row = make_row(path, result, frame.size)
                    if picture:
                        row["heat_map"] = picture.relative_to(table.parent).as_posix()
                file.write(as_csv([row]))
                file.flush()
                verdicts[row["verdict"]] += 1
                progress.update()
    return verdicts


def _inspect_files(
    detector: Any, reader: AsFitted, paths: Sequence[Path]
) -> Generator[tuple[Path, Any, Any], None, None]:
    """Yield each path, its frame and its result, which may be an exception instead."""
    n = max(1, min(_AT_ONCE, _PIXELS_AT_ONCE // math.prod(reader.size)))
    starts = range(0, len(paths), n)
    chunks = (paths[i : i + n] for i in starts)
    with closing(read_ahead(partial(_read, reader), chunks)) as chunks_read:
        for chunk in chunks_read:
            # Integers are scaled by their type: no array may mix 8 and 16 bits.
            for dtype, group in groupby(chunk, lambda read: read[2]):
                files, frames, _ = zip(*group, strict=True)
                results = frames if dtype is None else _inspect(detector, frames)
                yield from zip(files, frames, results, strict=True)


def _read(
    reader: AsFitted, paths: Sequence[Path]
) -> list[tuple[Path, Any, np.dtype | None]]:
    """Return the frame of each file and its type, or an exception and None."""
    found: list[tuple[Path, Any, np.dtype | None]] = []
    for path in paths:
        try:
            frame = reader.read(path)
            found.append((path, frame, frame.image.dtype))
        except (OSError, ValueError) as error:
            found.append((path, error, None))
    return found


def _inspect(detector: Any, frames: Sequence[Frame]) -> Sequence[Any]:
    try:
        return detector.inspect(np.stack([frame.image for frame in frames]))
    except NotFiniteError:  # no fault of the files
        raise
    except ValueError as error:  # such as floating-point numbers
        return [error] * len(frames)


# --- Heat maps --------------------------------------------------------------------


def _draw(
    detector: Any, path: Path, frame: Frame, result: InspectionResult, picture: Path
) -> InspectionResult | Exception:
    """Write the heat map of a file, and return the result; the file may be gone."""
    try:
        rgb = read_picture(path, frame.size)
    except (OSError, ValueError) as error:
        return error
    heat = heat_map_image(
        rgb,
        result.anomaly_map,
        detector.pixel_threshold_,
        outline=line_width(rgb),
    )
    write_atomically(picture, encode(heat))
    return result


def heat_map_files(
    paths: Sequence[Path], folder: Path, kept: Mapping[str, Path]
) -> dict[Path, Path]:
    """Return where the heat map of each image goes that is not in `kept`.

    `kept` are heat maps that stay, by the paths of their images. Names are those of the
    images, in their folders relative to the one that holds all; a name that is taken
    already gets a number. Raises ValueError if one would replace an image.
    """
    base = os.path.commonpath([path.parent for path in paths])
    images = {os.path.realpath(path) for path in paths}
    taken = {str(picture).casefold() for picture in kept.values()}
    found: dict[Path, Path] = {}
    for path in paths:
        if str(path) in kept:
            continue
        place = folder / path.parent.relative_to(base)
        target, number = place / f"{path.stem}.png", 1
        while str(target).casefold() in taken:  # as on disks that know no case
            number += 1
            target = place / f"{path.stem}-{number}.png"
        if os.path.realpath(target) in images:
            raise ValueError(
                f"the heat map of {path} would replace the image {target}; name "
                "another output folder"
            )
        taken.add(str(target).casefold())
        found[path] = target
    for picture in {target.parent: target for target in found.values()}.values():
        make_room_for(picture)  # one in each folder
    return found


def _is_drawn(row: Row, table: Path) -> bool:
    return bool(row["heat_map"]) and (table.parent / row["heat_map"]).is_file()


def _remove_heat_maps(table: Path, paths: Iterable[Path]) -> None:
    """Remove those that an earlier table names, and that are not scored themselves."""
    folder, scored = (table.parent / HEAT_MAPS).resolve(), set(map(Path.resolve, paths))
    for row in read_table(table) or ():
        picture = (table.parent / (row["heat_map"] or "")).resolve()
        inside = picture.is_relative_to(folder) and picture not in scored
        if inside and picture.is_file():
            picture.unlink()
