"""Which image files to leave out, as a person has listed them."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from skad.images.decoding import PathLike
from skad.images.file_table import read_file_table

_COLUMN = "path"
_LISTED = 5  # paths that one message spells out


def leave_out(
    paths: Sequence[Path], exclude: PathLike | Iterable[PathLike] | None
) -> list[Path]:
    """Return the paths without those that `exclude` names.

    `exclude` holds paths, or is that of a CSV file with a column "path". Relative paths
    start at the working directory, as those of `paths` do. Raises a ValueError if one
    is not among `paths`, or if none is left.
    """
    if exclude is None:
        return list(paths)
    is_file = isinstance(exclude, str | os.PathLike)
    listed = _read_list(exclude) if is_file else list(exclude)  # type: ignore
    where = f" (listed in {exclude})" if is_file else ""
    known = {_full(path) for path in paths}
    unknown = [str(path) for path in listed if _full(path) not in known]
    if unknown:
        more = ", ..." * (len(unknown) > _LISTED)
        raise ValueError(
            f"exclude must name files among the images; {len(unknown)} of "
            f"{len(listed)} are not{where}: {', '.join(unknown[:_LISTED])}{more}. "
            f"Relative paths start at the working directory, {os.getcwd()}."
        )
    left_out = {_full(path) for path in listed}
    kept = [path for path in paths if _full(path) not in left_out]
    if not kept:
        raise ValueError(
            f"exclude names all {len(paths)} images{where}: keep some to learn from."
        )
    return kept


def _full(path: PathLike) -> str:
    """Return an absolute path; a link stays a file of its own."""
    path = os.path.abspath(os.path.expanduser(path))
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


def _read_list(file: PathLike) -> list[str]:
    """Return the column "path" of a CSV file."""
    rows, first_line = read_file_table(file, [_COLUMN])
    if rows is None:
        raise ValueError(
            f'exclude must be a CSV file with a column "{_COLUMN}"; {file} begins with '
            f"{first_line[:80]!r}. Write path as its first line."
        )
    return [path for row in rows for path in row.values if path]
