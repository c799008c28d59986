"""Compare exported detectors with those that they were made from: python THIS_FILE ROOT
--models FOLDER.

FOLDER holds SET-SEED.safetensors, as `skad benchmark ROOT --models FOLDER` stores them,
and the exported SET-SEED.onnx beside each. For each set, `skad score` and `python -m
skad.runtime score` score its test images. Then both score one image of the first set,
in turn, each in a process of its own: the ratio of two cold starts.
"""

import argparse
import csv
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMANDS = {".onnx": "skad.runtime", ".safetensors": "skad"}


def score(model: Path, images: Path, output: Path) -> float:
    """Score images by the command for a model, and return the seconds that it takes."""
    command = [sys.executable, "-m", COMMANDS[model.suffix], "score", model, images]
    options = ["--recursive", "--no-heat-maps", "--output", output]
    start = time.perf_counter()
    subprocess.run([*command, *options], check=True, capture_output=True)
    return time.perf_counter() - start


def read(output: Path) -> list[dict[str, str]]:
    """Return the rows of a table of scores."""
    with (output / "scores.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def compare(model: Path, images: Path, folder: Path) -> str:
    """Return the row of a set: verdicts that differ, and how far scores are apart."""
    for path in (model.with_suffix(".onnx"), model):
        score(path, images, folder / path.suffix)
    pairs = list(
        zip(read(folder / ".onnx"), read(folder / ".safetensors"), strict=True)
    )
    names = ("path", "verdict", "p_value", "n_regions", "row_min", "col_min")
    apart = [sum(a[name] != b[name] for a, b in pairs) for name in names[1:4]]
    off = max(
        abs(float(a["score"]) / float(b["score"]) - 1)
        for a, b in pairs
        if float(b["score"])
    )
    cells = [model.stem, len(pairs), *apart, f"{off:.1e}"]
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    """Print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, metavar="ROOT")
    parser.add_argument("--models", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    models = sorted(
        path.with_suffix(".safetensors") for path in args.models.glob("*.onnx")
    )
    tests = [args.root / model.stem.rpartition("-")[0] / "test" for model in models]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        print(
            "| set | images | other verdicts | other p-values | other numbers of "
            "regions | scores differ by |\n|---|---:|---:|---:|---:|---:|"
        )
        for model, images in zip(models, tests, strict=True):
            print(compare(model, images, folder), flush=True)
        image, model = next(tests[0].rglob("*.*")), models[0]
        times = [
            (
                score(model.with_suffix(".onnx"), image, folder),
                score(model, image, folder),
            )
            for _ in range(args.rounds)
        ]
    ratio = statistics.median(ours / theirs for ours, theirs in times)
    ours, theirs = map(statistics.median, zip(*times, strict=True))
    print(f"\nOne image, cold: {ours:.2f} s / {theirs:.2f} s = {ratio:.2f}")


if __name__ == "__main__":
    main()
