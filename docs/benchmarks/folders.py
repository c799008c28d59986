"""Measure the memory that small and large folders take: python THIS_FILE.

Each run has a process of its own. It trains for one epoch on a folder of colour images
of 512 x 512, or scores a folder of 256 x 256 from the command line, and reports its
peak memory. The files are links to a few images, but each is read and decoded.
"""

import argparse
import contextlib
import io
import multiprocessing
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from skad.benchmark.runs import peak_memory_mb

N_DIFFERENT = 20
TRAINED, SCORED = (400, 4000), (1000, 10000)  # images


def write_folder(folder: Path, n: int, side: int) -> Path:
    """Make a folder of n JPEG files, links to N_DIFFERENT images of noise."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(n):
        file = folder / f"{i:05}.jpg"
        if i < N_DIFFERENT:
            coarse = rng.integers(60, 200, (side // 8, side // 8, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((side, side), Image.BICUBIC).save(file)
        else:
            os.link(folder / f"{i % N_DIFFERENT:05}.jpg", file)
    return folder


def train(folder: Path, model: Path) -> None:
    """Fit on the folder for one epoch, and store the detector."""
    import skad

    detector = skad.PatchAutoencoderDetector(epochs=1, random_state=0)
    skad.save(detector.fit(skad.ImageFolder(folder)), model)


def score(folder: Path, model: Path) -> None:
    """Score the folder as the command line does, without pictures."""
    from skad.__main__ import main

    output = folder.with_name(f"{folder.name}-scores")
    with contextlib.redirect_stdout(io.StringIO()):
        options = ["--output", str(output), "--no-heat-maps"]
        assert main(["score", str(model), str(folder), *options]) == 0


def peak_memory(what: Callable[..., None], *args: object) -> float:
    """Run something in a new process; return its peak memory in MB of 10^6 bytes."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_after, (what, *args))


def _peak_after(what: Callable[..., None], *args: object) -> float:
    what(*args)
    return peak_memory_mb()


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args()
    print("| what | images | peak memory, MB |\n|---|---:|---:|")
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        for n in TRAINED:
            folder = write_folder(root / f"train-{n}", n, 512)
            peak = peak_memory(train, folder, root / "unused.safetensors")
            print(f"| fit, one epoch, 512 x 512 | {n} | {peak:.0f} |", flush=True)
        model = root / "model.safetensors"
        train(write_folder(root / "few", 40, 256), model)
        for n in SCORED:
            folder = write_folder(root / f"score-{n}", n, 256)
            peak = peak_memory(score, folder, model)
            print(f"| skad score, 256 x 256 | {n} | {peak:.0f} |", flush=True)


if __name__ == "__main__":
    main()
