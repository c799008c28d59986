"""Scoring files into a table and heat maps, with a stand-in for a detector."""

import csv
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skad.detectors import files as _files
from skad.inspection.score_files import COLUMNS, score_files
from skad.inspection.verdict import judge
from skad.scoring.anomaly_map import NotFiniteError


class Darkness:
    """Fitted detector whose map is the darkness of a pixel; takes integers only."""

    pixel_threshold_ = 0.5
    offset_ = -0.5

    def __init__(self, shape=(8, 10)):
        self.image_shape_in_ = shape
        self.batches = []

    def inspect(self, X):
        assert X.shape[1:] == self.image_shape_in_
        if X.dtype.kind == "f":
            raise ValueError("got float images")
        self.batches.append(len(X))
        gray = X if X.ndim == 3 else X.mean(axis=3)
        maps = (1 - gray / np.iinfo(X.dtype).max).astype(np.float32)
        return [judge(one, self.offset_, [-0.4, -0.3, -0.2]) for one in maps]


def write(path, level, *, spots=(), shape=(8, 10), dtype=np.uint8):
    """Write an image of one level with some black spots (row, col, height, width)."""
    pixels = np.full(shape, level, dtype=dtype)
    for row, col, height, width in spots:
        pixels[row : row + height, col : col + width] = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def score(detector, sources, output, **options):
    inspect_files = partial(_files.inspect_files, detector)
    return score_files(inspect_files, -detector.offset_, sources, output, **options)


def rows_of(folder):
    with (folder / "scores.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def shown_level(folder, row):
    """Level of a good image, as its heat map shows it."""
    return round(np.asarray(Image.open(folder / row["heat_map"])).mean())


@pytest.fixture
def parts(tmp_path):
    """A good image, one with two spots, and a file that is none."""
    folder = tmp_path / "parts"
    write(folder / "a.png", 204)
    write(folder / "b.png", 204, spots=[(0, 0, 2, 2), (5, 5, 2, 3)])
    (folder / "c.png").write_bytes(b"no image")
    return folder


def test_the_table_says_what_the_detector_says(parts, tmp_path, capsys):
    verdicts = score(Darkness(), [parts], tmp_path / "out")
    good, bad, unreadable = rows_of(tmp_path / "out")
    assert tuple(good) == COLUMNS
    assert good["path"] == str(parts / "a.png")
    assert float(good["score"]) == pytest.approx(-0.2)
    assert float(good["decision"]) == pytest.approx(0.3)
    assert float(good["p_value"]) == 3 / 4  # -0.2 in float32 lies below the last
    counts = ("verdict", "n_regions", "largest_area", "row_min")
    assert [good[name] for name in counts] == ["good", "0", "0", ""]
    assert [bad[name] for name in counts] == ["anomalous", "2", "6", "0"]
    assert (float(bad["score"]), float(bad["p_value"])) == (-1, 1 / 4)
    assert [unreadable[name] for name in counts] == ["unreadable", "", "", ""]
    assert verdicts == {"good": 1, "anomalous": 1, "unreadable": 1}
    assert "c.png: cannot read the image" in capsys.readouterr().err


def test_boxes_and_heat_maps_are_in_pixels_of_the_file(tmp_path):
    spots, shape = [(16, 18, 8, 18)], (32, 60, 3)
    pixels = write(tmp_path / "a.png", 204, spots=spots, shape=shape)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray(np.rot90(pixels)).save(tmp_path / "b.png", exif=exif)
    score(Darkness((8, 10)), [tmp_path], tmp_path / "out")
    for row in rows_of(tmp_path / "out"):
        box = [int(row[side]) for side in ("row_min", "col_min", "row_max", "col_max")]
        assert box == [16, 18, 24, 36]
        assert row["largest_area"] == "144"
        drawn = np.asarray(Image.open(tmp_path / "out" / row["heat_map"]))
        assert drawn.shape == pixels.shape
        changed = (drawn != pixels).any(axis=2)
        assert changed[17:23, 20:34].all()
        assert not changed[:12].any() and not changed[:, :14].any()


def test_files_are_read_as_fitted_and_types_scored_apart(tmp_path, capsys):
    write(tmp_path / "a.png", 204, shape=(8, 10, 3))
    write(tmp_path / "b.png", 65535 * 4 // 5, dtype=np.uint16)
    write(tmp_path / "c.tif", 0.5, dtype=np.float32)
    write(tmp_path / "d.png", 204)
    verdicts = score(Darkness((8, 10, 3)), [tmp_path], tmp_path / "out")
    assert verdicts == {"good": 3, "unreadable": 1}
    assert "c.tif: got float images" in capsys.readouterr().err
    a, b, _, d = rows_of(tmp_path / "out")
    assert [float(row["score"]) for row in (a, b, d)] == pytest.approx([-0.2] * 3)


def test_only_files_that_are_refused_or_gone_are_unreadable(parts, tmp_path, capsys):
    class RefusesSpots(Darkness):
        def inspect(self, X):
            (parts / "d.png").unlink(missing_ok=True)  # before it is drawn
            if (X == 0).any():
                raise ValueError("got spots")
            return super().inspect(X)

    write(parts / "d.png", 204)
    write(parts / 'e, "f"\nü.png', 204)
    verdicts = score(RefusesSpots(), [parts], tmp_path / "out")
    assert verdicts == {"good": 2, "unreadable": 3}
    assert "b.png: got spots" in capsys.readouterr().err
    assert rows_of(tmp_path / "out")[-1]["path"] == str(parts / 'e, "f"\nü.png')
    assert resume(tmp_path)["unreadable"] == 1  # of the rest, what is no image


def test_a_damaged_network_is_no_fault_of_the_files(parts, tmp_path):
    class Damaged(Darkness):
        def inspect(self, X):
            raise NotFiniteError

    with pytest.raises(NotFiniteError, match="weights are damaged"):
        score(Damaged(), [parts], tmp_path / "out")
    assert rows_of(tmp_path / "out") == []


# --- Stopping and going on --------------------------------------------------------


class Stopped(Darkness):
    """Is interrupted at its second batch."""

    def inspect(self, X):
        if self.batches:
            raise KeyboardInterrupt
        return super().inspect(X)


@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """Five good images of which two were scored, two at a time, before the stop."""
    monkeypatch.setattr(_files, "_AT_ONCE", 2)
    for i in range(5):
        write(tmp_path / "parts" / f"{i}.png", 200 + i)
    with pytest.raises(KeyboardInterrupt):
        score(Stopped(), [tmp_path / "parts"], tmp_path / "out")
    assert len(rows_of(tmp_path / "out")) == 2
    return tmp_path


def resume(folder, detector=None, **options):
    detector = detector or Darkness()
    output = folder / "out"
    return score(detector, [folder / "parts"], output, resume=True, **options)


def test_resume_scores_the_rest_only(stopped, monkeypatch):
    detector, out = Darkness(), stopped / "out"
    table = out / "scores.csv"
    table.write_bytes(table.read_bytes()[:-2])  # of row 1, as when the disk is full
    monkeypatch.chdir(stopped)
    assert score(detector, ["parts"], "out", resume=True) == {"good": 5}
    assert detector.batches == [2, 2]
    resumed = table.read_bytes()
    score(Darkness(), [stopped / "parts"], out)
    assert resumed == table.read_bytes()


def test_resume_tries_again_what_was_not_read(parts, tmp_path):
    assert resume(tmp_path, heat_maps=False).total() == 3  # no table: it starts one
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["scores.csv"]
    write(parts / "c.png", 204)
    assert resume(tmp_path) == {"good": 2, "anomalous": 1}
    drawn = [row["heat_map"] for row in rows_of(tmp_path / "out")]
    assert drawn == ["", "", "heat_maps/c.png.png"]


def test_every_row_keeps_its_own_heat_map(tmp_path):
    folder, out, levels = tmp_path / "parts", tmp_path / "out", {}
    for change in ({"a.bmp": 210, "a.png": 220}, {"b.png": 240}):
        levels |= change
        for name, level in change.items():
            write(folder / name, level)
        resume(tmp_path)
        (folder / "a.bmp").unlink(missing_ok=True)  # its row and its heat map stay
        rows = {Path(row["path"]).name: row for row in rows_of(out)}
        assert {name: shown_level(out, row) for name, row in rows.items()} == levels
    write(tmp_path / "others" / "b.png", 200)
    with pytest.raises(ValueError, match=r"others.b\.png would replace .*b\.png\.png"):
        score(Darkness(), [tmp_path / "others"], out, resume=True)


def test_resume_refuses_another_table(stopped):
    detector = Darkness()
    detector.offset_ = -0.6
    with pytest.raises(ValueError, match="another model or threshold"):
        resume(stopped, detector)
    with (stopped / "out" / "scores.csv").open("a") as file:
        file.write("x.png,,,,good,0,0\n")
    with pytest.raises(ValueError, match=r"was changed.*the row of x\.png"):
        resume(stopped)
    (stopped / "out" / "scores.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="start it over, without --resume"):
        resume(stopped)


# --- Where heat maps go -----------------------------------------------------------


def test_starting_over_leaves_files_that_are_not_its_own(parts, tmp_path):
    score(Darkness(), [parts], tmp_path)
    (tmp_path / "heat_maps" / "mine.txt").write_text("mine")
    write(tmp_path / "other.png", 220)
    rows = (
        (tmp_path / "scores.csv")
        .read_text()
        .replace("heat_maps/a.png.png", "other.png")
    )
    (tmp_path / "scores.csv").write_text(rows)  # a table does not say what is removed
    score(Darkness(), [tmp_path / "other.png"], tmp_path)
    left = sorted(path.name for path in (tmp_path / "heat_maps").iterdir())
    assert left == ["a.png.png", "mine.txt", "other.png.png"]
    assert (tmp_path / "other.png").exists()


def test_a_table_is_kept_where_heat_maps_cannot_be_written(parts, tmp_path):
    score(Darkness(), [parts], tmp_path)
    before = rows_of(tmp_path)
    write(tmp_path / "heat_maps" / "a.png", 204)
    with pytest.raises(ValueError, match=r"would replace .*a\.png\.png"):
        score(Darkness(), [tmp_path / "heat_maps"], tmp_path)
    (tmp_path / "heat_maps").rename(tmp_path / "maps")
    (tmp_path / "heat_maps").touch()
    with pytest.raises(OSError, match=r"heat_maps.*png cannot be written"):
        score(Darkness(), [parts], tmp_path)
    assert rows_of(tmp_path) == before
    score(Darkness(), [tmp_path / "maps"], tmp_path, heat_maps=False)
    assert len(rows_of(tmp_path)) == 3


def test_heat_maps_keep_names_and_folders(tmp_path):
    for name in ("x/a.bmp", "x/a.png", "y/good/a.png"):
        write(tmp_path / "parts" / name, 204)
    score(Darkness(), [tmp_path / "parts"], tmp_path / "out", recursive=True)
    drawn = [row["heat_map"] for row in rows_of(tmp_path / "out")]
    expected = ["x/a.bmp.png", "x/a.png.png", "y/good/a.png.png"]
    assert drawn == [f"heat_maps/{name}" for name in expected]
