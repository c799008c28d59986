"""What one has to read to follow a call: the functions of skad that it passes through.

A small detector is fitted and predicts one image, under a profiler, in all threads. A
function counts with the lines of its body, without the docstring.
"""

import ast
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import skad

PACKAGE = Path(skad.__file__).parent
Walk = dict[str, dict[str, set[int]]]  # lines of the functions of each file


def walk(call: Callable[[], Any]) -> Walk:
    """Return the lines of the functions of skad that a call passes through."""
    passed: set[tuple[str, int]] = set()  # file and first line

    def note(frame: Any, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(str(PACKAGE)):
            passed.add((code.co_filename, code.co_firstlineno))

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    found: Walk = {}
    for file in sorted({file for file, _ in passed}):
        bodies = _bodies(file)
        starts = {line for name, line in passed if name == file}
        functions = {bodies[line][0]: bodies[line][1] for line in starts & set(bodies)}
        if functions:
            found[str(Path(file).relative_to(PACKAGE))] = functions
    return found


def _bodies(file: str) -> dict[int, tuple[str, set[int]]]:
    """Return name and lines of the body of each function, by its first line."""
    found = {}
    for node in ast.walk(ast.parse(Path(file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            lines = {n for s in body for n in range(s.lineno, s.end_lineno + 1)}
            found[first] = f"{node.name}:{first}", lines
    return found


def n_functions(walked: Walk) -> int:
    """Count the functions."""
    return sum(map(len, walked.values()))


def n_lines(walked: Walk) -> int:
    """Count the lines of their bodies; inner functions are part of the outer ones."""
    return sum(len(set().union(*functions.values())) for functions in walked.values())


def walks() -> dict[str, Walk]:
    """Walk through a default fit, and through predict of one image."""
    images = np.random.default_rng(0).integers(90, 110, (20, 32, 32), dtype=np.uint8)
    detector = skad.PatchAutoencoderDetector(
        8, epochs=1, target_fpr=0.2, random_state=0, device="cpu"
    )
    return {
        "fit": walk(lambda: detector.fit(images)),
        "predict": walk(lambda: detector.predict(images[:1])),
    }


def main() -> None:
    """Print a table: functions and lines by file, and the sums."""
    walked = walks()
    print(f"{'':32}" + "".join(f"{name:>20}" for name in walked))
    print(f"{'file':32}" + f"{'functions':>12}{'lines':>8}" * len(walked))
    for file in sorted(set().union(*walked.values())):
        parts = [{file: one[file]} if file in one else {} for one in walked.values()]
        print(f"{file:32}" + "".join(map(_cells, parts)))
    print(f"{'all':32}" + "".join(map(_cells, walked.values())))
    print(f"{'files':32}" + "".join(f"{len(one):>20}" for one in walked.values()))


def _cells(walked: Walk) -> str:
    return f"{n_functions(walked):>12}{n_lines(walked):>8}"


if __name__ == "__main__":
    main()
