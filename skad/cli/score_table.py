"""The table of scores: a row for each file, as CSV."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from skad.detectors.inspection import InspectionResult
from skad.images.resizing import Size

Row = dict[str, Any]  # values are str if it was read from a table

TABLE = "scores.csv"
_BOX = ("row_min", "col_min", "row_max", "col_max")  # half-open, as a region's bbox
COLUMNS = (
    "path",
    "score",
    "decision",
    "p_value",
    "verdict",
    "n_regions",
    "largest_area",  # in pixels of the file, as the box is
    *_BOX,  # of the worst region
    "heat_map",  # from the table's folder on
)
HEADER: Row = dict(zip(COLUMNS, COLUMNS, strict=True))


def make_row(path: Path, result: InspectionResult, size: Size) -> Row:
    """Make the row of a file of a (height, width)."""
    shape = result.anomaly_map.shape
    regions = [region.scaled(shape, size) for region in result.regions]
    row = {name: getattr(result, name) for name in COLUMNS[1:5]}
    if regions:
        row |= zip(_BOX, regions[0].bbox, strict=True)
    return row | {
        "path": str(path),
        "n_regions": len(regions),
        "largest_area": max((region.area for region in regions), default=0),
        "heat_map": "",
    }


def as_csv(rows: Iterable[Row]) -> bytes:
    """Return rows as lines of the table; what a row does not say stays empty."""
    text = io.StringIO()
    csv.DictWriter(text, COLUMNS, lineterminator="\n").writerows(rows)
    return text.getvalue().encode(errors="surrogateescape")  # any file name there is


def read_table(table: Path) -> list[Row] | None:
    """Read a table, without a last row that was cut off; None if it is another file."""
    if not table.exists():
        return []
    text = table.read_bytes().decode(errors="surrogateescape")
    complete = text[: text.rfind("\n") + 1]
    reader = csv.DictReader(io.StringIO(complete, newline=""))
    return list(reader) if tuple(reader.fieldnames or ()) == COLUMNS else None


def rows_to_keep(table: Path, offset: float) -> list[Row]:
    """Return the rows of a stopped run with this offset, but for unreadable files."""
    rows = read_table(table)
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
