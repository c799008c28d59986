"""`skad explain`: why an image has its score."""

import argparse
import io

from skad.cli.commands import check_not_read, load_with_threshold
from skad.common.files import make_room_for, write_atomically
from skad.displays import ExplanationDisplay
from skad.explanations import Explanation, explain
from skad.images.finding import find_images
from skad.images.folder import folder_as_fitted


def run(args: argparse.Namespace) -> int:
    """Run the command, and return its exit code."""
    detector = load_with_threshold(args.model, args.device)
    good = None
    if args.good is not None:
        files = find_images(args.good, recursive=args.recursive)
        good = folder_as_fitted(detector, files)
    if args.output is None:
        print(report(explain(detector, args.image, good)))
        return 0
    read = [args.model, args.image, *(good.paths if good else [])]
    check_not_read(args.output, read)
    picture, drawn = make_room_for(args.output), io.BytesIO()
    display = ExplanationDisplay.from_estimator(detector, args.image, good)
    display.figure_.savefig(drawn, format=picture.suffix[1:] or "png", dpi=100)
    write_atomically(picture, drawn.getvalue())
    print(report(display.explanation))
    print(f"\npicture: {picture}")
    return 0


def report(found: Explanation) -> str:
    """Say it in a sentence, and in a table of evidence and of good patches."""
    width = max(map(len, found.evidence))
    lines = [str(found), "", f"{'evidence at the peak':<{width}}  share  score"]
    for name, share in found.evidence.items():
        score = found.branch_scores.get(name)
        last = "" if score is None else f"{score:>7.1f}"
        lines.append(f"{name:<{width}} {100 * share:>4.0f} %{last}")
    if found.nearest:
        lines += ["", "nearest good patches"]
    for one in found.nearest:
        top, left, bottom, right = one.bbox
        place = f"rows {top} to {bottom - 1}, columns {left} to {right - 1}"
        lines.append(f"{one.path}: {place}, distance {one.distance:.3g}")
    return "\n".join(lines)
