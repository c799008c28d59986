import csv
import io
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skad.cli import scoring as _scoring
from skad.cli.score_table import COLUMNS
from skad.cli.scoring import heat_map_files, list_files, score_files
from skad.detectors.inspection import judge
from skad.scoring.anomaly_map import NotFiniteError

THRESHOLD = 0.5


class Darkness:
    """Fitted detector whose map is the darkness of a pixel, and what it was shown."""

    pixel_threshold_ = THRESHOLD
    offset_ = -THRESHOLD
    calibration_scores_ = np.array([-0.4, -0.3, -0.2])

    def __init__(self, shape=(8, 10)):
        self.image_shape_in_ = shape
        self.batches = []

    def anomaly_map(self, X):
        for i, image in enumerate(X):
            if image.shape != self.image_shape_in_:
                raise ValueError(f"image {i} has shape {image.shape}")
        self.batches.append(len(X))
        top = np.iinfo(X.dtype).max
        gray = X if X.ndim == 3 else X.mean(axis=3)
        return (1 - gray / top).astype(np.float32)

    def inspect(self, X):
        maps = self.anomaly_map(X)
        return [judge(one, self.offset_, self.calibration_scores_) for one in maps]


def image(level=200, *, spots=(), shape=(8, 10), dtype=np.uint8):
    pixels = np.full(shape, level, dtype=dtype)
    for row, col, height, width in spots:
        pixels[row : row + height, col : col + width] = 0
    return pixels


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def rows_of(folder):
    with (folder / "scores.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def parts(tmp_path):
    """A good image, one with two spots, and a file that is none."""
    folder = tmp_path / "parts"
    write(folder / "a.png", image(204))
    write(folder / "b.png", image(204, spots=[(0, 0, 2, 2), (5, 5, 2, 3)]))
    (folder / "c.png").write_bytes(b"no image")
    return folder


def test_a_damaged_network_is_no_fault_of_the_files(parts, tmp_path):
    class Damaged(Darkness):
        def inspect(self, X):
            raise NotFiniteError

    with pytest.raises(NotFiniteError, match="weights are damaged"):
        score_files(Damaged(), [parts], tmp_path / "out")
    assert rows_of(tmp_path / "out") == []


def test_the_table_says_what_the_detector_says(parts, tmp_path, capsys):
    verdicts = score_files(Darkness(), [parts], tmp_path / "out")
    good, bad, unreadable = rows_of(tmp_path / "out")
    assert tuple(good) == COLUMNS
    assert good["path"] == str(parts / "a.png")
    assert float(good["score"]) == pytest.approx(-0.2)
    assert float(good["decision"]) == pytest.approx(0.3)
    assert float(good["p_value"]) == 3 / 4  # -0.2 in float32 lies below the last
    assert (good["verdict"], good["n_regions"], good["largest_area"]) == (
        "good",
        "0",
        "0",
    )
    assert (float(bad["score"]), float(bad["p_value"])) == (-1, 1 / 4)
    assert (bad["verdict"], bad["n_regions"], bad["largest_area"]) == (
        "anomalous",
        "2",
        "6",
    )
    assert unreadable["verdict"] == "unreadable"
    assert unreadable["score"] == ""
    assert verdicts == {"good": 1, "anomalous": 1, "unreadable": 1}
    assert "skad: unreadable: " in (error := capsys.readouterr().err)
    assert "c.png: cannot read the image" in error


def test_boxes_and_heat_maps_are_in_pixels_of_the_file(tmp_path, monkeypatch):
    pixels = np.stack([image(204, spots=[(16, 18, 8, 18)], shape=(32, 60))] * 3, -1)
    write(tmp_path / "a.png", pixels)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray(np.rot90(pixels)).save(tmp_path / "b.png", exif=exif)
    detector = Darkness((8, 10))
    score_files(detector, [tmp_path], tmp_path / "out")
    for row in rows_of(tmp_path / "out"):
        box = [int(row[side]) for side in ("row_min", "col_min", "row_max", "col_max")]
        assert box == [16, 18, 24, 36]
        assert row["largest_area"] == "144"
        drawn = np.asarray(Image.open(tmp_path / "out" / row["heat_map"]))
        assert drawn.shape == pixels.shape
        changed = (drawn != pixels).any(axis=2)
        assert changed[17:23, 20:34].all()
        assert not changed[:12].any() and not changed[:, :14].any()
    monkeypatch.setattr("skad.overlays._MOST_PIXELS", 480)
    score_files(detector, [tmp_path / "a.png"], tmp_path / "small")
    with Image.open(tmp_path / "small/heat_maps/a.png") as drawn:
        assert drawn.size == (30, 16)


def test_a_file_that_is_gone_before_it_is_drawn_is_unreadable(parts, tmp_path):
    class Fleeting(Darkness):
        def inspect(self, X):
            (parts / "b.png").unlink()
            return super().inspect(X)

    verdicts = score_files(Fleeting(), [parts], tmp_path / "out")
    assert verdicts == {"good": 1, "unreadable": 2}
    assert (tmp_path / "out/heat_maps/a.png").exists()


def test_heat_maps_can_be_left_out(parts, tmp_path):
    score_files(Darkness(), [parts], tmp_path / "out", heat_maps=False)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["scores.csv"]


@pytest.mark.parametrize(("shape", "n_channels"), [((4, 5), 1), ((4, 5, 3), 3)])
def test_files_are_resized_and_their_colours_read_as_fitted(
    tmp_path, shape, n_channels
):
    write(tmp_path / "colour.png", np.stack([image()] * 3, axis=-1))
    verdicts = score_files(Darkness(shape), [tmp_path], tmp_path / "out")
    assert verdicts == {"good": 1}


def test_gray_files_are_read_as_colour_where_the_model_has_colours(tmp_path):
    write(tmp_path / "a.png", image(204))
    write(tmp_path / "b.png", np.stack([image(204)] * 3, axis=-1))
    score_files(Darkness((8, 10, 3)), [tmp_path], tmp_path / "out")
    gray, colour = rows_of(tmp_path / "out")
    assert gray["score"] == colour["score"]
    gray, colour = sorted((tmp_path / "out" / "heat_maps").iterdir())
    assert gray.read_bytes() == colour.read_bytes()


class Choosy(Darkness):
    """Refuses images that are black all over."""

    def anomaly_map(self, X):
        for i, image in enumerate(X):
            if not image.any():
                raise ValueError(f"image {i} is black")
        return super().anomaly_map(X)


def test_an_image_that_does_not_fit_is_named_and_the_others_scored(tmp_path, capsys):
    write(tmp_path / "a.png", image(0))
    write(tmp_path / "b.png", image())
    verdicts = score_files(Choosy(), [tmp_path], tmp_path / "out")
    assert [row["verdict"] for row in rows_of(tmp_path / "out")] == [
        "unreadable",
        "good",
    ]
    assert verdicts["unreadable"] == 1
    assert "a.png: image 0 is black" in capsys.readouterr().err


def test_8_and_16_bit_images_keep_their_own_scales(tmp_path):
    write(tmp_path / "a.png", image(255 * 4 // 5))
    write(tmp_path / "b.png", image(65535 * 4 // 5, dtype=np.uint16))
    score_files(Darkness(), [tmp_path], tmp_path / "out")
    scores = [float(row["score"]) for row in rows_of(tmp_path / "out")]
    assert scores == pytest.approx([-0.2, -0.2])


def test_memory_holds_few_images_at_a_time(tmp_path, monkeypatch):
    for i in range(7):
        write(tmp_path / f"{i}.png", image())
    monkeypatch.setattr(_scoring, "_PIXELS_AT_ONCE", 3 * 8 * 10)
    detector = Darkness()
    score_files(detector, [tmp_path], tmp_path / "out")
    assert detector.batches == [3, 3, 1]


def test_a_model_of_other_channels_is_refused(tmp_path):
    write(tmp_path / "a.png", image())
    with pytest.raises(ValueError, match=r"shape \(8, 10, 5\).*score_samples"):
        score_files(Darkness((8, 10, 5)), [tmp_path], tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- Stopping and going on --------------------------------------------------------


class Stopped(Darkness):
    """Is interrupted at its second batch."""

    def anomaly_map(self, X):
        if self.batches:
            raise KeyboardInterrupt
        return super().anomaly_map(X)


@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """Five good images of which two were scored, two at a time, before the stop."""
    monkeypatch.setattr(_scoring, "_AT_ONCE", 2)
    for i in range(5):
        write(tmp_path / "parts" / f"{i}.png", image(200 + i))
    with pytest.raises(KeyboardInterrupt):
        score_files(Stopped(), [tmp_path / "parts"], tmp_path / "out")
    assert len(rows_of(tmp_path / "out")) == 2
    return tmp_path


def test_resume_scores_the_rest_only(stopped):
    detector = Darkness()
    out = stopped / "out"
    verdicts = score_files(detector, [stopped / "parts"], out, resume=True)
    assert verdicts == {"good": 5}
    assert detector.batches == [2, 1]
    resumed = (out / "scores.csv").read_bytes()
    score_files(Darkness(), [stopped / "parts"], stopped / "whole")
    assert resumed == (stopped / "whole" / "scores.csv").read_bytes()


def test_without_resume_the_table_is_started_over(stopped):
    detector = Darkness()
    score_files(detector, [stopped / "parts"], stopped / "out")
    assert detector.batches == [2, 2, 1]
    assert len(rows_of(stopped / "out")) == 5


def test_resume_makes_a_lost_heat_map_and_a_cut_row_again(stopped):
    out = stopped / "out"
    (out / "heat_maps" / "0.png").unlink()
    table = out / "scores.csv"
    table.write_bytes(table.read_bytes()[:-2])  # of row 1, as when the disk is full
    detector = Darkness()
    score_files(detector, [stopped / "parts"], out, resume=True)
    assert sum(detector.batches) == 5
    paths = [row["path"] for row in rows_of(out)]
    assert sorted(paths) == [str(stopped / "parts" / f"{i}.png") for i in range(5)]
    assert len(list((out / "heat_maps").iterdir())) == 5


def test_resume_tries_unreadable_files_again(parts, tmp_path):
    score_files(Darkness(), [parts], tmp_path / "out")
    write(parts / "c.png", image())
    verdicts = score_files(Darkness(), [parts], tmp_path / "out", resume=True)
    assert verdicts == {"good": 2, "anomalous": 1}


def test_resume_without_a_table_starts_one(parts, tmp_path):
    assert score_files(Darkness(), [parts], tmp_path / "out", resume=True).total() == 3


def test_resume_refuses_the_table_of_another_threshold(stopped):
    detector = Darkness()
    detector.offset_ = -0.6
    with pytest.raises(ValueError, match="another model or threshold"):
        score_files(detector, [stopped / "parts"], stopped / "out", resume=True)


def test_resume_knows_a_file_by_another_name(stopped, monkeypatch):
    monkeypatch.chdir(stopped)
    detector = Darkness()
    assert score_files(detector, ["parts"], "out", resume=True) == {"good": 5}
    assert detector.batches == [2, 1]
    paths = [row["path"] for row in rows_of(stopped / "out")]
    assert paths == [str(stopped / "parts" / f"{i}.png") for i in range(5)]


def test_resume_from_another_folder_means_the_files_that_are_there(
    stopped, monkeypatch
):
    monkeypatch.chdir(stopped)
    write(stopped / "other" / "parts" / "0.png", image(100))
    score_files(Darkness(), ["parts"], "out", resume=True)
    monkeypatch.chdir(stopped / "other")
    score_files(Darkness(), ["../parts"], "../out", resume=True)
    verdicts = score_files(Darkness(), ["parts"], "../out", resume=True)
    assert verdicts == {"good": 5, "anomalous": 1}


def shown_level(folder, row):
    """Level of a good image, as its heat map shows it."""
    return round(np.asarray(Image.open(folder / row["heat_map"])).mean())


def test_every_row_keeps_its_own_heat_map(tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    levels = {"a.bmp": 210, "a.png": 220}
    for name, level in levels.items():
        write(folder / name, image(level))
    score_files(Darkness(), [folder], out)
    for change in ({"a.BMP": 230}, {"A.png": 240}, {"b.png": 250}):
        levels |= change
        for name, level in change.items():
            write(folder / name, image(level))
        (folder / "a.bmp").unlink(missing_ok=True)  # its row and its heat map stay
        score_files(Darkness(), [folder], out, resume=True)
        rows = {Path(row["path"]).name: row for row in rows_of(out)}
        assert {name: shown_level(out, row) for name, row in rows.items()} == levels
    (out / rows["a.png"]["heat_map"]).unlink()
    score_files(Darkness(), [folder], out, resume=True)
    rows = {Path(row["path"]).name: row for row in rows_of(out)}
    assert {name: shown_level(out, row) for name, row in rows.items()} == levels


def test_resume_takes_no_heat_map_of_other_files(stopped):
    write(stopped / "others" / "0.png", image(205))
    score_files(Darkness(), [stopped / "others"], stopped / "out", resume=True)
    rows = rows_of(stopped / "out")
    assert [shown_level(stopped / "out", row) for row in rows] == [200, 201, 205]


def test_resume_draws_what_was_not_drawn(parts, tmp_path):
    score_files(Darkness(), [parts], tmp_path, heat_maps=False)
    assert {row["heat_map"] for row in rows_of(tmp_path)} == {""}
    score_files(Darkness(), [parts], tmp_path, resume=True)
    drawn = [row["heat_map"] for row in rows_of(tmp_path)]
    assert drawn == ["heat_maps/a.png", "heat_maps/b.png", ""]


def test_a_folder_may_be_named_like_a_heat_map(tmp_path):
    write(tmp_path / "in" / "a.jpg", image(210))
    write(tmp_path / "in" / "a.png" / "b.png", image(220))
    score_files(
        Darkness(), [tmp_path / "in" / "a.jpg", tmp_path / "in/a.png"], tmp_path
    )
    drawn = [row["heat_map"] for row in rows_of(tmp_path)]
    assert drawn == ["heat_maps/a-2.png", "heat_maps/a.png/b.png"]


def test_starting_over_leaves_no_heat_map_of_before(parts, tmp_path):
    kept = tmp_path / "heat_maps" / "mine.txt"
    score_files(Darkness(), [parts], tmp_path)
    kept.write_text("mine")
    other = tmp_path / "other.png"
    write(other, image(220))
    rows = (tmp_path / "scores.csv").read_text().replace("heat_maps/a.png", "other.png")
    (tmp_path / "scores.csv").write_text(rows)  # a table does not say what is removed
    score_files(Darkness(), [other], tmp_path)
    left = sorted(path.name for path in (tmp_path / "heat_maps").iterdir())
    assert left == ["a.png", "mine.txt", "other.png"]
    assert other.exists()


def test_heat_maps_that_are_scored_themselves_stay(parts, tmp_path):
    score_files(Darkness(), [parts], tmp_path)
    before = rows_of(tmp_path)
    with pytest.raises(ValueError, match="would replace the image"):
        score_files(Darkness(), [tmp_path / "heat_maps"], tmp_path)
    assert rows_of(tmp_path) == before
    assert len(list((tmp_path / "heat_maps").iterdir())) == 2
    score_files(Darkness(), [tmp_path / "heat_maps"], tmp_path, heat_maps=False)
    assert "unreadable" not in {row["verdict"] for row in rows_of(tmp_path)}
    assert len(rows_of(tmp_path)) == 2


def test_any_table_can_be_started_over(parts, tmp_path):
    header = ",".join(COLUMNS)
    (tmp_path / "scores.csv").write_text(f"{header}\n{'x' * 200_000}\n")
    score_files(Darkness(), [parts], tmp_path)
    assert len(rows_of(tmp_path)) == 3


def test_resume_keeps_rows_of_files_that_are_gone(stopped):
    (stopped / "parts" / "0.png").unlink()
    verdicts = score_files(
        Darkness(), [stopped / "parts"], stopped / "out", resume=True
    )
    assert verdicts == {"good": 5}


@pytest.mark.parametrize(
    "row", ["parts/x.png\n", "x.png,,,,good,0,0\n", "x.png,0,0,1,good,0,0,,9\n"]
)
def test_resume_names_a_row_that_is_none(stopped, row):
    with (stopped / "out" / "scores.csv").open("a") as file:
        file.write(row)
    with pytest.raises(
        ValueError, match=r"scores\.csv has a row that is none: .*x\.png"
    ):
        score_files(Darkness(), [stopped / "parts"], stopped / "out", resume=True)


def test_resume_refuses_another_file(parts, tmp_path):
    (tmp_path / "scores.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="not a table of scores"):
        score_files(Darkness(), [parts], tmp_path, resume=True)


# --- Which files, and where -------------------------------------------------------


def test_a_file_named_twice_is_listed_once(parts):
    found = list_files([parts, parts / "a.png", parts / ".." / "parts" / "b.png"])
    assert [path.name for path in found] == ["a.png", "b.png", "c.png"]


def test_a_link_before_dots_is_followed(parts, tmp_path):
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    write(tmp_path / "elsewhere" / "a.png", image(210))
    link = parts / "link"
    link.symlink_to(tmp_path / "elsewhere" / "deep")
    (found,) = list_files([link / ".." / "a.png"])
    assert found.samefile(tmp_path / "elsewhere" / "a.png")
    assert list_files([parts / "a.png"])[0] == parts / "a.png"


def test_a_missing_source_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        list_files([tmp_path / "absent"])


def test_heat_maps_of_one_folder_lie_side_by_side(tmp_path):
    paths = [tmp_path / "in" / "a.jpg", tmp_path / "in" / "b.png"]
    found = heat_map_files(paths, tmp_path / "out", {})
    assert list(found.values()) == [
        tmp_path / "out" / "a.png",
        tmp_path / "out" / "b.png",
    ]


def test_heat_maps_of_several_folders_keep_their_folders(tmp_path):
    paths = [tmp_path / "x" / "good" / "a.png", tmp_path / "y" / "good" / "a.png"]
    found = heat_map_files(paths, tmp_path / "out", {})
    assert list(found.values()) == [
        tmp_path / "out" / "x" / "good" / "a.png",
        tmp_path / "out" / "y" / "good" / "a.png",
    ]


def test_equal_stems_get_numbers(tmp_path):
    names = ["a.jpg", "a.png", "A.bmp", "a-2.png"]
    found = heat_map_files([tmp_path / name for name in names], tmp_path / "out", {})
    assert [path.name for path in found.values()] == [
        "a.png",
        "a-2.png",
        "A-3.png",
        "a-2-2.png",
    ]


def test_an_image_is_never_replaced_by_its_heat_map(tmp_path):
    write(tmp_path / "heat_maps" / "a.png", image())
    with pytest.raises(ValueError, match="would replace the image"):
        score_files(Darkness(), [tmp_path / "heat_maps"], tmp_path)
    assert math.isclose(
        np.asarray(Image.open(tmp_path / "heat_maps/a.png")).mean(), 200
    )


def test_a_table_is_kept_where_heat_maps_cannot_be_written(parts, tmp_path):
    out = tmp_path / "out"
    score_files(Darkness(), [parts], out, heat_maps=False)
    before = (out / "scores.csv").read_bytes()
    (out / "heat_maps").touch()
    with pytest.raises(OSError, match=r"heat_maps.*png cannot be written"):
        score_files(Darkness(), [parts], out)
    assert (out / "scores.csv").read_bytes() == before


@pytest.mark.parametrize("name", ['a, "b"\nc ü.png', "a\rb.png"])
def test_any_file_name_survives_the_table(tmp_path, name):
    write(tmp_path / "in" / name, image())
    score_files(Darkness(), [tmp_path / "in"], tmp_path / "out")
    score_files(Darkness(), [tmp_path / "in"], tmp_path / "out", resume=True)
    text = (tmp_path / "out" / "scores.csv").read_bytes().decode()
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert row["path"] == str(tmp_path / "in" / name)


def test_a_table_that_names_the_folder_of_heat_maps_removes_it_not(parts, tmp_path):
    score_files(Darkness(), [parts], tmp_path)
    rows = (tmp_path / "scores.csv").read_text().replace("heat_maps/a.png", "heat_maps")
    (tmp_path / "scores.csv").write_text(rows)
    score_files(Darkness(), [parts], tmp_path)
    assert len(rows_of(tmp_path)) == 3
