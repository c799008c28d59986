"""The results of a benchmark as a Markdown table."""

import statistics
from collections.abc import Sequence
from typing import Any

from skad.metrics.intervals import wilson_interval

Result = dict[str, Any]  # of one run, from `_benchmark.run`

_Columns = dict[str, tuple[str, str]]  # titles and formats of figures

_COLUMNS: _Columns = {
    "image_auroc": ("image AUROC", ".3f"),
    "pixel_auroc": ("pixel AUROC", ".3f"),
    "au_pro": ("AU-PRO", ".3f"),
    "promised_fpr": ("promised", ".3f"),
    "false_alarm_rate": ("false alarms", ".3f"),
    "detection_rate": ("detected", ".3f"),
    "training_seconds": ("training, s", ".0f"),
    "images_per_second": ("images/s", ".0f"),
    "peak_memory_mb": ("peak MB", ".0f"),
}
_COLUMNS_OF_DEFECTS: _Columns = {
    "n_defective": ("images", ".0f"),
    "image_auroc": ("image AUROC", ".3f"),
    "pixel_auroc": ("pixel AUROC", ".3f"),
    "au_pro": ("AU-PRO", ".3f"),
    "detection_rate": ("detected", ".3f"),
}
_THE_SAME_WITH_EVERY_SEED = {"promised_fpr", "n_defective"}


def table(results: Sequence[Result]) -> str:
    """Lay results out in a Markdown table.

    Parameters
    ----------
    results : sequence of dict
        What `run` returns; failed runs are left out.

    Returns
    -------
    text : str
        A row for each category (mean ± standard deviation over its seeds), one of
        the means over categories, and one of the pooled rates at the threshold.
    """
    done = [result for result in results if "error" not in result]
    if not done:
        return "No run has ended.\n"
    names = list(dict.fromkeys(result["category"] for result in done))
    groups = {name: [r for r in done if r["category"] == name] for name in names}
    lines = [
        *_head("category", _COLUMNS),
        *(_row(name, _cells_of_runs(group)) for name, group in groups.items()),
        _row("**mean**", _cells_of_means(list(groups.values()))),
        _row("**pooled**", _cells_pooled(done)),
        "",
        _legend(done),
    ]
    return "\n".join(lines) + "\n"


def defects_table(results: Sequence[Result]) -> str:
    """Lay out, as `table` does, how each kind of defect is found.

    Parameters
    ----------
    results : sequence of dict
        What `run` returns; failed runs are left out.

    Returns
    -------
    text : str
        A row for each kind of each category, mean ± standard deviation over its seeds.
    """
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        for kind, figures in result.get("defects", {}).items():
            groups.setdefault((result["category"], kind), []).append(figures)
    lines = [
        *_head("category | defect", _COLUMNS_OF_DEFECTS),
        *(
            _row(f"{category} | {kind}", _cells_of_runs(group, _COLUMNS_OF_DEFECTS))
            for (category, kind), group in sorted(groups.items())
        ),
        "",
        "Each kind of defect against all good test images.",
    ]
    return "\n".join(lines) + "\n"


def _head(names: str, columns: _Columns) -> list[str]:
    titles = [title for title, _ in columns.values()]
    left = "|---" * len(names.split("|"))
    return [_row(names, titles), left + "|" + "---:|" * len(titles)]


def _row(name: str, cells: Sequence[str]) -> str:
    return f"| {name} | " + " | ".join(cells) + " |"


def _known(group: Sequence[Result], key: str) -> list[float]:
    return [result[key] for result in group if result[key] is not None]


def _cells_of_runs(group: Sequence[Result], columns: _Columns = _COLUMNS) -> list[str]:
    cells = []
    for key, (_, form) in columns.items():
        values = _known(group, key)
        cell = f"{statistics.fmean(values):{form}}" if values else "-"
        if len(values) > 1 and key not in _THE_SAME_WITH_EVERY_SEED:
            cell += f" ± {statistics.stdev(values):{form}}"
        cells.append(cell)
    return cells


def _cells_of_means(groups: Sequence[Sequence[Result]]) -> list[str]:
    cells = []
    for key, (_, form) in _COLUMNS.items():
        means = [statistics.fmean(_known(g, key)) for g in groups if _known(g, key)]
        cells.append(f"{statistics.fmean(means):{form}}" if means else "-")
    return cells


def _cells_pooled(done: Sequence[Result]) -> list[str]:
    cells = dict.fromkeys(_COLUMNS, "")
    counts = {
        "false_alarm_rate": ("false_alarms", "n_good"),
        "detection_rate": ("detections", "n_defective"),
    }
    for key, (flagged, among) in counts.items():
        successes, n = (sum(r[k] for r in done) for k in (flagged, among))
        if n:
            low, high = wilson_interval(successes, n)
            cells[key] = f"{successes / n:.3f} [{low:.3f}, {high:.3f}]"
    n_good = sum(r["n_good"] for r in done)
    if n_good and all(r["promised_fpr"] for r in done):
        expected = sum(r["promised_fpr"] * r["n_good"] for r in done)
        cells["promised_fpr"] = f"{expected / n_good:.3f}"
    return list(cells.values())


def _legend(done: Sequence[Result]) -> str:
    seeds = ", ".join(str(seed) for seed in sorted({r["seed"] for r in done}))
    n_good, n_defective = (
        sum(r[key] for r in done) for key in ("n_good", "n_defective")
    )
    targets = ", ".join(f"{rate:g}" for rate in sorted({r["target_fpr"] for r in done}))
    return (
        f"Mean ± standard deviation over the seeds {seeds}. False alarms are promised "
        f"to be at most target_fpr = {targets}, or more where calibration images are "
        f"too few for that. Pooled: the {n_good} good and {n_defective} "
        f"defective test images of all {len(done)} runs, with 95 % Wilson intervals; "
        "an image counts once for each seed, so these intervals are somewhat too "
        "narrow."
    )
