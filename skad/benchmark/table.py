"""The results of a benchmark as Markdown tables."""

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from skad.metrics.intervals import wilson_interval

Result = dict[str, Any]  # of one run, from `runs.run`

_COLUMNS = {  # title and format of each figure
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
_COLUMNS_OF_DEFECTS = {"n_defective": ("images", ".0f")} | {
    key: _COLUMNS[key]
    for key in ("image_auroc", "pixel_auroc", "au_pro", "detection_rate")
}
_EQUAL_FOR_ALL_SEEDS = {"promised_fpr", "n_defective"}


def table(results: Sequence[Result]) -> str:
    """Lay out what `run` returns, but for failed runs.

    A row for each category (mean ± standard deviation over its seeds), one of the
    means over categories, and one of the pooled rates at the threshold.
    """
    done = [result for result in results if "error" not in result]
    if not done:
        return "No run has ended.\n"
    groups: dict[str, list[Result]] = {}
    for result in done:
        groups.setdefault(result["category"], []).append(result)
    means = [
        {key: _mean(_known(group, key)) for key in _COLUMNS}
        for group in groups.values()
    ]
    rows = [[name, *_cells(group, _COLUMNS)] for name, group in groups.items()]
    rows.append(["**mean**", *_cells(means, _COLUMNS, deviation=False)])
    rows.append(["**pooled**", *_pooled_cells(done)])
    titles = ["category", *(title for title, _ in _COLUMNS.values())]
    return f"{_markdown(titles, rows)}\n{_legend(done)}\n"


def defects_table(results: Sequence[Result]) -> str:
    """Lay out what `run` returns, with a row for each kind of defect."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        for kind, figures in result.get("defects", {}).items():
            groups.setdefault((result["category"], kind), []).append(figures)
    titles = [title for title, _ in _COLUMNS_OF_DEFECTS.values()]
    text = _markdown(
        ["category", "defect", *titles],
        [
            [*names, *_cells(groups[names], _COLUMNS_OF_DEFECTS)]
            for names in sorted(groups)
        ],
        n_names=2,
    )
    return f"{text}\nEach kind of defect against all good test images.\n"


def _markdown(
    titles: Sequence[str], rows: Iterable[Sequence[str]], n_names: int = 1
) -> str:
    """Return a table whose first columns are names, and the others numbers."""
    rule = "|---" * n_names + "|---:" * (len(titles) - n_names) + "|"
    lines = [f"| {' | '.join(row)} |" for row in (titles, *rows)]
    return "\n".join([lines[0], rule, *lines[1:], ""])


def _known(group: Sequence[Result], key: str) -> list[float]:
    return [result[key] for result in group if result[key] is not None]


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _cells(
    group: Sequence[Result],
    columns: dict[str, tuple[str, str]],
    deviation: bool = True,
) -> list[str]:
    """Return mean ± standard deviation of each figure over some runs."""
    cells = []
    for key, (_, form) in columns.items():
        values = _known(group, key)
        cell = f"{statistics.fmean(values):{form}}" if values else "-"
        if deviation and len(values) > 1 and key not in _EQUAL_FOR_ALL_SEEDS:
            cell += f" ± {statistics.stdev(values):{form}}"
        cells.append(cell)
    return cells


def _pooled_cells(done: Sequence[Result]) -> list[str]:
    """Return rates over all images of all runs, and the mean promise for them."""
    cells = dict.fromkeys(_COLUMNS, "")
    for key, flagged, among in (
        ("false_alarm_rate", "false_alarms", "n_good"),
        ("detection_rate", "detections", "n_defective"),
    ):
        successes, n = (sum(r[k] for r in done) for k in (flagged, among))
        if n:
            low, high = wilson_interval(successes, n)
            cells[key] = f"{successes / n:.3f} [{low:.3f}, {high:.3f}]"
    n_good = sum(r["n_good"] for r in done)
    if n_good:
        expected = sum(r["promised_fpr"] * r["n_good"] for r in done)
        cells["promised_fpr"] = f"{expected / n_good:.3f}"
    return list(cells.values())


def _legend(done: Sequence[Result]) -> str:
    seeds = ", ".join(str(seed) for seed in sorted({r["seed"] for r in done}))
    targets = ", ".join(f"{rate:g}" for rate in sorted({r["target_fpr"] for r in done}))
    n_good, n_defective = (sum(r[k] for r in done) for k in ("n_good", "n_defective"))
    return (
        f"Mean ± standard deviation over the seeds {seeds}. False alarms are promised "
        f"to be at most target_fpr = {targets}, or more where calibration images are "
        f"too few for that. Pooled: the {n_good} good and {n_defective} defective test "
        f"images of all {len(done)} runs, with 95 % Wilson intervals; an image counts "
        "once for each seed, so these intervals are somewhat too narrow."
    )
