"""Labels of image files, from a table in a CSV file."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path

_LABELS = {
    **dict.fromkeys(("1", "+1", "1.0", "good"), 1),
    **dict.fromkeys(("-1", "-1.0", "anomalous"), -1),
}


def read_labels(table: Path, folder: Path, files: Sequence[Path]) -> dict[Path, int]:
    """Read the label, 1 or -1, of each image file that a table names.

    The table has a column ``path`` or ``name``, and a column ``label``: +1 or good, -1
    or anomalous. Paths are absolute, or start at `folder`, at the folder of the table
    or at the working directory; a name is that of one file alone.
    """
    named: dict[str, list[Path]] = {}
    for image in files:
        for name in (os.path.realpath(image), image.name):
            named.setdefault(name, []).append(image)
    found: dict[Path, int] = {}
    with table.open(encoding="utf-8-sig", newline="", errors="surrogateescape") as file:
        rows = csv.DictReader(file)
        columns = [str(column).strip().lower() for column in rows.fieldnames or ()]
        rows.fieldnames = columns
        if "label" not in columns or not {"path", "name"} & set(columns):
            raise ValueError(
                f"{table} must have a column path or name, and a column label; it has "
                f"{', '.join(columns) or 'none'}"
            )
        for row in rows:
            where = f"{table}, line {rows.line_num}"
            name, label = row.get("path", row.get("name")) or "", row["label"] or ""
            value = _LABELS.get(label.strip().lower())
            if value is None:
                raise ValueError(
                    f"{where}: a label must be +1 or good, -1 or anomalous; got "
                    f"{label!r}"
                )
            folders = (folder, table.parent, Path())
            names = [*(os.path.realpath(start / name) for start in folders), name]
            meant = next((named[known] for known in names if known in named), [])
            if len(meant) != 1:
                raise ValueError(
                    f"{where}: {name!r} must be one image in {folder}; {len(meant)} are"
                )
            if found.setdefault(meant[0], value) != value:
                raise ValueError(f"{where}: {name} has another label above; keep one")
    return {image: found[image] for image in files if image in found}
