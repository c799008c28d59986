"""Tables that list image files: CSV with a header, as people and programs write it."""

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from skad.images.decoding import PathLike


class Row(NamedTuple):
    """What a row says of the columns that were asked for; "" where it is cut short."""

    line: int  # of the file, from 1 on
    values: list[str]


def read_file_table(
    file: PathLike, columns: Sequence[str]
) -> tuple[list[Row] | None, str]:
    """Return the rows, and the first line; None instead of rows without these columns.

    Raises a ValueError if the file is no CSV file.
    """
    content = Path(os.path.expanduser(file)).read_bytes()
    content = content.removeprefix(b"\xef\xbb\xbf")  # as Excel begins a file
    text = content.decode(errors="surrogateescape")  # any file name there is
    first_line = text.partition("\n")[0].rstrip("\r")
    table = csv.DictReader(io.StringIO(text, newline=""), restval="")
    try:
        if not set(columns) <= set(table.fieldnames or ()):
            return None, first_line
        rows = [Row(table.line_num, [row[name] for name in columns]) for row in table]
    except csv.Error as error:
        raise ValueError(f"{file} is no CSV file: {error}") from error
    return rows, first_line
