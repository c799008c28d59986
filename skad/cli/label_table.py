"""Labels of image files, from a table in a CSV file."""

import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

_LABELS = {
    **dict.fromkeys(("1", "+1", "1.0", "good"), 1),
    **dict.fromkeys(("-1", "-1.0", "anomalous"), -1),
}


def read_labels(table: Path, folder: Path, files: Sequence[Path]) -> dict[Path, int]:
    """Read the labels of image files.

    Parameters
    ----------
    table : pathlib.Path
        A CSV file with a column ``path`` or ``name``, and a column ``label``: +1 or
        good, -1 or anomalous. Paths are absolute, or start at `folder`, at the folder
        of the table or at the working directory; a name is that of one file alone.
    folder : pathlib.Path
        Where the images are.
    files : sequence of pathlib.Path
        The images.

    Returns
    -------
    labels : dict of int by pathlib.Path
        1 or -1 of each image that the table names, in the order of `files`.

    Raises
    ------
    FileNotFoundError
        If there is no such table.
    ValueError
        If it is no such table, a label is none of these, a row names none of the
        images, or several, or an image has two labels.
    """
    places = _places(files)
    found: dict[int, int] = {}
    for line, name, text in _rows(table):
        where = f"{table}, line {line}"
        label = _LABELS.get(text.strip().lower())
        if label is None:
            raise ValueError(
                f"{where}: a label must be +1 or good, -1 or anomalous; got {text!r}"
            )
        i = _find(name, [folder, table.parent, Path()], places, where)
        if found.setdefault(i, label) != label:
            raise ValueError(f"{where}: {name} has another label above; keep one")
    return {files[i]: found[i] for i in sorted(found)}


def _places(files: Sequence[Path]) -> dict[str, list[int]]:
    """Return the places of files, by their real paths and by their names."""
    found: dict[str, list[int]] = {}
    for i, file in enumerate(files):
        for key in (os.path.realpath(file), file.name):
            found.setdefault(key, []).append(i)
    return found


def _find(
    name: str, folders: Sequence[Path], places: dict[str, list[int]], where: str
) -> int:
    """Return the place of the file that is meant."""
    paths = [os.path.realpath(folder / name) for folder in folders]
    for key in (*paths, name):
        found = places.get(key, [])
        if len(found) > 1:
            raise ValueError(f"{where}: {len(found)} images have the name {name!r}")
        if found:
            return found[0]
    raise ValueError(f"{where}: there is no image {name!r} in {folders[0]}")


def _rows(table: Path) -> Iterator[tuple[int, str, str]]:
    """Yield the number of each line, and what it names and labels."""
    with table.open(encoding="utf-8-sig", newline="", errors="surrogateescape") as file:
        reader = csv.DictReader(file)
        try:
            columns = {str(c).strip().lower(): c for c in reader.fieldnames or ()}
            named = columns.get("path", columns.get("name"))
            if named is None or "label" not in columns:
                raise ValueError(
                    f"{table} must have a column path or name, and a column label; it "
                    f"has {', '.join(columns) or 'none'}"
                )
            for row in reader:
                name, label = row[named], row[columns["label"]]
                yield reader.line_num, name or "", label or ""
        except csv.Error as error:
            raise ValueError(f"{table} is no CSV file: {error}") from None
