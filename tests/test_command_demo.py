"""`skad demo`: what it says, writes and draws of its results."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from sklearn.utils import Bunch

from skad.cli import command_demo
from skad.cli.command_demo import draw, report
from skad.cli.main import main
from skad.inspection.verdict import judge

KINDS = ["good", "hole", "good", "scratch", "hole", "good"]
SIZE = 64


@pytest.fixture
def demo():
    """A demo of 64 x 64 tiles whose maps are the masks, but for one missed hole."""
    y = np.array([1 if kind == "good" else -1 for kind in KINDS])
    masks = np.zeros((6, SIZE, SIZE), dtype=bool)
    masks[y == -1, 10:20, 30:40] = True
    maps = masks.astype(np.float32)
    maps[1] = 0.1
    test = np.full(masks.shape, 128, dtype=np.uint8)
    detector = SimpleNamespace(offset_=-0.5, pixel_threshold_=0.5, promised_fpr_=0.05)
    surfaces = Bunch(train=test[:3], calibration=test[:2], test=test, y_test=y)
    surfaces |= {"masks": masks, "kinds": np.array(KINDS)}
    results = [judge(one, -0.5, [-0.5] * 30) for one in maps]
    return surfaces, detector, results


@pytest.mark.filterwarnings("ignore:target_fpr=0.05 cannot be promised")
def test_demo_draws_writes_and_tells(tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    small = partial(command_demo.load_surfaces, tile_size=32, n_test=10)
    monkeypatch.setattr(command_demo, "load_surfaces", small)
    assert main(["demo", "--epochs", "1", "--output", str(tmp_path / "new")]) == 0
    with Image.open(tmp_path / "new" / "demo.png") as picture:
        assert picture.size[0] > 500
    assert " of 5 = " in capsys.readouterr().out


def test_the_report_gives_rates_with_counts_and_intervals(demo):
    said = report(*demo)
    assert "3 good tiles to learn from, 2 for the threshold, 6 to test" in said
    assert "defects found  2 of 3 = 66.7 % (95 % interval " in said
    assert "false alarms   0 of 3 = 0.0 % " in said
    assert "promised: at most 5 %" in said


def test_the_picture_shows_good_tiles_and_one_of_each_defect(demo):
    pytest.importorskip("matplotlib")
    tiles = draw(*demo).axes
    titles = ["good", "good", "hole", "scratch", "passed", "passed", "missed", "found"]
    assert [ax.get_title() for ax in tiles] == titles
    shown = np.array([ax.images[0].get_array() for ax in tiles])  # 8, H, W, 3
    outlined = (shown == (86, 180, 233)).all(axis=-1).any(axis=(1, 2))
    assert outlined.tolist() == [False, False, True, True] + [False] * 4
    is_hot = (np.ptp(shown[4:].astype(int), axis=-1) > 0).any(axis=(1, 2))
    assert is_hot.tolist() == [False, False, False, True]  # the first hole was missed
