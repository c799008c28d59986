"""Labels of image files in a CSV table: one row for each, path and label."""

import os
from pathlib import Path

from skad.images.decoding import PathLike
from skad.images.file_table import read_file_table

LABELS = {"good": 1, "bad": -1}
_COLUMNS = ("path", "label")


def read_labels(path: PathLike) -> dict[Path, int]:
    """Read a table with the columns path and label (good or bad); others are ignored.

    Returns +1 for good and -1 for bad, by the path of each image. A relative path
    starts from the folder of the table. Raises a ValueError that names the line of a
    label that is neither, or that contradicts an earlier one.
    """
    table = Path(os.path.expanduser(path))
    rows, first_line = read_file_table(table, _COLUMNS)
    if rows is None:
        raise ValueError(
            f"{table} must have the columns path and label, separated by a comma; its "
            f"first line is {first_line[:80]!r}"
        )
    labels: dict[Path, int] = {}
    for line, (name, word) in rows:
        label = LABELS.get(word.strip().lower())
        file = table.parent.absolute() / name
        where = f"{table}, line {line}: "
        if not name:
            raise ValueError(f"{where}a row must name its image in the column path")
        if label is None:
            raise ValueError(
                f"{where}a label must be good or bad; got {word!r} for {file}"
            )
        if labels.setdefault(file, label) != label:
            raise ValueError(f"{where}{file} is good in one row and bad in another")
    if not labels:
        raise ValueError(f"{table} has no rows: add one for each image, path and label")
    return labels
