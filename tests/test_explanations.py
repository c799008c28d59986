"""Explanations: evidence adds up to the map, and patches are found where they lie."""

import pickle
import sys

import matplotlib as mpl
import numpy as np
import pytest
import torch
from image_files import save as write
from old_models import SHAPE, write_model
from own_encoders import own_encoder
from sklearn.exceptions import NotFittedError

mpl.use("Agg")

import matplotlib.pyplot as plt

import skad
from skad.cli.main import main
from skad.scoring import anomaly_map as _anomaly_map
from skad.scoring import tiles as _tiles
from skad.scoring.evidence import NETWORK_BRANCHES, evidence_at_peak

SIDE = 64
KINDS = {
    "network": {"epochs": 1},
    "both": {"epochs": 1, "encoder": own_encoder()},
    "encoder": {"epochs": 0, "encoder": own_encoder()},
}
pytestmark = pytest.mark.filterwarnings("ignore:These images are unlike those that set")


def texture(n, seed=0):
    """Images of coarse and fine noise, no two alike."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(60, 160, (n, SIDE // 8, SIDE // 8)).repeat(8, 1).repeat(8, 2)
    return (coarse + rng.integers(0, 30, (n, SIDE, SIDE))).astype(np.uint8)


def spoilt(image, row=24, column=40, side=8):
    bad = image.copy()
    bad[row : row + side, column : column + side] = 255
    return bad


@pytest.fixture(scope="module")
def good():
    return texture(14)


@pytest.fixture(scope="module")
def fitted(good):
    """A detector of each kind; the one with both looks at a part of the image."""
    roi = np.ones((SIDE, SIDE), bool)
    roi[:, :20] = False
    return {
        kind: skad.PatchAutoencoderDetector(
            8,
            target_fpr=0.3,
            random_state=0,
            roi=roi if kind == "both" else None,
            **own,
        ).fit(good)
        for kind, own in KINDS.items()
    }


@pytest.fixture(scope="module")
def any_size(good):
    images = [good[0][:48], *good]
    return skad.PatchAutoencoderDetector(
        8, image_size=SIDE, target_fpr=0.3, random_state=0, **KINDS["encoder"]
    ).fit(images)


# --- Evidence ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_shares_add_up_to_the_map_at_its_peak(fitted, good, kind):
    detector, bad = fitted[kind], spoilt(good[3])
    found = skad.explain(detector, bad)
    amap = detector.anomaly_map(bad[None])[0]
    assert found.peak == np.unravel_index(amap.argmax(), amap.shape)
    assert found.score == -amap.max() == detector.score_samples(bad[None])[0]
    assert sum(found.evidence.values()) == pytest.approx(1)
    _, parts, _ = evidence_at_peak(detector.fitted.mapper, bad[None, ..., None])
    assert sum(parts.values()) == pytest.approx(float(amap.max()), rel=1e-4)
    shares = list(found.evidence.values())
    assert shares == sorted(shares, reverse=True)
    assert min(shares) >= 0
    boxes = [region.bbox for region in detector.anomaly_regions(bad[None])[0]]
    assert found.region == (boxes[0] if boxes else None)
    assert boxes or kind != "network"


@pytest.mark.parametrize("i", range(6))
def test_a_branch_that_scores_alone_has_all_the_evidence(fitted, good, i):
    """Calibrated scores of the others are 0, and no image as a whole is unusual."""
    mapper = _anomaly_map.AnomalyMapper.from_arrays(
        fitted["both"].fitted.mapper.to_arrays(),
        own_encoder=KINDS["both"]["encoder"],
        **fitted["both"].fitted.mapper.settings,
    )
    mapper.tails[torch.arange(6) != i, :, 1] = 0.0
    mapper.usual += 1e6
    _, parts, _ = evidence_at_peak(mapper, spoilt(good[3])[None, ..., None])
    largest = list(parts)[i]
    assert parts[largest] > 0
    assert sum(parts.values()) == pytest.approx(parts[largest])


def test_what_the_whole_image_adds_is_the_rise_of_the_peak(fitted, good):
    """By 1 + map: the same detector without the rise gives the rest."""
    mapper = fitted["encoder"].fitted.mapper
    batch = texture(1, seed=9)[None, 0, ..., None] // 3  # darker than any
    at, parts, _ = evidence_at_peak(mapper, batch)
    total = sum(parts.values())
    share = parts["image as a whole"] / total
    assert share > 0.05
    kept, mapper.whole_weight = mapper.whole_weight, 0.0
    without = mapper(batch)[0]
    mapper.whole_weight = kept
    # The peak lies between four cells, which have not quite one share.
    assert np.log1p(without[at]) / np.log1p(total) == pytest.approx(1 - share, abs=0.03)


def test_large_images_are_explained_by_tiles(fitted, good, monkeypatch):
    detector, bad = fitted["network"], spoilt(good[3])
    expected = skad.explain(detector, bad, good)
    for module in (_tiles, _anomaly_map):
        monkeypatch.setattr(module, "TILE", 32)
        monkeypatch.setattr(module, "MARGIN", 0)
    by_tiles = []
    monkeypatch.setattr(
        _anomaly_map,
        "in_tiles",
        lambda compute, x, stride, _: (
            by_tiles.append(stride) or _tiles.in_tiles(compute, x, stride, 96)
        ),
    )
    found = skad.explain(detector, bad, good)
    assert set(by_tiles) == {2, 8}
    assert found.evidence == pytest.approx(expected.evidence, rel=1e-3)
    assert [p.bbox for p in found.nearest] == [p.bbox for p in expected.nearest]


def test_a_map_of_nothing_has_no_shares(fitted, good):
    detector = pickle.loads(pickle.dumps(fitted["network"]))
    detector.fitted.mapper.tails[:, :, 1] = 0.0  # all calibrated scores
    found = skad.explain(detector, good[0])
    assert found.score == 0
    assert np.isnan(list(found.evidence.values())).all()
    assert "nan" not in str(found)


# --- Good patches -----------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_patch_is_found_where_it_was_moved(fitted, good, kind):
    """Rolled by 16 pixels, features are the same, but for those near the border."""
    detector, bad = fitted[kind], spoilt(good[3])
    moved = np.roll(bad, 16, axis=0)
    found = skad.explain(detector, bad, [*good[:5], moved, bad], n_nearest=2)
    assert [patch.index for patch in found.nearest] == [6, 5]
    same, other = found.nearest
    assert same.distance == pytest.approx(0, abs=1e-5)
    assert same.bbox == found.patch
    assert found.patch[0] <= found.peak[0] < found.patch[2]
    assert found.patch[1] <= found.peak[1] < found.patch[3]
    assert other.bbox == tuple(np.add(same.bbox, (16, 0, 16, 0)))


def test_places_are_in_pixels_of_what_was_given(any_size, good, tmp_path):
    bad = spoilt(good[3])
    twice = bad.repeat(2, 0).repeat(2, 1)
    file = write(tmp_path / "bad.png", twice)
    folder = write(tmp_path / "good" / "a.png", twice).parent
    pairs = ((twice, [twice]), (file, folder), (str(file), str(folder)))
    for image, others in pairs:
        large = skad.explain(any_size, image, others)
        assert large.score == any_size.score_samples(twice[None])[0]
        assert large.size == large.nearest[0].size == twice.shape
        (row, column), (top, left, bottom, right) = large.peak, large.patch
        assert large.patch == large.nearest[0].bbox
        assert top <= row < bottom
        assert left <= column < right
        assert any_size.anomaly_map(twice[None])[0][row, column] == -large.score
    assert large.nearest[0].path == folder / "a.png"
    assert f"closest good patch is in {folder / 'a.png'}, from row" in str(large)


# --- Words, pictures, the command -------------------------------------------------


def test_the_sentence_names_the_largest_shares(fitted, good):
    found = skad.explain(fitted["both"], spoilt(good[3]), good[:2])
    text = str(found)
    assert f"Peak {-found.score:.3g} (threshold {found.threshold:.3g})" in text
    assert f"at row {found.peak[0]}, column {found.peak[1]}. " in text
    (name, share), *_ = found.evidence.items()
    assert f"{100 * share:.0f} % of it comes from the {name}" in text
    assert f"in good image {found.nearest[0].index}, from row" in text


def test_the_display_draws_what_it_was_given(fitted, good):
    bad = spoilt(good[3])
    display = skad.ExplanationDisplay.from_estimator(fitted["both"], bad, good[:4])
    found = display.explanation
    np.testing.assert_array_equal(
        display.map_display_.map_.get_array(), found.anomaly_map
    )
    assert [bar.get_width() for bar in display.bars_] == [*found.evidence.values()]
    for axes, patch in zip(display.patch_axes_[1:], found.nearest, strict=True):
        shown = axes.images[0].get_array()[..., 0]
        np.testing.assert_array_equal(shown, good[patch.index])
        (top, left, bottom, right), frame = patch.bbox, axes.patches[0]
        assert frame.get_xy() == (left - 0.5, top - 0.5)
        assert (frame.get_height(), frame.get_width()) == (bottom - top, right - left)
    alone = skad.ExplanationDisplay.from_estimator(fitted["both"], bad)
    assert alone.patch_axes_ == []
    plt.close("all")


def test_the_command_prints_and_draws(any_size, good, tmp_path, monkeypatch, capsys):
    model, picture = tmp_path / "part.safetensors", tmp_path / "new" / "why.png"
    skad.save(any_size, model, without_encoder=True)
    detector = skad.load(model, encoder=any_size.encoder)
    monkeypatch.setattr(
        "skad.cli.command_explain.load_with_threshold", lambda *_: detector
    )
    file = write(tmp_path / "bad.png", spoilt(good[3]))
    folder = write(tmp_path / "good" / "sub" / "a.png", good[0]).parents[1]
    call = ["explain", str(model), str(file), "--good", str(folder), "--recursive"]
    assert main([*call, "--output", str(picture)]) == 0
    said = capsys.readouterr().out
    expected = skad.explain(detector, file, folder / "sub")
    assert said.startswith(str(expected))
    for name, share in expected.evidence.items():
        assert f"{name:<33} {100 * share:>4.0f} %" in said
    assert f"a.png: rows {expected.nearest[0].bbox[0]} to " in said
    assert mpl.image.imread(picture).shape == (800, 1300, 4)
    assert main([*call, "--output", str(file)]) == 2
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    assert main([*call, "--output", str(picture)]) == 2
    assert "ExplanationDisplay needs matplotlib" in capsys.readouterr().err


# --- What cannot be explained -----------------------------------------------------


def test_the_old_network_has_one_branch(tmp_path):
    images = texture(30)[:, : SHAPE[0], : SHAPE[1]]
    model = write_model(tmp_path / "model")
    detector = skad.DenseAutoencoderDetector(model, target_fpr=0.1)
    with pytest.raises(NotFittedError):
        skad.explain(detector, images[0])
    found = skad.explain(detector.fit(images), images[0])
    assert found.evidence == {NETWORK_BRANCHES[-1]: 1.0}
    assert found.patch is None
    with pytest.raises(ValueError, match="good must be None: a DenseAuto"):
        skad.explain(detector, images[0], images)


@pytest.mark.parametrize(
    ("image", "others", "message"),
    [
        (texture(2), None, r"image must be one image.* got shape \(2, 64, 64\)"),
        (texture(1)[0, :32], None, r"must have shape \(64, 64\).*got shape \(32, 64\)"),
        (np.full((SIDE, SIDE), np.nan), None, "number type"),
        (texture(1)[0], [], "good: .*empty list"),
        (texture(1)[0], texture(2)[:, :32], r"good: .*got shape \(32, 64\)"),
        (texture(1)[0], texture(1)[0], "good: "),
    ],
)
def test_wrong_images_are_refused(fitted, image, others, message):
    with pytest.raises(ValueError, match=message):
        skad.explain(fitted["network"], image, others)


def test_wrong_paths_and_numbers_are_refused(fitted, good, tmp_path):
    detector = fitted["network"]
    with pytest.raises(FileNotFoundError, match="no such image file"):
        skad.explain(detector, tmp_path / "a.png")
    with pytest.raises(ValueError, match="no image in"):
        skad.explain(detector, good[0], tmp_path)
    with pytest.raises(ValueError, match="n_nearest must be an int of at least 1"):
        skad.explain(detector, good[0], good, n_nearest=0)
    floats = skad.PatchAutoencoderDetector(8, epochs=1, target_fpr=0.3).fit(good / 255)
    with pytest.raises(ValueError, match="contains NaN"):
        skad.explain(floats, np.full((SIDE, SIDE), np.nan))
