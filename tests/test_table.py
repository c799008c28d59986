import statistics

from benchmark_figures import FIGURES

from skad.benchmark.table import defects_table, table
from skad.metrics import wilson_interval

FAILED = {"category": "c", "seed": 0, "error": "ValueError: no", "notes": []}


def result(category, seed, **figures):
    return {**FIGURES, "category": category, "seed": seed, **figures}


def cells(text):
    """Cells of the table by row and column, and all its rows."""
    rows = [line for line in text.splitlines() if line.startswith("|")]
    titles, _, *rows = [[c.strip() for c in row.strip("|").split("|")] for row in rows]
    assert {len(row) for row in rows} == {len(titles)}
    return {row[0]: dict(zip(titles, row, strict=True)) for row in rows}


def test_a_row_is_mean_and_deviation_over_seeds():
    aurocs = [0.9, 0.8, 0.85]
    results = [result("a", i, image_auroc=v) for i, v in enumerate(aurocs)]
    rows = cells(table([*results, result("b", 0, au_pro=None), FAILED]))
    mean, deviation = statistics.fmean(aurocs), statistics.stdev(aurocs)
    assert rows["a"]["image AUROC"] == f"{mean:.3f} ± {deviation:.3f}"
    assert rows["a"]["promised"] == "0.050"
    assert rows["b"]["image AUROC"] == "0.750"
    assert rows["b"]["AU-PRO"] == "-"
    assert rows.keys() == {"a", "b", "**mean**", "**pooled**"}
    assert table([FAILED]) == "No run has ended.\n"


def test_categories_count_equally_in_the_mean():
    results = [result("a", 0, au_pro=0.4), result("a", 1, au_pro=0.6)]
    rows = cells(table([*results, result("b", 0, au_pro=0.9)]))
    assert rows["**mean**"]["AU-PRO"] == "0.700"


def test_the_pooled_false_alarms_stand_beside_the_promise():
    results = [
        result("a", 0, false_alarms=1, n_good=20),
        result("a", 1, false_alarms=3, n_good=20),
        result("b", 0, false_alarms=0, n_good=60, promised_fpr=0.1),
    ]
    pooled = cells(table(results))["**pooled**"]
    low, high = wilson_interval(4, 100)
    assert pooled["false alarms"] == f"0.040 [{low:.3f}, {high:.3f}]"
    assert pooled["promised"] == "0.080"  # (40 * 0.05 + 60 * 0.1) / 100


def test_each_kind_of_defect_has_a_row():
    figures = {"n_defective": 9, "pixel_auroc": 0.5, "detection_rate": 1}
    dent, cut = (
        {"image_auroc": value, "au_pro": None, **figures} for value in (0.6, 0.8)
    )
    runs = [
        result("b", 0, defects={"dent": cut}),
        result("a", 0, defects={"dent": dent}),
        result("a", 1, defects={"dent": cut, "cut": cut}),
        FAILED,
    ]
    assert defects_table(runs).splitlines()[2:5] == [
        "| a | cut | 9 | 0.800 | 0.500 | - | 1.000 |",
        "| a | dent | 9 | 0.700 ± 0.141 | 0.500 ± 0.000 | - | 1.000 ± 0.000 |",
        "| b | dent | 9 | 0.800 | 0.500 | - | 1.000 |",
    ]
