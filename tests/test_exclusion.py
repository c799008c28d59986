"""A person's list of images to leave out is followed to the letter, or refused."""

import os
import re

import numpy as np
import pytest
from image_files import save

import skad
from skad.cli.main import main
from skad.images.exclusion import leave_out


@pytest.fixture
def good(tmp_path, monkeypatch):
    """Twelve files, in a folder below the working directory."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for i in range(12):
        save(tmp_path / f"good/{i:02}.png", rng.integers(90, 110, (24, 24), np.uint8))
    return tmp_path / "good"


def names(images):
    return [path.name for path in images.paths]


@pytest.mark.parametrize(
    "content",
    [
        "path\ngood/01.png\n{good}/03.png\n",
        "\ufeffscore,path\r\n1.5,good/01.png\r\n2,\r\n3,./good/../good/03.png\r\n",
    ],
)
def test_paths_of_a_list_are_left_out(good, content):
    (good.parent / "out.csv").write_text(content.format(good=good), newline="")
    images = skad.ImageFolder("good", exclude="out.csv")
    assert names(images) == [f"{i:02}.png" for i in (0, 2, *range(4, 12))]
    assert len(images) == len(images.frame_sizes) == 10
    assert images.folder.name == "good"


def test_paths_may_be_listed_in_python_and_of_any_name(good):
    odd = good / 'a,"b"\nc.png'
    os.rename(good / "05.png", odd)
    assert odd.name not in names(skad.ImageFolder(good, exclude=[odd]))
    (good.parent / "out.csv").write_text(
        'path\n"{}"\n'.format(str(odd).replace('"', '""'))
    )
    assert len(skad.ImageFolder(good, exclude="out.csv")) == 11


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            "path\ngood/01.png\ngood/x.png\n01.png\n",
            "2 of 3 are not .*: good/x.png, 01",
        ),
        ("file\ngood/01.png\n", "a column \"path\"; out.csv begins with 'file'"),
        ("", 'a column "path"'),
        ("path\n" + "".join(f"good/{i:02}.png\n" for i in range(12)), "all 12 images"),
    ],
)
def test_a_list_that_cannot_be_meant_is_an_error(good, content, words):
    (good.parent / "out.csv").write_text(content)
    with pytest.raises(ValueError, match=f"exclude .*{words}"):
        skad.ImageFolder(good, exclude="out.csv")


def test_links_stay_files_of_their_own(good):
    (good / "link.png").symlink_to(good / "00.png")
    assert names(skad.ImageFolder(good, exclude=[good / "link.png"]))[0] == "00.png"


def test_nothing_is_left_out_without_a_list(good):
    assert leave_out([good / "00.png"], None) == [good / "00.png"]
    with pytest.raises(FileNotFoundError):
        leave_out([good / "00.png"], "missing.csv")


def test_fit_learns_from_the_rest(good, capsys):
    (good.parent / "out.csv").write_text("path\ngood/01.png\n")
    options = ["--epochs", "1", "--patch-size", "8", "--target-fpr", "0.3"]
    call = ["fit", "good", "--model", "m.safetensors", "--exclude", "out.csv"]
    assert main([*call, *options]) == 0
    assert "learning from 11 images" in capsys.readouterr().out
    assert skad.load("m.safetensors").provenance_["n_images"] == 11
    (good.parent / "out.csv").write_text("path\nnew.png\n")
    assert main([*call, *options]) == 2
    assert re.search(r"new\.png.*\(option --exclude\)", capsys.readouterr().err)
