import statistics

from benchmark_figures import FIGURES

from skad.benchmark.table import table

FAILED = {"category": "c", "seed": 0, "error": "ValueError: no", "notes": []}


def result(category, seed, **figures):
    return {**FIGURES, "category": category, "seed": seed, **figures}


def rows_of(text):
    """Rows of a table, each a dict of cells by title."""
    rows = [line for line in text.splitlines() if line.startswith("|")]
    titles, _, *rows = [[c.strip() for c in row.strip("|").split("|")] for row in rows]
    return [dict(zip(titles, row, strict=True)) for row in rows]


def test_a_row_is_mean_and_deviation_over_seeds():
    aurocs = [0.9, 0.8, 0.85]
    results = [result("b", i, image_auroc=v) for i, v in enumerate(aurocs)]
    results += [result("a", 0, au_pro=None, image_auroc=0.4), FAILED]
    b, a, mean = rows_of(table(results))
    expected, deviation = statistics.fmean(aurocs), statistics.stdev(aurocs)
    assert b["image AUROC"] == f"{expected:.3f} ± {deviation:.3f}"
    assert b["promised"] == "0.050"
    assert (a["image AUROC"], a["AU-PRO"]) == ("0.400", "-")
    assert mean["image AUROC"] == f"{(expected + 0.4) / 2:.3f}"  # of categories
    assert [row["category"] for row in (b, a)] == ["b", "a"]
    assert table([FAILED]) == "No run has ended.\n"


def test_the_false_alarms_of_all_runs_stand_beside_the_promise():
    results = [
        result("a", 0, false_alarms=1, n_good=20),
        result("a", 1, false_alarms=3, n_good=20),
        result("b", 0, false_alarms=0, n_good=60, promised_fpr=0.1),
    ]
    text = table(results)
    assert "where 8.0 % were promised" in text  # (40 * 0.05 + 60 * 0.1) / 100
    assert "4 of 100 = 4.0 % (95 % interval 1.6 % to 9.8 %)" in text
