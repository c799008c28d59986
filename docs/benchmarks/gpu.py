"""Measure training and scoring on a GPU against its peak rate: python THIS_FILE.

Uses colour images of 256 x 256 in main memory; weights and images are random, because
the time does not depend on them. Shares are relative to the arithmetic rate of a large
bfloat16 matrix product. Then trains a detector on the GPU and compares its maps there
with its maps on the CPU.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from speed import operations, random_input, seconds

import skad
from skad import PatchAutoencoderDetector
from skad.datasets import load_surfaces

EPOCHS = 10  # of training, timed after another


def duration(what: Callable[[], object], device: torch.device, rounds: int) -> float:
    """Return the median seconds until a device has done what it was told."""

    def finish() -> None:
        what()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    finish()
    return statistics.median(seconds(finish) for _ in range(rounds))


def peak(device: torch.device, rounds: int, side: int) -> float:
    """Return the operations a second of a large matrix product in bfloat16."""
    a = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    return operations(lambda: a @ a) / duration(lambda: a @ a, device, rounds)


def seconds_of_an_epoch(images: np.ndarray, batch_size: int, device: str) -> float:
    """Return the seconds by which `fit` takes longer for one more epoch."""

    def fit(epochs: int) -> None:
        PatchAutoencoderDetector(
            epochs=epochs, batch_size=batch_size, random_state=0, device=device
        ).fit(images)

    fit(1)
    return (seconds(lambda: fit(1 + EPOCHS)) - seconds(lambda: fit(1))) / EPOCHS


def compare_with_cpu(device: str, epochs: int) -> None:
    """Print how far the maps of one detector are apart on the two devices."""
    tiles = load_surfaces("brick", random_state=0)
    there = PatchAutoencoderDetector(epochs=epochs, random_state=0, device=device)
    time = seconds(lambda: there.fit(tiles.train))
    with tempfile.TemporaryDirectory() as folder:
        skad.save(there, Path(folder, "model.safetensors"))
        here = skad.load(Path(folder, "model.safetensors"), device="cpu")
    expected = here.anomaly_map(tiles.test)
    peaks = expected.max((1, 2))
    print(f"\nTraining on {len(tiles.train)} tiles: {time:.1f} s")
    for allowed in (True, False):
        torch.backends.cudnn.allow_tf32 = allowed
        maps = there.anomaly_map(tiles.test)
        of_scores = np.abs(maps.max((1, 2)) / peaks - 1).max()
        of_maps = np.abs(maps - expected).max() / np.median(peaks)
        print(
            f"TF32 {'as torch has it' if allowed else 'switched off'}: scores differ "
            f"from the CPU's by up to {of_scores:.1e} of their value, maps by up to "
            f"{of_maps:.1e} of an image's usual peak"
        )


def main() -> None:
    """Print a Markdown table, and how the devices compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=512, help="at least 100")
    parser.add_argument("--epochs", type=int, default=75)
    args = parser.parse_args()
    device = torch.device(args.device)
    on_gpu = device.type == "cuda"
    rate = peak(device, args.rounds, 8192 if on_gpu else 512)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (args.images, 256, 256, 3), np.uint8)
    detector = PatchAutoencoderDetector(epochs=1, random_state=0, device=args.device)
    network, x = detector.fit(images).network_, random_input(64).to(device)
    n_training = detector.provenance_["n_training"]
    with torch.inference_mode():
        of_an_image = operations(lambda: network(x[:1]))  # forward
    name = torch.cuda.get_device_name(device) if on_gpu else "CPU"
    print(f"{name}, torch {torch.__version__}: {rate / 1e12:.3g} TFLOP/s in bfloat16\n")
    print("| what | images a second | share of the peak |\n|---|---:|---:|")

    def row(what: str, n: int, time: float, factor: int = 1) -> None:
        share = n * factor * of_an_image / time / rate
        print(f"| {what} | {n / time:.0f} | {share:.2%} |", flush=True)

    forward = torch.inference_mode()(lambda: network(x))
    row(f"forward pass of {len(x)}", len(x), duration(forward, device, args.rounds))
    for n in (len(images), 1):
        time = duration(
            lambda n=n: detector.score_samples(images[:n]), device, args.rounds
        )
        row(f"score_samples of {n}", n, time)
    time = duration(lambda: detector.anomaly_map(images), device, args.rounds)
    row(f"anomaly_map of {len(images)}", len(images), time)
    for n in (16, 64):
        time = seconds_of_an_epoch(images, n, args.device)
        row(f"fit, batches of {n}", n_training, time, factor=3)  # backward: 2 x forward
    compare_with_cpu(args.device, args.epochs)


if __name__ == "__main__":
    main()
