"""AU-PRO and the pixel AUROC against slow loops over their definitions."""

from itertools import pairwise

import numpy as np
import pytest
from skimage.measure import label
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import roc_auc_score

from skad.metrics import au_pro_score, pixel_auroc_score
from skad.metrics.localization import pro_curve


def random_masks_and_maps(seed, levels=12):
    """Images of differing sizes with regions of differing sizes, and ties."""
    rng = np.random.default_rng(seed)
    masks, maps = [], []
    for _ in range(4):
        height, width = rng.integers(4, 9, size=2)
        mask = rng.random((height, width)) < 0.25
        maps.append((rng.integers(0, levels, (height, width)) + 2 * mask) / levels)
        masks.append(mask)
    masks[0][:] = False
    return masks, maps


def slow_points(masks, maps):
    """FPR and PRO at every threshold, one after the other, by the definition."""
    regions = []
    for i, mask in enumerate(masks):
        labels = label(mask, connectivity=2)
        regions += [(i, labels == k) for k in range(1, labels.max() + 1)]
    good = sum((~mask).sum() for mask in masks)
    points = [(np.inf, 0.0, 0.0)]
    for threshold in sorted({v for values in maps for v in values.flat}, reverse=True):
        flagged = [values >= threshold for values in maps]
        false = sum((f & ~mask).sum() for f, mask in zip(flagged, masks, strict=True))
        overlaps = [flagged[i][region].mean() for i, region in regions]
        points.append((threshold, false / good, np.mean(overlaps)))
    return points


def slow_au_pro(masks, maps, limit):
    """Area by trapezoids, one after the other."""
    area, points = 0.0, slow_points(masks, maps)
    for (_, x0, y0), (_, x1, y1) in pairwise(points):
        if x0 >= limit or x0 == x1:
            continue
        end = min(x1, limit)
        at_end = y0 + (y1 - y0) * (end - x0) / (x1 - x0)
        area += (end - x0) * (y0 + at_end) / 2
    return area / limit


@pytest.mark.parametrize("seed", range(2))
def test_au_pro_equals_a_slow_loop_and_the_pixel_auroc_scikit_learns(seed):
    masks, maps = random_masks_and_maps(seed)
    for limit in (0.01, 0.3, 0.77, 1.0):
        expected = slow_au_pro(masks, maps, limit)
        got = au_pro_score(masks, maps, integration_limit=limit)
        assert got == pytest.approx(expected)
    truth, values = (np.concatenate([*map(np.ravel, some)]) for some in (masks, maps))
    assert pixel_auroc_score(masks, maps) == pytest.approx(roc_auc_score(truth, values))


@pytest.mark.parametrize("levels", [1, 3, 40, 10**6])
def test_every_point_of_the_curve_is_right_and_none_is_missing(levels):
    masks, maps = random_masks_and_maps(1, levels)
    slow = slow_points(masks, maps)
    fpr, pro, thresholds = pro_curve(masks, maps)
    expected = {threshold: (x, y) for threshold, x, y in slow}
    for x, y, threshold in zip(fpr, pro, thresholds, strict=True):
        assert (x, y) == pytest.approx(expected[threshold])
    for threshold, x, y in slow:  # what was left out lies on the lines
        segment = np.flatnonzero(thresholds >= threshold)[-1]
        ends = slice(segment, segment + 2)
        assert x in fpr[ends] or np.interp(x, fpr[ends], pro[ends]) == pytest.approx(y)
    assert (np.diff(thresholds) < 0).all()
    assert (fpr[0], pro[0], fpr[-1], pro[-1]) == (0, 0, 1, 1)


@pytest.mark.parametrize("score", [au_pro_score, pixel_auroc_score])
def test_arrays_and_sequences_of_any_number_kind_agree(score):
    rng = np.random.default_rng(0)
    masks = rng.random((3, 6, 7)) < 0.3
    maps = rng.integers(0, 99, masks.shape)
    masks.setflags(write=False)
    maps.setflags(write=False)
    expected = score(masks, maps.astype(np.float64))
    assert score(masks.astype(np.uint8) * 255, maps) == expected
    assert score(list(masks), tuple(maps.astype(np.float32))) == expected
    assert score(masks.tolist(), (values for values in maps)) == expected


@pytest.mark.parametrize("score", [au_pro_score, pixel_auroc_score])
@pytest.mark.parametrize(("fill", "kind"), [(0, "anomalous"), (1, "good")])
def test_one_kind_of_pixels_alone_is_undefined(score, fill, kind):
    masks, maps = np.full((2, 3, 4), fill), np.random.default_rng(0).random((2, 3, 4))
    with pytest.warns(UndefinedMetricWarning, match=f"without a single {kind} pixel"):
        assert np.isnan(score(masks, maps))
    with pytest.warns(UndefinedMetricWarning, match=f"without a single {kind} pixel"):
        assert np.isnan(pro_curve(masks, maps)[:2]).all()


@pytest.mark.parametrize("score", [pro_curve, au_pro_score, pixel_auroc_score])
def test_bad_masks_and_maps_are_named(score):
    masks, maps = np.zeros((2, 3, 4), int), np.zeros((2, 3, 4))
    masks[0, 0, 0] = 1
    for words, arguments in {
        r"masks\[0\] holds \[1.0, 2.0\].* a JPEG": (
            masks + 2 * np.eye(3, 4)[::-1],
            maps,
        ),
        r"masks\[0\] holds \[-1\]": (-masks, maps),
        r"masks\[0\] has \(4,\).* masks\[np.newaxis\]": (masks[0], maps[0]),
        r"maps\[1\] \(3, 4, 1\)": (masks, [maps[0], maps[1][..., None]]),
        r"masks\[0\] has \(3, 4\) and maps\[0\] \(4": (masks, maps.swapaxes(1, 2)),
        "got 2 masks and 1 maps": (masks, maps[:1]),
        "at least one; got 0 masks": ([], []),
        r"maps\[1\] is not": (masks, [maps[0], maps[1] + np.nan]),
    }.items():
        with pytest.raises(ValueError, match=words):
            score(*arguments)


def test_an_integration_limit_is_a_rate():
    masks = np.array([[[0, 1]]])
    for limit in (0, 1.01, np.nan, None):
        with pytest.raises(ValueError, match="integration_limit must be above 0"):
            au_pro_score(masks, masks * 1.0, integration_limit=limit)
