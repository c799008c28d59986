import statistics

from benchmark_figures import FIGURES

from skad.benchmark.table import _COLUMNS, defects_table, table
from skad.metrics import wilson_interval


def result(category, seed, **figures):
    return {**FIGURES, "category": category, "seed": seed, **figures}


def cells(text):
    """Cells of the table's rows, by the name in the first column."""
    rows = [line for line in text.splitlines() if line.startswith("|")]
    split = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    return {name: values for name, *values in split}


def test_a_row_is_mean_and_deviation_over_seeds():
    aurocs = [0.9, 0.8, 0.85]
    rows = cells(table([result("a", i, image_auroc=v) for i, v in enumerate(aurocs)]))
    column = rows["category"].index("image AUROC")
    mean, deviation = statistics.fmean(aurocs), statistics.stdev(aurocs)
    assert rows["a"][column] == f"{mean:.3f} ± {deviation:.3f}"


def test_a_single_seed_has_no_deviation():
    assert cells(table([result("a", 0)]))["a"][0] == "0.750"


def test_categories_count_equally_in_the_mean():
    results = [result("a", 0, au_pro=0.4), result("a", 1, au_pro=0.6)]
    results += [result("b", 0, au_pro=0.9)]
    rows = cells(table(results))
    column = rows["category"].index("AU-PRO")
    assert rows["**mean**"][column] == "0.700"


def test_the_pooled_false_alarms_stand_beside_the_promise():
    results = [
        result("a", 0, false_alarms=1, n_good=20),
        result("a", 1, false_alarms=3, n_good=20),
        result("b", 0, false_alarms=0, n_good=60, promised_fpr=0.1),
    ]
    rows = cells(table(results))
    low, high = wilson_interval(4, 100)
    column = rows["category"].index("false alarms")
    assert rows["**pooled**"][column] == f"0.040 [{low:.3f}, {high:.3f}]"
    assert rows["category"][column - 1] == "promised"
    assert rows["a"][column - 1] == "0.050"
    assert rows["**pooled**"][column - 1] == "0.080"  # (40 * 0.05 + 60 * 0.1) / 100


def test_each_kind_of_defect_has_a_row():
    figures = {
        "n_defective": 9,
        "pixel_auroc": 0.5,
        "detection_rate": 1,
        "au_pro": None,
    }
    dent, cut = ({"image_auroc": value, **figures} for value in (0.6, 0.8))
    runs = [
        result("a", 0, defects={"dent": dent}),
        result("b", 0, defects={"dent": cut}),
    ]
    runs += [result("a", 1, defects={"dent": cut, "cut": cut})]
    failed = {"category": "b", "seed": 0, "error": "ValueError: no", "notes": []}
    rows = [
        line for line in defects_table([*runs, failed]).splitlines() if "0.5" in line
    ]
    assert rows == [
        "| a | cut | 9 | 0.800 | 0.500 | - | 1.000 |",
        "| a | dent | 9 | 0.700 ± 0.141 | 0.500 ± 0.000 | - | 1.000 ± 0.000 |",
        "| b | dent | 9 | 0.800 | 0.500 | - | 1.000 |",
    ]


def test_unknown_figures_and_failed_runs_leave_gaps():
    failed = {"category": "b", "seed": 0, "error": "ValueError: no", "notes": []}
    rows = cells(table([result("a", 0, au_pro=None), failed]))
    column = rows["category"].index("AU-PRO")
    assert rows["a"][column] == rows["**mean**"][column] == "-"
    assert "b" not in rows
    assert table([failed]) == "No run has ended.\n"


def test_the_rows_of_the_table_are_equally_long():
    lengths = {len(row) for row in cells(table([result("a", 0)])).values()}
    assert lengths == {len(_COLUMNS)}
