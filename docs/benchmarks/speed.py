"""Compare the speed of skad with yardsticks: python THIS_FILE.

Each figure is the ratio of two times, measured alternately in this process: the median
over several rounds. Images and weights are random, because the time does not depend on
them. With --check, the exit code is 1 if a ratio misses its limit.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import skad
from skad import PatchAutoencoderDetector


class Ratio(NamedTuple):
    """Two things to time, and how their times should compare."""

    name: str
    of: Callable[[], object]
    to: Callable[[], object]
    at_most: float = np.inf
    at_least: float = 0.0


# --- Backbones of other methods, by their papers ---------------------------------


def _conv(n_in: int, n_out: int, side: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(n_in, n_out, side, stride, side // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(n_out))


class Block(nn.Module):
    """A residual block of two 3 x 3 convolutions, or of 1 x 1, 3 x 3 and 1 x 1."""

    def __init__(self, n_in: int, width: int, n_out: int, stride: int) -> None:
        super().__init__()
        relu = nn.ReLU(inplace=True)
        if width == n_out:
            parts = [_conv(n_in, width, 3, stride), relu, _conv(width, n_out, 3)]
        else:
            parts = [_conv(n_in, width, 1), relu, _conv(width, width, 3, stride), relu]
            parts.append(_conv(width, n_out, 1))
        self.body = nn.Sequential(*parts)
        same = stride == 1 and n_in == n_out
        self.skip = nn.Identity() if same else _conv(n_in, n_out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Add what the body makes of x."""
        return F.relu(self.body(x) + self.skip(x))


def _backbone(stages: list[tuple[int, int, int]]) -> nn.Sequential:
    """Make a residual network, cut after its third stage: (blocks, width, channels)."""
    layers = [_conv(3, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    n_in = 64
    for i, (n_blocks, width, n_out) in enumerate(stages):
        for k in range(n_blocks):
            layers.append(Block(n_in, width, n_out, 2 if i and not k else 1))
            n_in = n_out
    return nn.Sequential(*layers).eval().to(memory_format=torch.channels_last)


def wide_resnet_50() -> nn.Sequential:
    """PatchCore's backbone: Zagoruyko and Komodakis (2016), width factor 2."""
    return _backbone([(3, 128, 256), (4, 256, 512), (6, 512, 1024)])


def resnet_18() -> nn.Sequential:
    """PaDiM's smaller backbone: He et al. (2016)."""
    return _backbone([(2, 64, 64), (2, 128, 128), (2, 256, 256)])


# --- What is compared ------------------------------------------------------------


def detector_for(images: np.ndarray) -> PatchAutoencoderDetector:
    """Return a detector that has seen enough to score, and no more."""
    settings = {"epochs": 1, "batch_size": 2, "target_fpr": 0.5, "random_state": 0}
    return PatchAutoencoderDetector(**settings).fit(images)


def random_input(n: int) -> Tensor:
    """Return what a network takes for n colour images, (n, 3, 256, 256)."""
    return torch.randn(n, 3, 256, 256).contiguous(memory_format=torch.channels_last)


def ratios_of_scoring(
    detector: PatchAutoencoderDetector, images: np.ndarray
) -> list[Ratio]:
    """Scoring of 64 images against the network's forward pass, and backbones."""
    network, x = detector.network_, random_input(len(images))
    wide, narrow = wide_resnet_50(), resnet_18()

    def forward(net: nn.Module, n: int) -> Callable[[], object]:
        return torch.inference_mode()(lambda: net(x[:n]))

    def score(n: int) -> Callable[[], object]:
        return lambda: detector.score_samples(images[:n])

    bare = forward(network, 64)
    return [
        Ratio("score_samples of 64 images / forward pass", score(64), bare, 1.15),
        Ratio(
            "anomaly_map of 64 images / forward pass",
            lambda: detector.anomaly_map(images),
            bare,
            1.3,
        ),
        Ratio(
            "score_samples of 1 image / forward pass",
            score(1),
            forward(network, 1),
            1.5,
        ),
        Ratio(
            "forward pass of WideResNet-50, 8 images / score_samples",
            forward(wide, 8),
            score(8),
            at_least=20,
        ),
        Ratio(
            "forward pass of ResNet-18, 8 images / score_samples",
            forward(narrow, 8),
            score(8),
            at_least=5,
        ),
    ]


def python(*args: str | Path) -> Callable[[], object]:
    """Return a call of a new Python process."""
    command = [sys.executable, *map(str, args)]
    return lambda: subprocess.run(command, check=True, capture_output=True)


def ratios_of_starting(
    detector: PatchAutoencoderDetector, image: np.ndarray, folder: Path
) -> list[Ratio]:
    """Commands against what they need at least."""
    skad.save(detector, folder / "model.safetensors")
    Image.fromarray(image).save(folder / "part.png")
    score = ("score", folder / "model.safetensors", folder / "part.png")
    nothing = python("-c", "pass")
    return [
        Ratio("python: import skad / nothing", python("-c", "import skad"), nothing),
        Ratio("skad --help / nothing", python("-m", "skad", "--help"), nothing),
        Ratio(
            "skad score, one image / import torch, sklearn",
            python("-m", "skad", *score, "--output", folder / "scores"),
            python("-c", "import torch, sklearn"),
            1.2,
        ),
    ]


# --- Measuring -------------------------------------------------------------------


def seconds(what: Callable[[], object]) -> float:
    """Time one call."""
    start = time.perf_counter()
    what()
    return time.perf_counter() - start


def measure(ratio: Ratio, rounds: int) -> tuple[float, float]:
    """Return the median ratio, and the median seconds of what is measured."""
    ratio.of(), ratio.to()
    pairs = [(seconds(ratio.of), seconds(ratio.to)) for _ in range(rounds)]
    return (
        statistics.median(of / to for of, to in pairs),
        statistics.median(of for of, _ in pairs),
    )


def operations(what: Callable[[], object]) -> int:
    """Count the arithmetic of one call."""
    with FlopCounterMode(display=False) as counter:
        what()
    return counter.get_total_flops()


def share_of_peak(network: nn.Module, rounds: int) -> float:
    """Compare the network's arithmetic, forward, with that of a large product."""
    x, a = random_input(1), torch.randn(2048, 2048)

    def rate(what: Callable[[], object]) -> float:
        times = [seconds(what) for _ in range(rounds)]
        return operations(what) / statistics.median(times)

    with torch.inference_mode():
        return rate(lambda: network(x)) / rate(lambda: a @ a)


def wanted(ratio: Ratio) -> str:
    """Say what a ratio should be."""
    if ratio.at_least:
        return f"≥ {ratio.at_least:g}"
    return "" if ratio.at_most == np.inf else f"≤ {ratio.at_most:g}"


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, help="torch's (default: as it is)")
    parser.add_argument("--check", action="store_true", help="fail beyond a limit")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    print(f"Threads: {torch.get_num_threads()}\n")
    print("| what | ratio | wanted | seconds |\n|---|---:|---:|---:|")
    beyond = 0
    images = np.random.default_rng(0).integers(0, 256, (64, 256, 256, 3), np.uint8)
    detector = detector_for(images[:8])
    with tempfile.TemporaryDirectory() as folder:
        starting = ratios_of_starting(detector, images[0], Path(folder))
        for ratio in ratios_of_scoring(detector, images) + starting:
            value, of = measure(ratio, args.rounds)
            beyond += not ratio.at_least <= value <= ratio.at_most
            row = f"| {ratio.name} | {value:.2f} | {wanted(ratio)} | {of:.3f} |"
            print(row, flush=True)
    share = share_of_peak(detector.network_, args.rounds)
    print(f"\nThe network reaches {share:.0%} of the rate of a large matrix product.")
    sys.exit(1 if args.check and beyond else 0)


if __name__ == "__main__":
    main()
