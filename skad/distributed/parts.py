"""The results: a Parquet data set, one part for each chunk of files."""

import os
from collections.abc import Iterable, Sequence
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet

from skad.common.files import write_atomically
from skad.inspection.score_files import COLUMNS, Row

_FLOATS, _TEXTS = ("score", "decision", "p_value"), ("path", "verdict", "heat_map")
Identity = dict[str, str]  # of the model and its threshold, in each part's metadata


def name_of(paths: Iterable[Path]) -> str:
    """Return the name of the part of some files: the same files, the same name."""
    return f"part-{sha256(os.fsencode(chr(0).join(map(str, paths)))).hexdigest()[:32]}"


def as_text(path: str | Path) -> str:
    """Return a path as it stands in the table, which holds Unicode alone."""
    return os.fsencode(path).decode(errors="backslashreplace")


def write_part(file: Path, rows: Sequence[Row], identity: Identity) -> None:
    """Write a part; what a row does not say is null."""
    columns = {name: [row.get(name) for row in rows] for name in COLUMNS}
    columns["path"] = [as_text(row["path"]) for row in rows]
    columns["heat_map"] = [name and as_text(name) for name in columns["heat_map"]]
    table = pyarrow.table(columns, _schema().with_metadata(identity))
    content = BytesIO()
    parquet.write_table(table, content)
    write_atomically(file, content.getvalue())


def read_parts(folder: Path, identity: Identity) -> list[dict[str, Any]]:
    """Return path, verdict and heat map of each row there is.

    Raises a ValueError if a part is damaged, or was made with something else.
    """
    rows: list[dict[str, Any]] = []
    for file in sorted(folder.glob("*.parquet")):
        try:
            with parquet.ParquetFile(file) as part:
                metadata = part.schema_arrow.metadata or {}
                rows += part.read(columns=list(_TEXTS)).to_pylist()
        except (pyarrow.ArrowException, OSError) as error:
            raise ValueError(f"{file} is damaged; remove it: {error}") from error
        theirs = {k.decode(): v.decode() for k, v in metadata.items()}
        if any(theirs.get(name) != value for name, value in identity.items()):
            told = ", ".join(f"{name} {theirs.get(name)}" for name in identity)
            ours = ", ".join(f"{name} {value}" for name, value in identity.items())
            raise ValueError(
                f"{file} was made with another model or threshold ({told}; now "
                f"{ours}); name another output folder, or remove {folder}"
            )
    return rows


def _schema() -> pyarrow.Schema:
    """Return the columns of `scores.csv` with their types."""
    types = dict.fromkeys(COLUMNS, pyarrow.int64())
    types |= dict.fromkeys(_FLOATS, pyarrow.float64())
    types |= dict.fromkeys(_TEXTS, pyarrow.string())
    return pyarrow.schema(list(types.items()))
