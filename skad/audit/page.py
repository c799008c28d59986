"""`write_audit`: what an audit found as one HTML page and a CSV table beside it."""

import csv
import io
import os
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from skad import __version__
from skad.audit.audit import AuditedImage
from skad.common.files import make_room_for, write_atomically
from skad.images.decoding import PathLike
from skad.images.resizing import Size
from skad.inspection.regions import Box, scaled_box
from skad.overlays import read_picture
from skad.report.pictures import thumbnail, thumbnail_size
from skad.report.rendering import render

_MOST_PICTURES = 200  # about 5 MB
_MOST_ROWS = 1000  # of the page's table
_COLUMNS = (
    *("path", "score", "z", "suspicious", "remarks", "height", "width"),
    *("row_min", "col_min", "row_max", "col_max"),  # half-open, as a region's bbox
    *("brightness", "sharpness"),
)


def write_audit(audited: Sequence[AuditedImage], path: PathLike) -> Path:
    """Write a page on which a person chooses what to leave out, and a table beside it.

    Parameters
    ----------
    audited : list of AuditedImage
        What `audit_images` returned for files.
    path : path
        The HTML file, which needs no network. It shows the 200 most suspicious images,
        and exports the paths that a person has ticked as ``exclude.csv``. The table,
        with a row for every image, has the suffix ".csv". Existing files are replaced.

    Returns
    -------
    pathlib.Path
        The table.

    Raises
    ------
    FileNotFoundError
        If an image is gone, or `audited` comes from an array.
    ImportError
        If Jinja2 is not installed (``pip install "skad[report]"``).
    OSError
        If a file cannot be written.
    ValueError
        If the path has the suffix ".csv", which is the table's.
    """
    page = make_room_for(path)
    table = make_room_for(page.with_suffix(".csv"))
    if page == table:
        raise ValueError(f"path is for the page, as audit.html; got {path}.")
    write_atomically(table, _as_csv(audited))
    write_atomically(page, _render(audited))
    return table


def _render(audited: Sequence[AuditedImage]) -> str:
    paths = [one.path for one in audited]
    cards = [
        _card(one.path, one.size, one.box) | {"place": i, "image": one}
        for i, one in enumerate(audited[:_MOST_PICTURES])
        if one.size and one.box
    ]
    base = ""
    with suppress(ValueError):  # of absolute and relative paths
        base = os.path.join(os.path.commonpath([*map(os.path.dirname, paths)]), "")
    rows = [
        {"place": i, "path": one.path, "text": "; ".join(one.remarks)}
        for i, one in enumerate(audited)
        if one.remarks
    ]
    return render(
        "audit.html",
        styles=["page.css", "audit.css"],
        scripts=["audit.js"],
        folder=Path(__file__).with_name("templates"),
        title="Audit of good images",
        version=__version__,
        created=f"{datetime.now().astimezone():%d %B %Y, %H:%M}",
        audited=audited,
        cards=cards,
        rows=rows[:_MOST_ROWS],
        n_rows=len(rows),
        paths=paths,
        base=base,
    )


def _card(path: str, size: Size, box: Box) -> dict[str, Any]:
    """Return what the gallery shows of an image that was scored."""
    height, width = small = thumbnail_size(size)
    return {
        "thumbnail": thumbnail(read_picture(path, small)),
        "height": height,
        "width": width,
        "box": scaled_box(box, size, small),
    }


def _as_csv(audited: Sequence[AuditedImage]) -> bytes:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_COLUMNS)
    for one in audited:
        numbers = [*(one.size or [""] * 2), *(one.box or [""] * 4)]
        measured = [one.brightness, one.sharpness]
        said = ["yes" if one.is_suspicious else "no", "; ".join(one.remarks)]
        table.writerow([one.path, one.score, one.z, *said, *numbers, *measured])
    return text.getvalue().encode(errors="surrogateescape")  # any file name there is
