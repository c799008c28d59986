"""Size and memory of reports; prints a Markdown table.

usage: python docs/benchmarks/report_size.py MODEL FOLDER [N ...]

A report about N images (default: 200 1000 10000) lists the files of the folder again
and again. Each is written in a process of its own, for its peak memory.
"""

import multiprocessing
import resource
import sys
import tempfile
from itertools import cycle, islice
from pathlib import Path

import skad
from skad.images.finding import find_images


def measure(model, folder, n):
    """Write a report; return its pictures, bytes and peak memory in kB."""
    files = list(islice(cycle(find_images(folder, recursive=True)), n))
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary, "report.html")
        skad.write_report(skad.load(model), files, path)
        page = path.read_text(encoding="utf-8")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kB on Linux
    return page.count('class="card"'), len(page), peak


def main():
    """Print the table."""
    numbers = [int(n) for n in sys.argv[3:]] or [200, 1000, 10_000]
    print("| images | pictures | file | peak memory |\n|--:|--:|--:|--:|", flush=True)
    for n in numbers:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            pictures, size, peak = pool.apply(measure, (*sys.argv[1:3], n))
        print(f"| {n} | {pictures} | {size / 1e6:.1f} MB | {peak / 1e3:.0f} MB |")


if __name__ == "__main__":
    main()
