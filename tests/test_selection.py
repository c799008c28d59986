"""Selection by the false discovery rate, in Python and by `skad score`."""

import csv
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import skad
from skad import Monitor
from skad.cli import command_score
from skad.cli.main import main
from skad.inspection.score_files import COLUMNS
from skad.inspection.verdict import judge
from skad.threshold.conformal import conformal_p_value


def slow_selection(counts, m, percent):
    """The procedure by its definition, for p-values of (1 + count) / (m + 1)."""
    n, most = len(counts), 0
    p = [Fraction(1 + int(count), m + 1) for count in counts]
    for k in range(1, n + 1):
        if sum(one <= Fraction(percent * k, 100 * n) for one in p) >= k:
            most = k
    limit = Fraction(percent * most, 100 * n)
    return [most > 0 and one <= limit for one in p]


@pytest.mark.parametrize("percent", [5, 10, 30])
@pytest.mark.parametrize("m", [9, 19, 99])
def test_the_selection_is_that_of_its_definition(m, percent):
    rng = np.random.default_rng(m)
    for n in (1, 2, 5, 10, 20):
        for _ in range(20):
            counts = rng.integers(0, m + 1, n) * (rng.random(n) < 0.5)
            selected = skad.select((1 + counts) / (m + 1), percent / 100)
            assert selected.dtype == bool
            assert selected.tolist() == slow_selection(counts, m, percent)


def test_few_of_the_selected_are_good_on_average():
    rng, wrong = np.random.default_rng(0), []
    for _ in range(300):
        calibration = rng.normal(size=60)
        scores = rng.normal(size=40) - 3 * (np.arange(40) < 10)
        selected = skad.select(conformal_p_value(scores, calibration), 0.2)
        wrong.append(selected[10:].sum() / max(selected.sum(), 1))
    error = np.std(wrong) / np.sqrt(len(wrong))
    assert 0.02 < np.mean(wrong) < 0.2 * 30 / 40 + 4 * error


def test_too_few_calibration_images_are_told_with_the_figure():
    p = np.ones(100)
    p[:3] = 1 / 31
    words = "at least 0.0323, and fdr=0.1 can select no fewer than 33 of 100 images"
    with pytest.warns(UserWarning, match=f"{words}.*calibrate with 999 images"):
        assert not skad.select(p, 0.1, n_calibration=30).any()
    with pytest.warns(UserWarning, match="can select nothing"):
        skad.select(p, 0.01, n_calibration=30)
    p[:33] = 1 / 31  # as many as the warning says
    assert skad.select(p, 0.1, n_calibration=30).sum() == 33
    p[:32], p[32:] = 1 / 31, 1
    assert not skad.select(p, 0.1).any()
    assert not skad.select([1.0], 0.1, n_calibration=9).any()  # could have been


@pytest.mark.parametrize("wrong", [0, -0.1, 1.01, np.nan, np.inf])
def test_wrong_p_values_and_rates_are_refused(wrong):
    with pytest.raises(ValueError, match="above 0 and at most 1; number 1 is"):
        skad.select([0.5, wrong], 0.1)
    with pytest.raises(ValueError, match="fdr must be a number between 0 and 1; got"):
        skad.select([0.5], wrong)
    with pytest.raises(ValueError, match=r"shape \(n,\); got shape \(1, 1\)"):
        skad.select([[0.5]], 0.1)
    assert skad.select([], 0.1).tolist() == []


# --- skad score -------------------------------------------------------------------


class Darkness:
    """Fitted detector whose map is the darkness of a pixel."""

    offset_, pixel_threshold_, promised_fpr_ = -0.5, 0.5, 0.05
    calibration_scores_ = -np.linspace(0.1, 0.5, 39)
    image_shape_in_ = (8, 10)
    is_cross_fitted_ = False

    def inspect(self, X):
        maps = (1 - X / 255).astype(np.float32)
        return [judge(one, self.offset_, self.calibration_scores_) for one in maps]


@pytest.fixture
def score(tmp_path, monkeypatch):
    """Call `skad score` with a stand-in detector, and return the rows of its table."""

    def run(*options, detector=None, code=0):
        detector = detector or Darkness()
        monkeypatch.setattr(command_score, "load_with_threshold", lambda *_: detector)
        call = ["score", "m", str(tmp_path / "in"), "--no-heat-maps", *options]
        assert main([*call, "--output", str(tmp_path / "out")]) == code
        with (tmp_path / "out/scores.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    return run


def write(folder, levels, first=0):
    folder.mkdir(exist_ok=True)
    for i, level in enumerate(levels, first):
        pixels = np.full((8, 10), level, np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:03}.png")


def test_score_marks_what_is_selected(score, tmp_path, capsys):
    write(tmp_path / "in", [20, 30, 200, 190, 180, 210, 170])
    (tmp_path / "in/999.png").write_bytes(b"no image")
    rows = score("--fdr", "0.1", code=1)
    assert tuple(rows[0]) == (*COLUMNS, "selected")
    marks = [row["selected"] for row in rows]
    assert marks == ["yes"] * 2 + ["no"] * 5 + [""]
    said = "selected       2, of which at most 10 % are good on average\n"
    assert said in capsys.readouterr().out
    assert tuple(score(code=1)[0]) == COLUMNS


@pytest.mark.filterwarnings("default")
def test_a_resumed_run_selects_among_all_rows(score, tmp_path):
    write(tmp_path / "in", [20, 200, 190])
    assert score("--fdr", "0.1")[0]["selected"] == "yes"
    write(tmp_path / "in", [180] * 9, first=3)
    rows = score("--fdr", "0.1", "--resume")
    assert [row["selected"] for row in rows] == ["no"] * 12  # 1 / 40 > 0.1 / 12
    assert "selected" not in score("--resume")[0]


@pytest.mark.filterwarnings("default")
def test_a_wrong_rate_is_refused_before_anything_is_scored(score, tmp_path, capsys):
    write(tmp_path / "in", [200])
    score()
    before = (tmp_path / "out/scores.csv").stat().st_mtime_ns
    score("--fdr", "1.5", code=2)
    assert (tmp_path / "out/scores.csv").stat().st_mtime_ns == before
    assert "fdr must be a number between 0 and 1" in capsys.readouterr().err
    Crossed = type("Crossed", (Darkness,), {"is_cross_fitted_": True})
    score("--fdr", "0.1", detector=Crossed())
    assert "fdr=0.1 is no promise" in capsys.readouterr().err


def test_a_monitor_is_told_of_every_image_of_every_run(score, tmp_path, capsys):
    state = str(tmp_path / "new" / "state.json")
    levels = np.random.default_rng(0).integers(130, 225, 40)
    whole = Monitor(Darkness())
    images = np.repeat(levels, 80).reshape(-1, 8, 10).astype(np.uint8)
    whole.update([r.score for r in Darkness().inspect(images)], images)
    write(tmp_path / "in", levels[:25])
    score("--monitor", state)
    assert "monitor        No alarm after 25 images" in capsys.readouterr().out
    write(tmp_path / "in", levels[25:], first=25)
    score("--monitor", state, "--resume")
    assert Monitor.load(state, Darkness()).status() == whole.status()
    dark = type("Dark", (Darkness,), {})()
    write(tmp_path / "in", [20] * 15, first=40)
    score("--monitor", state, "--resume", detector=dark)
    assert "monitor        ALARM at image 4" in capsys.readouterr().out


def test_a_stopped_run_keeps_what_the_monitor_saw(score, tmp_path):
    class Stops(Darkness):
        def inspect(self, X):
            if (X < 10).any():
                raise KeyboardInterrupt
            return super().inspect(X)

    write(tmp_path / "in", [200] * 16 + [0])
    state = tmp_path / "state.json"
    score("--monitor", str(state), detector=Stops(), code=130)
    assert Monitor.load(state, Darkness()).n_images == 16
    score("--monitor", str(state), "--resume")
    assert Monitor.load(state, Darkness()).n_images == 17


def test_a_baseline_is_for_a_new_monitor(score, tmp_path, capsys):
    write(tmp_path / "in", [200] * 3)
    state = str(tmp_path / "state.json")
    score()
    score("--baseline", "2", code=2)
    assert "baseline needs monitor" in capsys.readouterr().err
    score("--monitor", state, "--baseline", "2")
    score("--monitor", state, "--baseline", "3", code=2)
    assert "baseline must be 2 or left out" in capsys.readouterr().err
    assert Monitor.load(state, SimpleNamespace(**vars(Darkness))).baseline == 2
