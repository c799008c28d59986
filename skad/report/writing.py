"""`write_report`: a report about images as one HTML file."""

import os
import shlex
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

from skad import __version__
from skad.common.files import make_room_for, write_atomically
from skad.images.decoding import PathLike
from skad.report.collecting import Report, collect
from skad.report.model_card import model_card
from skad.report.reading import as_source, paths_of
from skad.report.rendering import import_jinja2, printable, render

_OF_SCRIPT = (
    *("name", "path", "map", "score", "p_value", "label", "to_mark", "notes"),
    "nearest",
)


def write_report(
    detector: Any,
    images: Any,
    path: PathLike,
    y: Any = None,
    *,
    model: PathLike | None = None,
    max_pictures: int = 1000,
    n_to_mark: int = 50,
    n_to_explain: int = 20,
    good: Any = None,
    random_state: int | None = 0,
    verbose: int = 0,
) -> Counter[str]:
    """Write a report about images: one HTML file that needs no network.

    It shows a histogram of the anomaly scores with a threshold to move, pictures with
    heat maps, the anomalous regions and what the model is.

    Parameters
    ----------
    detector : PatchAutoencoderDetector or DenseAutoencoderDetector
        Fitted, with a threshold.
    images : array-like, ImageFolder, path or list of paths
        Images as `inspect` takes them; or image files or a folder of them, which are
        read as the training images were. Files that cannot be read are listed in the
        report.
    path : str or os.PathLike
        The HTML file; an existing one is replaced.
    y : array-like of shape (n,), default=None
        Labels: +1 good, -1 anomalous, 0 unknown. With them, the report gives the
        detection rate and the false-alarm rate.
    model : str or os.PathLike, default=None
        The file of the detector, to be named in the report.
    max_pictures : int, default=1000
        Most pictures to keep; 200 take about 4 MB. All images count in the figures.
    n_to_mark : int, default=50
        Size of a random sample of all images, to be marked as good or bad by a person.
        At most `max_pictures`.
    n_to_explain : int, default=20
        Number of anomalous images to explain, the worst first, as `skad.explain` does.
        Each takes about three times as long as its score.
    good : array-like, ImageFolder or path, default=None
        Good images, to show the nearest one beside each that is explained.
    random_state : int or None, default=0
        Seed of the random samples.
    verbose : int, default=0
        1 shows a progress bar.

    Returns
    -------
    counts : collections.Counter
        Numbers of images that are "good", "anomalous" and "unreadable".

    Raises
    ------
    ImportError
        If Jinja2 is missing: ``pip install "skad[report]"``.
    ValueError
        If there is no image, or none can be read; if `y` has other labels or another
        length; if `path` is one of the images.
    sklearn.exceptions.NotFittedError
        If the detector is not fitted, or has no threshold.
    OSError
        If the file cannot be written.
    """
    import_jinja2()
    source, output = as_source(images), make_room_for(path)
    if os.path.realpath(output) in map(os.path.realpath, paths_of(source)):
        raise ValueError(f"path must not be one of the images; got {output}.")
    report = collect(
        detector,
        source,
        y,
        max_pictures=max_pictures,
        n_to_mark=n_to_mark,
        n_to_explain=n_to_explain,
        good=good,
        random_state=random_state,
        verbose=verbose,
    )
    file = None if model is None else Path(model)
    report["card"] = model_card(detector, file)
    write_atomically(output, render_report(report, file))
    return Counter(
        good=len(report["scored"]) - report["n_anomalous"],
        anomalous=report["n_anomalous"],
        unreadable=len(report["unreadable"]),
    )


def render_report(report: Report, model: Path | None = None) -> str:
    """Return the page of what was collected."""
    command = shlex.quote("MODEL" if model is None else os.fspath(model))
    names = ("threshold", "promise", "holds", "calibration", "scored")
    data = {name: report[name] for name in names}
    data["command"] = printable(f"skad score {command} IMAGES")
    data["images"] = [
        {name: image[name] for name in _OF_SCRIPT} for image in report["images"]
    ]
    return render(
        "report.html",
        styles=["page.css", "report.css"],
        scripts=["heat.js", "report.js"],
        title="Report" if model is None else f"Report: {printable(model.name)}",
        version=__version__,
        created=f"{datetime.now().astimezone():%d %B %Y, %H:%M}",
        report=report,
        data=data,
    )
