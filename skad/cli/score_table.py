"""The table of scores: a row for each file, as CSV."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from skad.detectors.inspection import InspectionResult

Row = dict[str, Any]  # one of the table, or as read from it: all values str

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
TABLE = "scores.csv"


def row_of(path: Path, result: InspectionResult, size: tuple[int, int]) -> Row:
    """Return the row of a file of a (height, width)."""
    seen = result.anomaly_map.shape
    regions = [region.scaled(seen, size) for region in result.regions]
    worst = regions[0].bbox if regions else ("",) * 4
    return {
        "path": str(path),
        "score": result.score,
        "decision": result.decision,
        "p_value": result.p_value,
        "verdict": result.verdict,
        "n_regions": len(regions),
        "largest_area": max((region.area for region in regions), default=0),
        **dict(zip(_BOX, worst, strict=True)),
        "heat_map": "",
    }


def as_csv(rows: Sequence[Row]) -> bytes:
    """Write rows as lines of the table."""
    text = "".join(map(_as_line, rows))
    return text.encode(errors="surrogateescape")  # any file name there is


def _as_line(row: Row) -> str:
    text = io.StringIO()
    # With "\r" in the line's end csv quotes it in names, too, as readers need it.
    csv.DictWriter(text, COLUMNS, lineterminator="\r\n").writerow(row)
    return text.getvalue().removesuffix("\r\n") + "\n"


def rows_of(table: Path) -> list[Row] | None:
    """Read a table, of which the last row may have been cut off; None if it is none."""
    if not table.exists():
        return []
    text = table.read_bytes().decode(errors="surrogateescape")
    whole = text[: text.rfind("\n") + 1]
    reader = csv.DictReader(io.StringIO(whole, newline=""))
    try:
        return list(reader) if tuple(reader.fieldnames or ()) == COLUMNS else None
    except csv.Error:  # a field of 100,000 characters
        return None


def rows_to_keep(
    table: Path, detector: Any, paths: Sequence[Path], heat_maps: bool
) -> list[Row]:
    """Rows of an earlier, interrupted call that need not be made again."""
    rows = rows_of(table)
    if rows is None:
        raise ValueError(
            f"{table} is not a table of scores; start it over, without resume=True"
        )
    wanted = set(map(str, paths))
    kept = []
    for row in rows:
        if row["verdict"] == "unreadable":
            continue
        is_row = None not in (*row, *row.values())  # not too long, nor too short
        try:
            score, decision = float(row["score"]), float(row["decision"])
        except (TypeError, ValueError):
            is_row = False
        if not is_row:
            raise ValueError(
                f"{table} has a row that is none: {list(row.values())}; mend it, or "
                "start the table over, without resume=True"
            )
        if score - float(detector.offset_) != decision:
            raise ValueError(
                f"{table} was made with another model or threshold: the row of "
                f"{row['path']} shows it; start it over, without resume=True"
            )
        drawn = bool(row["heat_map"]) and (table.parent / row["heat_map"]).is_file()
        if drawn or not heat_maps or row["path"] not in wanted:
            kept.append(row)
    return kept
