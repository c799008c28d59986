"""Score image files with a fitted detector: a CSV table, and heat maps beside it."""

import csv
import io
import math
import os
from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from itertools import count, groupby
from pathlib import Path
from typing import Any

import numpy as np

from skad.common.bars import bar, say
from skad.common.files import make_room_for, write_atomically
from skad.common.locks import locked
from skad.detectors.drift import one_warning
from skad.detectors.inspection import InspectionResult
from skad.images.as_fitted import AsFitted
from skad.images.decoding import Frame, PathLike
from skad.images.finding import list_files
from skad.images.inputs import read_ahead
from skad.images.resizing import Size
from skad.overlays import encode, heat_map_image, line_width, read_picture
from skad.scoring.anomaly_map import NotFiniteError

TABLE, HEAT_MAPS = "scores.csv", "heat_maps"
_BOX = ("row_min", "col_min", "row_max", "col_max")  # half-open, as a region's bbox
COLUMNS = (
    *("path", "score", "decision", "p_value", "verdict", "n_regions"),
    "largest_area",  # in pixels of the file, as the box is
    *_BOX,  # of the worst region
    "heat_map",  # from the table's folder on
)
_AT_ONCE = 16  # images
_PIXELS_AT_ONCE = 2**24  # of the images at once, so that large ones fit into memory

Row = dict[str, Any]  # values are str if it was read from a table


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

    `resume` keeps the rows that are in the table, also of files that have changed or
    are not named now, and scores the rest; unreadable files, and those whose heat map
    is wanted and gone, are tried again. Else the table is replaced, and the heat maps
    that it names go.
    """
    paths, reader = list_files(sources, recursive), AsFitted(detector)
    table = make_room_for(Path(output) / TABLE)
    with locked(table.parent), one_warning():
        kept = _rows_to_keep(table, detector.offset_) if resume else []
        pictures = {}
        if heat_maps:
            wanted = set(map(str, paths))
            kept = [r for r in kept if r["path"] not in wanted or _is_drawn(r, table)]
            drawn = {row["path"]: table.parent / row["heat_map"] for row in kept}
            pictures = heat_map_files(paths, table.parent / HEAT_MAPS, drawn)
        if not resume:
            _remove_heat_maps(table, paths)
        header = dict(zip(COLUMNS, COLUMNS, strict=True))
        write_atomically(table, _as_csv([header, *kept]))
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
                    row = _make_row(path, result, frame.size)
                    if picture:
                        row["heat_map"] = picture.relative_to(table.parent).as_posix()
                file.write(_as_csv([row]))
                file.flush()
                verdicts[row["verdict"]] += 1
                progress.update()
    return verdicts


def _inspect_files(
    detector: Any, reader: AsFitted, paths: Sequence[Path]
) -> Generator[tuple[Path, Any, Any], None, None]:
    """Yield each path, its frame and its result, which may be an exception instead."""

    def read(path: Path) -> Any:
        try:
            return reader.read(path)
        except (OSError, ValueError) as error:
            return error

    n = max(1, min(_AT_ONCE, _PIXELS_AT_ONCE // math.prod(reader.size)))
    chunks = (paths[i : i + n] for i in range(0, len(paths), n))
    frames_of = read_ahead(lambda chunk: [(p, read(p)) for p in chunk], chunks)
    with closing(frames_of) as chunks_read:
        for chunk in chunks_read:
            # Integers are scaled by their type: no array may mix 8 and 16 bits.
            for dtype, group in groupby(chunk, _dtype_of):
                files, frames = zip(*group, strict=True)
                results = frames if dtype is None else _inspect(detector, frames)
                yield from zip(files, frames, results, strict=True)


def _dtype_of(read: tuple[Path, Any]) -> np.dtype | None:
    frame = read[1]
    return None if isinstance(frame, Exception) else frame.image.dtype


def _inspect(detector: Any, frames: Sequence[Frame]) -> Sequence[Any]:
    """Return the result of each frame, or why the detector refuses it."""
    try:
        return detector.inspect(np.stack([frame.image for frame in frames]))
    except NotFiniteError:  # no fault of the files
        raise
    except ValueError as error:  # such as NaN among floating-point numbers
        if len(frames) == 1:
            return [error]
    return [_inspect(detector, [frame])[0] for frame in frames]


# --- The table --------------------------------------------------------------------


def _make_row(path: Path, result: InspectionResult, size: Size) -> Row:
    """Make the row of a file of a (height, width)."""
    shape = result.anomaly_map.shape
    regions = [region.scaled(shape, size) for region in result.regions]
    row = {name: getattr(result, name) for name in COLUMNS[1:5]}
    if regions:
        row |= zip(_BOX, regions[0].bbox, strict=True)
    largest = max((region.area for region in regions), default=0)
    return row | {"path": path, "n_regions": len(regions), "largest_area": largest}


def _as_csv(rows: Iterable[Row]) -> bytes:
    """Return rows as lines of the table; what a row does not say stays empty."""
    text = io.StringIO()
    csv.DictWriter(text, COLUMNS, lineterminator="\n").writerows(rows)
    return text.getvalue().encode(errors="surrogateescape")  # any file name there is


def _read_table(table: Path) -> list[Row] | None:
    """Read a table, without a last row that was cut off; None if it is another file."""
    if not table.exists():
        return []
    text = table.read_bytes().decode(errors="surrogateescape")
    complete = text[: text.rfind("\n") + 1]
    reader = csv.DictReader(io.StringIO(complete, newline=""))
    return list(reader) if tuple(reader.fieldnames or ()) == COLUMNS else None


def _rows_to_keep(table: Path, offset: float) -> list[Row]:
    """Return the rows of a stopped run with this offset, but for unreadable files."""
    rows = _read_table(table)
    if rows is None:
        raise ValueError(
            f"{table} is not a table of scores; start it over, without --resume"
        )
    kept = [row for row in rows if row["verdict"] != "unreadable"]
    for row in kept:
        try:
            same = float(row["score"]) - offset == float(row["decision"])
        except (TypeError, ValueError):
            same = False
        if not same:
            raise ValueError(
                f"{table} was changed, or made with another model or threshold: the "
                f"row of {row['path']} shows it; start it over, without --resume"
            )
    return kept


# --- Heat maps --------------------------------------------------------------------


def _draw(
    detector: Any, path: Path, frame: Frame, result: InspectionResult, picture: Path
) -> InspectionResult | Exception:
    """Write the heat map of a file, and return the result; the file may be gone."""
    try:
        rgb = read_picture(path, frame.size)
    except (OSError, ValueError) as error:
        return error
    threshold, outline = detector.pixel_threshold_, line_width(rgb)
    heat = heat_map_image(rgb, result.anomaly_map, threshold, outline=outline)
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
        target, numbers = place / f"{path.stem}.png", count(2)
        while str(target).casefold() in taken:  # as on disks that know no case
            target = place / f"{path.stem}-{next(numbers)}.png"
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
    for row in _read_table(table) or ():
        picture = (table.parent / (row["heat_map"] or "")).resolve()
        inside = picture.is_relative_to(folder) and picture not in scored
        if inside and picture.is_file():
            picture.unlink()
