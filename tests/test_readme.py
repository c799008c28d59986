"""What the README shows is run, on small images and with few epochs."""

import re
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

import skad
from skad import PatchAutoencoderDetector

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [
    "docs/coming_from_the_old_script.md",
    "docs/pretrained.md",
    "docs/monitor.md",
    "docs/explain.md",
]


def snippets_of(text):
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


SNIPPETS = snippets_of(README)


# White and red are unlike gray noise, and skad says so.
UNLIKE = pytest.mark.filterwarnings("ignore:These images are unlike those that set")


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """The folders that the snippets name, with 40 good images and 2 others in each."""
    rng = np.random.default_rng(0)
    for folder, n in (("parts/good", 40), ("parts/new", 2), ("Dataset/Train", 40)):
        (tmp_path / folder).mkdir(parents=True)
        for i in range(n):
            pixels = rng.integers(90, 110, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / f"{i}.jpg")
    (tmp_path / "Dataset/Test").mkdir()
    Image.new("RGB", (40, 40), "red").save(tmp_path / "Dataset/Test/red.jpg")
    monkeypatch.chdir(tmp_path)
    defaults = PatchAutoencoderDetector.__init__.__kwdefaults__
    monkeypatch.setitem(defaults, "epochs", 1)
    monkeypatch.setitem(defaults, "target_fpr", 0.1)
    return tmp_path


def small(snippet):
    """The snippet with small images and one epoch in the places that say otherwise."""
    for shown, quick in (
        ("image_size=256", "image_size=32"),
        ("target_fpr=0.05", "target_fpr=0.1"),
        ('AD("AD1")', 'AD("AD1", img_size=(32, 32), patch_size=8)'),
        ("ad.train(75)", "ad.train(1)"),
    ):
        snippet = snippet.replace(shown, quick)
    return snippet


def test_ten_lines_of_python(parts, capsys):
    names = {}
    exec(small(SNIPPETS[0]), names)
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed] == ["0.jpg", "1.jpg"]
    assert (parts / "part.safetensors").exists()
    assert (parts / "first.png").exists()
    exec(SNIPPETS[1], names)
    assert names["detector"].fit(names["good"]).network_ is None


@UNLIKE
def test_on_a_line(parts):
    ten_lines, line = {}, {}
    exec(small(SNIPPETS[0]), ten_lines)
    exec(SNIPPETS[2], line)
    bad = np.full((80, 90, 3), 250, np.uint8)
    for i in range(2):
        frame = skad.read_image(f"parts/new/{i}.jpg")
        is_good = ten_lines["detector"].predict(ten_lines["new"][i][None])[0] == 1
        verdict, boxes = line["inspect"](frame)
        assert (verdict == "good") == is_good == (not boxes)
    verdict, boxes = line["inspect"](bad)
    assert verdict == "anomalous"
    assert np.max(boxes, axis=0)[2:].tolist() == [80, 90]


@UNLIKE
def test_the_old_scripts_calls(parts):
    (snippet,) = SNIPPETS[3:]
    exec(small(snippet), {})
    assert (parts / "Models/model.safetensors").exists()
    assert (parts / "Output/red.jpg").exists()


class SomeOfTimm:
    """What the page on encoders shows of timm, with a small network."""

    class Network(torch.nn.Sequential):
        pretrained_cfg: ClassVar = {"mean": (0.5, 0.4, 0.5), "std": (0.2, 0.2, 0.2)}

        def forward(self, x):
            return [super().forward(x)]

    def create_model(self, name, pretrained, features_only):
        return self.Network(torch.nn.Conv2d(3, 4, 8, 8), torch.nn.BatchNorm2d(4))


@pytest.mark.filterwarnings("ignore:target_fpr=0.1 cannot be promised")
def test_the_page_on_encoders(parts, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "timm", SomeOfTimm())
    names = {}
    for snippet in snippets_of((ROOT / PAGES[1]).read_text(encoding="utf-8")):
        exec(small(snippet), names)
    assert capsys.readouterr().out.split() == ["None", "nan", str(1 / 3)]
    assert names["detector"].network_ is not None
    assert names["own"].encoder is names["encoder"]


def test_the_page_on_explanations(parts, capsys):
    exec(small(SNIPPETS[0]), {})
    capsys.readouterr()
    (snippet,) = snippets_of((ROOT / PAGES[3]).read_text(encoding="utf-8"))
    exec(snippet, {})
    said = capsys.readouterr().out
    assert "The closest good patch is in parts/good/" in said
    assert (parts / "why.png").exists()


def test_the_test_command_is_the_one_of_the_gate():
    gate = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert 'pip install -c constraints.txt -e ".[test]" && python -m pytest' in README
    assert 'pip install --quiet -c constraints.txt -e ".[test]"' in gate
    assert "python -m pytest" in gate
