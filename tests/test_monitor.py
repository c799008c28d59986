"""The monitor against its definition, its promise, and what it says after a drift."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from scipy.special import beta
from scipy.stats import binomtest

import skad
from skad import Monitor
from skad.monitor.features import image_features
from skad.monitor.martingale import EXPONENTS
from skad.monitor.share import share_interval


def good(m=30, offset=-2.0, seed=0):
    scores = np.random.default_rng(seed).normal(size=m)
    return SimpleNamespace(calibration_scores_=scores, offset_=offset)


def normal(n, seed=1, shift=0.0):
    return np.random.default_rng(seed).normal(size=n) + shift


# --- The martingale ---------------------------------------------------------------


def literal_martingales(calibration, scores, seed):
    """Values after each score: sums over bets, and over when they begin."""
    rng, known, p_values, values = np.random.default_rng(seed), [*calibration], [], []
    for score in scores:
        known.append(score)
        below, equal = (sum(f(s) for s in known) for f in (score.__gt__, score.__eq__))
        p_values.append((below + rng.random() * equal) / len(known))
        n = len(p_values)
        held_back = [1, *(1 / math.sqrt(i + 2) for i in range(n + 1))]
        value = held_back[-1]
        for begin in range(n + 1):
            stake = (held_back[begin] - held_back[begin + 1]) / (2 * len(EXPONENTS))
            for e in EXPONENTS:
                for bet in (lambda p, e=e: p, lambda p, e=e: 1 - p):
                    since = p_values[begin:]
                    value += stake * math.prod(e * bet(p) ** (e - 1) for p in since)
        values.append(value)
    return values


@pytest.mark.parametrize("with_ties", [False, True])
def test_the_martingale_is_that_of_its_definition(with_ties):
    calibration, scores = normal(7), normal(25, seed=2, shift=-0.7)
    if with_ties:
        calibration, scores = calibration.round(), scores.round()
    monitor = Monitor(
        SimpleNamespace(calibration_scores_=calibration, offset_=0), random_state=3
    )
    for score, expected in zip(
        scores, literal_martingales(calibration, scores, seed=3), strict=True
    ):
        monitor.update([score])
        assert monitor.status().martingale == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("with_ties", [False, True])
def test_few_runs_without_drift_raise_an_alarm(with_ties):
    alarms, n_runs, alpha = 0, 200, 0.1
    for seed in range(n_runs):
        scores = normal(9 + 150, seed).round(0 if with_ties else 9)
        some = SimpleNamespace(calibration_scores_=scores[:9], offset_=0)
        alarms += Monitor(some, alpha=alpha, random_state=seed).update(scores[9:])
    assert binomtest(alarms, n_runs, alpha, "greater").pvalue > 1e-4
    assert with_ties or alarms > 0


@pytest.mark.parametrize(("shift", "direction"), [(-2, "lower"), (2, "higher")])
def test_a_drift_is_found_soon_and_dated(shift, direction):
    monitor = Monitor(good())
    assert not monitor.update(normal(1000))
    assert str(monitor.status()).startswith("No alarm after 1000 images: the martin")
    assert monitor.update(normal(25, shift=shift))
    status = monitor.status()
    assert status.alarm_at <= 1025 and abs(status.since - 1000) <= 3
    assert status.direction == direction
    assert status.changes["score"].is_notable
    said = f"ALARM at image {status.alarm_at} of 1025: scores are {direction} since"
    assert str(status).startswith(said)
    assert monitor.update(normal(500)) and monitor.status().since == status.since


def test_a_baseline_accepts_a_steady_share_of_defects():
    scores = normal(600)
    scores[::4] -= 5
    scores = np.random.default_rng(0).permutation(scores)
    assert Monitor(good(100)).update(scores)
    monitor = Monitor(good(100), baseline=100)
    assert not monitor.update(scores[:100])
    assert monitor.status().martingale == pytest.approx(1)
    assert not monitor.update(scores[100:])
    assert monitor.update(normal(40, shift=-5))
    assert monitor.status().since == pytest.approx(600, abs=6)


def test_cross_fitted_scores_need_a_baseline():
    detector = SimpleNamespace(**vars(good()), is_cross_fitted_=True)
    with pytest.warns(UserWarning, match="cross-fitted.*Pass baseline=50"):
        Monitor(detector)
    Monitor(detector, baseline=50)


# --- The share of flagged images --------------------------------------------------


@pytest.mark.parametrize(("k", "n"), [(3, 40), (0, 5), (5, 5), (40, 300)])
def test_the_interval_ends_where_the_mixture_of_likelihoods_says(k, n):
    def mixture(q):
        likelihood = q**k * (1 - q) ** (n - k)
        return beta(k + 0.5, n - k + 0.5) / math.pi / likelihood

    low, high = share_interval(k, n, 0.05)
    assert low == 0 if k == 0 else mixture(low) == pytest.approx(20, rel=1e-6)
    assert high == 1 if k == n else mixture(high) == pytest.approx(20, rel=1e-6)


@pytest.mark.parametrize("q", [0.05, 0.5])
def test_intervals_hold_at_all_times_at_once(q):
    draws = np.random.default_rng(0).random((150, 150)) < q
    missed = 0
    for counts in draws.cumsum(axis=1).tolist():
        ends = [share_interval(k, n, 0.1) for n, k in enumerate(counts, 1)]
        missed += not all(low <= q <= high for low, high in ends)
    assert binomtest(missed, len(draws), 0.1, "greater").pvalue > 1e-4


def test_the_share_is_that_below_the_threshold():
    monitor = Monitor(good(), alpha=0.05)
    assert math.isnan(monitor.status().share_flagged)
    assert monitor.status().flagged_interval == (0, 1)
    monitor.update([-3, -2, 0, 1])
    assert monitor.status().share_flagged == 0.25
    assert "Flagged: 25 % of the images (95 % interval: " in str(monitor.status())


# --- What changed -----------------------------------------------------------------


def photographs(n, gain=1.0, blur=False, seed=0):
    images = np.random.default_rng(seed).integers(60, 200, (n, 16, 20, 3))
    images = images * np.linspace(0.8, 1.2, n)[:, None, None, None] * gain
    if blur:
        images = (images + np.roll(images, 1, 1) + np.roll(images, 1, 2)) / 3
    return images.astype(np.uint8)


BLUE = np.array([1, 1, 0.5])


@pytest.mark.parametrize(
    ("options", "changed", "kept"),
    [
        ({"gain": 0.7}, {"score", "brightness", "contrast"}, {"sharpness"}),
        ({"blur": True}, {"score", "sharpness"}, {"brightness", "share of red"}),
        ({"gain": BLUE}, {"score", "share of blue", "share of red"}, {"brightness"}),
    ],
)
def test_the_status_names_what_changed(options, changed, kept):
    monitor = Monitor(good())
    monitor.update(normal(60), photographs(60))
    monitor.update(normal(20, shift=-3), photographs(20, **options, seed=1))
    found = monitor.status().changes
    notable = {name for name, one in found.items() if one.is_notable}
    assert changed <= notable and not kept & notable
    for name in notable & {"brightness"}:
        assert found[name].since / found[name].before == pytest.approx(0.7, rel=0.05)


def test_features_are_those_of_the_pixels():
    image = np.array([[0, 51], [102, 255]], np.uint8)
    found = image_features(image)
    assert found["brightness"] == pytest.approx(0.4)
    assert found["contrast"] == pytest.approx(np.std([0, 0.2, 0.4, 1]), rel=1e-4)
    assert found["sharpness"] * found["contrast"] == pytest.approx(0.5, rel=1e-4)
    deep = image_features(image.astype(np.uint16) * 257)
    assert deep == pytest.approx(found)
    flat = image_features(np.full((4, 4, 3), [10, 20, 30], np.uint8))
    assert [flat[f"share of {c}"] for c in ("red", "green", "blue")] == pytest.approx(
        [1 / 6, 1 / 3, 1 / 2], rel=1e-4
    )
    assert image_features(np.zeros((4, 4, 3)))["sharpness"] == 0


def test_few_images_before_say_nothing_of_the_change():
    monitor = Monitor(good())
    monitor.update(normal(9), photographs(9))
    monitor.update(normal(20, shift=-4), photographs(20, gain=0.5))
    assert math.isnan(monitor.status().changes["brightness"].n_errors)
    assert "brightness" not in str(monitor.status())


# --- The state --------------------------------------------------------------------


def test_a_restarted_monitor_goes_on_bit_by_bit(tmp_path):
    scores, images = normal(90, shift=-0.5).round(1), photographs(90)
    whole, detector = Monitor(good(), baseline=5, random_state=4), good()
    whole.update(scores[:40])
    whole.update(scores[40:], images[40:])
    part = Monitor(detector, baseline=5, random_state=4)
    path = tmp_path / "new" / "state.json"
    for begin, end in ((0, 3), (3, 40), (40, 60), (60, 90)):
        part.update(scores[begin:end], images[begin:end] if begin >= 40 else None)
        part.save(path)
        part = Monitor.load(path, detector)
    whole.save(tmp_path / "whole.json")
    part.save(path)
    assert path.read_bytes() == (tmp_path / "whole.json").read_bytes()
    assert str(part.status()) == str(whole.status())
    assert part.update(normal(60, shift=-3)) == whole.update(normal(60, shift=-3))
    assert part.status() == whole.status()


def test_a_state_of_another_model_is_refused_by_both_names(tmp_path):
    Monitor(good()).save(tmp_path / "a.json")
    Monitor(good(seed=1)).save(tmp_path / "b.json")
    names = [
        json.loads((tmp_path / name).read_text())["calibration_sha256"]
        for name in ("a.json", "b.json")
    ]
    with pytest.raises(ValueError, match=f"{names[0]}.* this detector {names[1]}"):
        Monitor.load(tmp_path / "a.json", good(seed=1))


def test_a_damaged_state_is_refused(tmp_path):
    path, monitor = tmp_path / "state.json", Monitor(good())
    monitor.update(normal(9), photographs(9))
    monitor.save(path)
    text = path.read_text()
    damaged = [text[:n] for n in (0, 1, 50, len(text) // 2, len(text) - 1)]
    state = json.loads(text)
    for name in state:
        damaged.append(json.dumps({k: v for k, v in state.items() if k != name}))
        if name != "calibration_sha256":
            damaged.append(json.dumps(state | {name: None}))
    damaged += ["[]", json.dumps(state | {"scores": [0.0]})]
    for one in damaged:
        path.write_text(one)
        with pytest.raises(ValueError, match=r"state\.json is not the state of a moni"):
            Monitor.load(path, good())


# --- Bad input --------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0, 1, -0.1, math.nan, "0.05", None, True])
def test_alpha_must_be_between_0_and_1(alpha):
    with pytest.raises(ValueError, match="alpha must be a number between 0 and 1"):
        Monitor(good(), alpha=alpha)


def test_wrong_scores_are_refused_and_leave_no_trace():
    with pytest.raises(ValueError, match="at least one good image; got none"):
        Monitor(SimpleNamespace(calibration_scores_=[], offset_=0))
    with pytest.raises(
        ValueError, match=r"calibration_scores_ must be finite; numb.* 1"
    ):
        Monitor(SimpleNamespace(calibration_scores_=[0, math.inf], offset_=0))
    with pytest.raises(ValueError, match="baseline must be an int of at least 0"):
        Monitor(good(), baseline=-1)
    monitor = Monitor(good())
    with pytest.raises(ValueError, match="scores must be finite; number 2 is nan"):
        monitor.update([0.1, 0.2, math.nan])
    with pytest.raises(ValueError, match="got 3 images and 2 scores"):
        monitor.update([0.1, 0.2], photographs(3))
    with pytest.raises(
        ValueError, match=r"scores must be of shape \(n,\); got shape \(1, 2\)"
    ):
        monitor.update([[0.1, 0.2]])
    assert monitor.n_images == 0


def test_nothing_heavy_is_imported():
    program = (
        "import sys, types, skad\n"
        "known = types.SimpleNamespace(calibration_scores_=[-1.0], offset_=-2.0)\n"
        "monitor = skad.Monitor(known)\n"
        "monitor.update([-3.0] * 9, [[[1, 2]]] * 9)\n"
        "print(monitor.status(), *sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    heavy = {"torch", "scipy", "sklearn", "skimage", "PIL"}
    assert "skad.monitor.monitor" in done.stdout
    assert not heavy & set(done.stdout.split())


def test_the_page_on_monitors(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    detector = skad.PatchAutoencoderDetector(
        8, epochs=1, random_state=0, target_fpr=0.2
    )
    skad.save(detector.fit(photographs(30)[:, :, :16]), "part.safetensors")
    for day in ("monday", "tuesday"):
        (tmp_path / "parts" / day).mkdir(parents=True)
        for i, pixels in enumerate(photographs(12, seed=1)[:, :, :16]):
            Image.fromarray(pixels).save(tmp_path / "parts" / day / f"{i:02}.png")
    page = (Path(__file__).parents[1] / "docs/monitor.md").read_text(encoding="utf-8")
    names = {}
    for snippet in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(snippet.replace("image_size=256", "image_size=16"), names)
    assert capsys.readouterr().out.startswith("No alarm after 12 images: the martin")
    assert skad.Monitor.load("monitor.json", names["detector"]).n_images == 12
    assert names["selected"].shape == (12,)
