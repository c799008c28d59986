"""Measure the memory that small and large folders take: python THIS_FILE.

`skad fit` trains for one epoch on a folder of colour images of 512 x 512, and
`skad score` scores a folder of 256 x 256, without heat maps. Those to score are links
to a few images, but each is read and decoded. Linux or macOS.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

N_DIFFERENT = 20  # of the images to score
TRAINED, SCORED = [400, 4000], [1000, 10000]  # images


def write_folder(folder: Path, n: int, side: int, n_different: int) -> Path:
    """Make a folder of n JPEG files, links to so many different images of noise."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(n):
        file = folder / f"{i:05}.jpg"
        if i < n_different:
            coarse = rng.integers(60, 200, (side // 8, side // 8, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((side, side), Image.BICUBIC).save(file)
        else:
            os.link(folder / f"{i % n_different:05}.jpg", file)
    return folder


def fit(folder: Path, model: Path) -> float:
    """Train for one epoch; return the peak memory."""
    return peak_memory("fit", folder, "--model", model, "--epochs", "1")


def score(model: Path, folder: Path) -> float:
    """Score without heat maps; return the peak memory."""
    output = folder.with_name(f"{folder.name}-scores")
    return peak_memory("score", model, folder, "--output", output, "--no-heat-maps")


def peak_memory(*arguments: str | Path) -> float:
    """Run `skad` with these arguments; return its peak memory in MB of 10^6 bytes."""
    command = [sys.executable, "-m", "skad", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, else KiB
    return usage.ru_maxrss * unit / 1e6


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trained", type=int, nargs="+", default=TRAINED)
    parser.add_argument("--scored", type=int, nargs="+", default=SCORED)
    args = parser.parse_args()
    print("| what | images | peak memory, MB |\n|---|---:|---:|")
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        for n in args.trained:
            folder = write_folder(root / f"train-{n}", n, 512, n)
            peak = fit(folder, root / f"train-{n}.safetensors")
            print(f"| skad fit, one epoch, 512 x 512 | {n} | {peak:.0f} |", flush=True)
        model = root / "model.safetensors"
        fit(write_folder(root / "few", 40, 256, 40), model)
        for n in args.scored:
            folder = write_folder(root / f"score-{n}", n, 256, N_DIFFERENT)
            peak = score(model, folder)
            print(f"| skad score, 256 x 256 | {n} | {peak:.0f} |", flush=True)


if __name__ == "__main__":
    main()
