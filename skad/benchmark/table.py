"""The results of a benchmark as a Markdown table, made by pandas."""

from collections.abc import Iterable
from typing import Any

from skad.benchmark.evaluation import rate_in_words

Result = dict[str, Any]  # of one run, from `runs.run`

_TITLES = {
    "image_auroc": "image AUROC",
    "pixel_auroc": "pixel AUROC",
    "au_pro": "AU-PRO",
    "promised_fpr": "promised",
    "false_alarm_rate": "false alarms",
    "detection_rate": "detected",
    "training_seconds": "training, s",
    "images_per_second": "images/s",
    "peak_memory_mb": "peak MB",
}
_DECIMALS = dict.fromkeys(list(_TITLES)[:6], 3)  # of the others, none
_LEGEND = """
Mean ± standard deviation over seeds. All runs together: false alarms {alarms},
where {promised:.1f} % were promised; detected {detected}.
An image counts once for each seed, so that these intervals are somewhat too narrow. The
promise is target_fpr, or more where calibration images are too few for it.
"""


def import_pandas() -> Any:
    """Import pandas, or say how to install what the tables need."""
    try:
        import pandas
        import tabulate  # noqa: F401 (used by pandas)
    except ImportError as error:
        raise ImportError(
            "The table of a benchmark needs pandas and tabulate. Install them: "
            "pip install pandas tabulate."
        ) from error
    return pandas


def table(results: Iterable[Result]) -> str:
    """Lay out what `run` returns, but for failed runs.

    A row for each category (mean ± standard deviation over its seeds), one of the
    means over categories, and below the rates at the threshold in all runs together.
    """
    runs = import_pandas().DataFrame([r for r in results if "error" not in r])
    if runs.empty:
        return "No run has ended.\n"
    figures = runs[["category"]].join(runs[list(_TITLES)].astype(float))
    groups = figures.groupby("category", sort=False)
    cells = groups.agg(_cell)
    cells.loc["**mean**"] = groups.mean().mean().to_frame().T.agg(_cell)
    text = cells.rename(columns=_TITLES).to_markdown(
        disable_numparse=True, colalign=["left"] + ["right"] * len(_TITLES)
    )
    runs["promised"] = runs["promised_fpr"] * runs["n_good"]
    counts = ["promised", "false_alarms", "n_good", "detections", "n_defective"]
    promised, alarms, n_good, detections, n_defective = runs[counts].sum()
    legend = _LEGEND.format(
        alarms=rate_in_words(int(alarms), int(n_good)),
        promised=100 * promised / max(n_good, 1),
        detected=rate_in_words(int(detections), int(n_defective)),
    )
    return f"{text}\n{legend}"


def _cell(values: Any) -> str:
    """Return mean ± standard deviation of a column; nothing that is undefined or 0."""
    mean, deviation = values.mean(), values.std()
    decimals = _DECIMALS.get(values.name, 0)
    text = f"{mean:.{decimals}f}" if mean == mean else "-"
    return (
        f"{text} ± {deviation:.{decimals}f}" if round(deviation, decimals) > 0 else text
    )
