"""Score image files with a detector: a CSV table, and heat maps beside it."""

import csv
import io
import os
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from skad.common.bars import bar, say
from skad.common.files import make_room_for, write_atomically
from skad.common.locks import locked
from skad.images.decoding import PathLike
from skad.images.finding import list_files
from skad.images.resizing import Size
from skad.inspection.verdict import InspectionResult
from skad.overlays import encode, heat_map_image, line_width, read_picture
from skad.threshold.selection import select

TABLE, HEAT_MAPS = "scores.csv", "heat_maps"
_BOX = ("row_min", "col_min", "row_max", "col_max")  # half-open, as a region's bbox
COLUMNS = (
    *("path", "score", "decision", "p_value", "verdict", "n_regions"),
    "largest_area",  # in pixels of the file, as the box is
    *_BOX,  # of the worst region
    "heat_map",  # from the table's folder on
)
SELECTED = "selected"  # "yes" or "no", after `mark_selected`

Row = dict[str, Any]  # values are str if it was read from a table
# Path, frame and result, or errors in their place; regions are in pixels of the map.
Inspected = tuple[Path, Any, Any]


def score_files(
    inspect_files: Callable[[Sequence[Path]], Generator[Inspected, None, None]],
    threshold: float,
    sources: Iterable[PathLike],
    output: PathLike,
    *,
    heat_maps: bool = True,
    resume: bool = False,
    recursive: bool = False,
    verbose: int = 0,
) -> Counter[str]:
    """Score image files, write down each at once, and return counts of verdicts.

    Pixels with larger values than `threshold` are anomalous to `inspect_files`, too.
    `resume` keeps the rows that are in the table, also of files that have changed or
    are not named now, and scores the rest; unreadable files are tried again. Else the
    table is replaced, and the heat maps that it names go.
    """
    paths, table = list_files(sources, recursive), make_room_for(Path(output) / TABLE)
    with locked(table.parent):
        kept = _rows_to_keep(table, -threshold) if resume else []
        done = {row["path"] for row in kept}
        waiting = [path for path in paths if str(path) not in done]
        inspected = inspect_files(waiting)
        pictures = heat_map_files(paths, waiting, table, kept) if heat_maps else {}
        if not resume:
            _remove_heat_maps(table, paths)
        header = dict(zip(COLUMNS, COLUMNS, strict=True))
        write_atomically(table, _as_csv([header, *kept]))
        verdicts = Counter(row["verdict"] for row in kept)
        with (
            table.open("ab") as file,
            closing(inspected),
            bar(total=len(waiting), unit="image", shown=bool(verbose)) as progress,
        ):
            tell = partial(say, above=progress)
            for row in rows_of(inspected, threshold, table.parent, pictures, tell):
                file.write(_as_csv([row]))
                file.flush()
                verdicts[row["verdict"]] += 1
                progress.update()
    return verdicts


def rows_of(
    inspected: Iterable[Inspected],
    threshold: float,
    folder: Path,
    pictures: Mapping[Path, Path],
    tell: Callable[[str], object],
) -> Generator[Row, None, None]:
    """Yield the row of each file, and tell why one is unreadable.

    Draws the heat maps that `pictures` has a place for, in the `folder` of the table.
    """
    for path, frame, result in inspected:
        picture, heat_map = pictures.get(path), b""
        try:
            if isinstance(result, Exception):
                raise result
            if picture is not None:
                heat_map = _draw(path, frame.size, result, threshold)
        except (OSError, ValueError) as error:
            tell(f"skad: unreadable: {path}: {error}")
            yield {"path": str(path), "verdict": "unreadable"}
            continue
        row = _make_row(path, result, frame.size)
        if picture is not None:
            write_atomically(picture, heat_map)
            row["heat_map"] = picture.relative_to(folder).as_posix()
        yield row


def mark_selected(output: PathLike, fdr: float, n_calibration: int) -> int:
    """Write the column `selected` into the table, and return how many files are."""
    table = Path(output) / TABLE
    with locked(table.parent):
        rows = _read_table(table)
        scored = [row for row in rows if row["p_value"]]
        p_values = [float(row["p_value"]) for row in scored]
        chosen = select(p_values, fdr, n_calibration=n_calibration)
        for row, is_chosen in zip(scored, chosen, strict=True):
            row[SELECTED] = "yes" if is_chosen else "no"
        columns = (*COLUMNS, SELECTED)
        header = dict(zip(columns, columns, strict=True))
        write_atomically(table, _as_csv([header, *rows], columns))
    return int(chosen.sum())


def _make_row(path: Path, result: InspectionResult, size: Size) -> Row:
    """Make the row of a file of a (height, width)."""
    shape = result.anomaly_map.shape
    regions = [region.scaled(shape, size) for region in result.regions]
    row = {name: getattr(result, name) for name in COLUMNS[1:5]}
    if regions:
        row |= zip(_BOX, regions[0].bbox, strict=True)
    largest = max((region.area for region in regions), default=0)
    return row | {"path": path, "n_regions": len(regions), "largest_area": largest}


def _as_csv(rows: Iterable[Row], columns: Sequence[str] = COLUMNS) -> bytes:
    """Return rows as lines of the table; what a row does not say stays empty."""
    text = io.StringIO()
    csv.DictWriter(text, columns, lineterminator="\n").writerows(rows)
    return text.getvalue().encode(errors="surrogateescape")  # any file name there is


def counts_in_words(verdicts: Counter[str]) -> str:
    """Say how many images got which verdict."""
    kinds = ("good", "anomalous", "unreadable")
    return ", ".join(f"{verdicts[kind]} {kind}" for kind in kinds)


def _read_table(table: Path) -> list[Row]:
    """Read a table, without a last row that was cut off."""
    if not table.exists():
        return []
    text = table.read_bytes().decode(errors="surrogateescape")
    complete = text[: text.rfind("\n") + 1]
    return list(csv.DictReader(io.StringIO(complete, newline="")))


def _rows_to_keep(table: Path, offset: float) -> list[Row]:
    """Return the rows of a stopped run with this offset, but for unreadable files."""
    rows = _read_table(table)
    kept = [row for row in rows if row.get("verdict") != "unreadable"]
    for row in kept:
        row.pop(SELECTED, None)  # it is for all rows at once, and comes at the end
        try:
            same = float(row["score"]) - offset == float(row["decision"])
        except (KeyError, TypeError, ValueError):
            same = False
        if not same or tuple(row) != COLUMNS:
            raise ValueError(
                f"{table} was changed, or made with another model or threshold: the "
                f"row of {row.get('path')} shows it; start it over, without --resume"
            )
    return kept


def _draw(path: Path, size: Size, result: InspectionResult, threshold: float) -> bytes:
    """Return the heat map of a file of a (height, width), as a PNG."""
    rgb = read_picture(path, size)
    amap, outline = result.anomaly_map, line_width(rgb)
    return encode(heat_map_image(rgb, amap, threshold, outline=outline))


def heat_map_files(
    paths: Sequence[Path], waiting: Sequence[Path], table: Path, kept: Sequence[Row]
) -> dict[Path, Path]:
    """Return where the heat maps of images go: FILE.png, below the folder of all.

    Raises ValueError if one would replace an image, or the heat map of a kept row.
    """
    folder, base = (
        table.parent / HEAT_MAPS,
        os.path.commonpath([p.parent for p in paths]),
    )
    found = {p: folder / f"{p.relative_to(base)}.png" for p in waiting}
    drawn = [table.parent / row["heat_map"] for row in kept if row["heat_map"]]
    taken = {os.path.realpath(file) for file in [*paths, *drawn]}
    for path, picture in found.items():
        if os.path.realpath(picture) in taken:
            raise ValueError(
                f"the heat map of {path} would replace {picture}; name another output "
                "folder"
            )
    for picture in {picture.parent: picture for picture in found.values()}.values():
        make_room_for(picture)  # one in each folder
    return found


def _remove_heat_maps(table: Path, paths: Iterable[Path]) -> None:
    """Remove those that an earlier table names, and that are not scored themselves."""
    folder, scored = (table.parent / HEAT_MAPS).resolve(), set(map(Path.resolve, paths))
    for row in _read_table(table):
        picture = (table.parent / (row.get("heat_map") or "")).resolve()
        inside = picture.is_relative_to(folder) and picture not in scored
        if inside and picture.is_file():
            picture.unlink()
