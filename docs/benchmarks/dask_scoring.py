"""Score many tiles on two Dask workers and in one process; prints a Markdown table.

usage: python docs/benchmarks/dask_scoring.py [N]

N tiles (default: 20000) of photographed bricks, 64 x 64, are scored three times: by
skad score in one process with two threads; by two worker processes with one thread
each; and by these again, of which one is killed with SIGKILL in the middle. Starting
Python and loading the model do not count: a run over few tiles takes them off.
"""

import csv
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from distributed import Client, LocalCluster
from PIL import Image
from pyarrow import parquet

import skad
from skad.datasets import load_surfaces
from skad.distributed import DATA_SET, score

FEW = 32  # tiles


def make(folder, n):
    """Write N tiles, and the model of others; return the files."""
    surfaces = load_surfaces(tile_size=64, n_test=n, n_calibration=60)
    detector = skad.PatchAutoencoderDetector(
        16, epochs=15, target_fpr=0.1, device="cpu"
    )
    detector.fit(surfaces.train).calibrate(surfaces.calibration)
    skad.save(detector, folder / "part.safetensors")
    files = [folder / "tiles" / f"{i:06}.png" for i in range(n)]
    files[0].parent.mkdir()
    for file, tile in zip(files, surfaces.test, strict=True):
        Image.fromarray(tile).save(file)
    return files


def alone(folder, source, output):
    """Run skad score with two threads; return its seconds."""
    command = [sys.executable, "-m", "skad", "score", folder / "part.safetensors"]
    options = [source, "--no-heat-maps", "--output", output]
    start = time.perf_counter()
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    subprocess.run([*command, *options], env=environment, check=True)
    return time.perf_counter() - start


def together(folder, files, output, client, *, kill=False):
    """Score on the workers, and kill one half-way; return the seconds."""

    def wait_and_kill():
        parts = Path(output, DATA_SET)
        while len(list(parts.glob("*.parquet"))) < len(files) / 200 / 2:
            time.sleep(0.01)
        os.kill(pids[0], signal.SIGKILL)

    pids = list(client.run(os.getpid).values())
    if kill:
        threading.Thread(target=wait_and_kill, daemon=True).start()
    start = time.perf_counter()
    score(folder / "part.safetensors", files, output, client)
    return time.perf_counter() - start


def told(rows):
    """Return rows as the text of a CSV table has them."""
    return [["" if v is None else str(v) for v in row.values()] for row in rows]


def compare(output, table):
    """Return rows, duplicates, and those that differ from the table."""
    rows = sorted(told(parquet.read_table(output / DATA_SET).to_pylist()))
    with (table / "scores.csv").open(newline="") as file:
        expected = [list(row.values()) for row in csv.DictReader(file)]
    different = sum(a != b for a, b in zip(rows, sorted(expected), strict=False))
    return len(rows), len(rows) - len({row[0] for row in rows}), different


def main():
    """Print the table."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with multiprocessing.get_context("spawn").Pool(1) as pool:  # keeps memory low
            files = pool.apply(make, (folder, n))
        few = alone(folder, *files[:1], folder / "few")
        seconds = alone(folder, files[0].parent, folder / "alone") - few
        memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # kB on Linux
        print("| | images/s | rows | twice | different | peak memory, each process |")
        print("|---|--:|--:|--:|--:|--:|")
        rate = f"{n / seconds:.0f}"
        print(f"| alone | {rate} | {n} | | | {memory / 1e3:.0f} MB |", flush=True)
        options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}
        with LocalCluster(**options) as cluster, Client(cluster) as client:
            for i in range(0, FEW, 4):
                together(folder, files[i : i + 4], folder / f"few-{i}", client)
            for name, kill in (("two workers", False), ("one is killed", True)):
                output = folder / name
                seconds = together(folder, files, output, client, kill=kill)
                found = compare(output, folder / "alone")
                peaks = client.run(resource.getrusage, resource.RUSAGE_SELF).values()
                memory = max(peak.ru_maxrss for peak in peaks)
                cells = [f"{n / seconds:.0f}", *map(str, found)]
                print(
                    f"| {name} | {' | '.join(cells)} | {memory / 1e3:.0f} MB |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
