"""Labels of image files in a CSV table: one row for each, path and label."""

import csv
import io
import os
from pathlib import Path

from skad.images.decoding import PathLike

LABELS = {"good": 1, "bad": -1}
_COLUMNS = ("path", "label")


def read_labels(path: PathLike) -> dict[Path, int]:
    """Read a table with the columns path and label (good or bad); others are ignored.

    Returns +1 for good and -1 for bad, by the path of each image. A relative path
    starts from the folder of the table. Raises a ValueError that names the line of a
    label that is neither, or that contradicts an earlier one.
    """
    table = Path(os.path.expanduser(path))
    content = table.read_bytes().removeprefix(b"\xef\xbb\xbf")  # as Excel begins a file
    text = content.decode(errors="surrogateescape")  # any file name there is
    rows = csv.DictReader(io.StringIO(text, newline=""))
    if not set(_COLUMNS) <= set(rows.fieldnames or ()):
        raise ValueError(
            f"{table} must have the columns path and label, separated by a comma; its "
            f"first line is {text.partition(chr(10))[0][:80]!r}"
        )
    labels: dict[Path, int] = {}
    for row in rows:
        label = LABELS.get((row["label"] or "").strip().lower())
        file = table.parent.absolute() / row["path"]
        where = f"{table}, line {rows.line_num}: "
        if label is None:
            raise ValueError(
                f"{where}a label must be good or bad; got {row['label']!r} for {file}"
            )
        if labels.setdefault(file, label) != label:
            raise ValueError(f"{where}{file} is good in one row and bad in another")
    if not labels:
        raise ValueError(f"{table} has no rows: add one for each image, path and label")
    return labels
