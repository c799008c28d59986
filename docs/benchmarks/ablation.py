"""Measure what each part of the scoring adds: python THIS_FILE ROOT --models FOLDER.

FOLDER holds detectors that `skad benchmark ROOT --models FOLDER` has stored. For each,
the scoring is fitted anew, to the images that it was fitted to, with all parts and
without one of them at a time; the network stays as it is, and its outputs are computed
once. The table has image AUROC / AU-PRO for every set. The gain of a part is the mean
over sets, without the set that gains most.
"""

import argparse
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from sklearn.base import clone
from torch import Tensor, nn

import skad
from skad.benchmark import figures_of_pixels, find_categories, load_category
from skad.detectors import patch as _patch
from skad.metrics import image_auroc_score
from skad.network.model import fold
from skad.scoring import anomaly_map as _anomaly_map
from skad.scoring import fitting as _fitting
from skad.scoring import gaussians as _gaussians

METHOD = "the method"
BRANCHES = (
    "segmentation decoder",
    *(f"Gaussians at stride {stride}" for stride in _anomaly_map.STRIDES),
    "reconstruction error",
)


class Remembered(nn.Module):
    """A folded network that computes its outputs for the same images once."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = fold(network)
        self._found: dict[tuple, Any] = {}

    def _remember(self, compute: Callable[[Tensor], Any], x: Tensor) -> Any:
        key = (compute.__name__, x.numpy().tobytes())
        if key not in self._found:
            self._found[key] = compute(x)
        return self._found[key]

    def forward(self, x: Tensor) -> Any:
        """Return all outputs."""
        return self._remember(self.network.forward, x)

    def encode(self, x: Tensor) -> Any:
        """Return the features."""
        return self._remember(self.network.encode, x)


def without_branch(i: int) -> AbstractContextManager:
    """Leave a branch out."""
    weights = list(_anomaly_map.WEIGHTS)
    weights[i] = 0.0
    return patch.object(_anomaly_map, "WEIGHTS", tuple(weights))


def _no_context(pairs: Iterable[Any]) -> None:
    for _ in pairs:  # threads that compute them end
        pass


# What switches off one part.
PARTS: dict[str, Callable[[], AbstractContextManager]] = {
    METHOD: ExitStack,
    **{name: lambda i=i: without_branch(i) for i, name in enumerate(BRANCHES)},
    "context": lambda: patch.object(_fitting, "fit_context", _no_context),
    "a Gaussian per position": lambda: patch.object(_gaussians, "_SHRINKAGE", 1.0),
    "tails of held-out images": lambda: patch.object(
        _fitting, "fit_gaussians", _of_all_images
    ),
}


def _of_all_images(folds: Tensor) -> tuple[Any, list[Any]]:
    gaussians, _ = _gaussians.fit_gaussians(folds)
    return gaussians, [gaussians]


class _CapturedError(Exception):
    """Ends a fit."""


def arguments_of_fit(detector: Any, train: np.ndarray) -> tuple:
    """Return what `fit_mapper` is given when a stored detector is fitted."""
    given: list[tuple] = []

    def take(network: nn.Module, *_: object, **__: object) -> Iterator[dict]:
        network.load_state_dict(detector.network_.state_dict())
        network.eval()
        return iter(())

    def capture(*args: Any) -> None:
        given.append(args)
        raise _CapturedError

    with (
        patch.object(_patch, "train", take),
        patch.object(_patch, "fit_mapper", capture),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", UserWarning)  # thresholds play no part here
        try:
            clone(detector).fit(train)
        except _CapturedError:
            pass
    return given[0]


def figures(path: Path, folder: Path) -> dict[str, tuple[float, float]]:
    """Return image AUROC and AU-PRO of the method, and without each of its parts."""
    category = load_category(folder)
    test = category.test if category.test.ndim == 4 else category.test[..., np.newaxis]
    args = arguments_of_fit(skad.load(path, device="cpu"), category.train)
    remembered = Remembered(args[0])
    found = {}
    for name, switched_off in PARTS.items():
        with (
            switched_off(),
            patch.object(_fitting, "fold", lambda _: remembered),
            patch.object(_anomaly_map, "fold", lambda _: remembered),
        ):
            mapper = _fitting.fit_mapper(*args)
            maps = np.concatenate([mapper(image) for image in test[:, np.newaxis]])
        scores = -maps.max((1, 2))
        au_pro = figures_of_pixels(category.masks, maps)["au_pro"]
        found[name] = image_auroc_score(category.y, scores), au_pro
    return found


def gain(of_sets: list[dict[str, tuple[float, float]]], part: str, i: int) -> float:
    """Return the mean gain by a part, over all sets but the one that gains most."""
    gains = np.array([found[METHOD][i] - found[part][i] for found in of_sets])
    gains = np.sort(gains[~np.isnan(gains)])
    return float(gains[:-1].mean()) if len(gains) > 1 else float("nan")


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, metavar="ROOT")
    parser.add_argument("--models", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--categories", nargs="+", metavar="NAME")
    args = parser.parse_args()
    of_sets = {}
    for folder in find_categories(args.root, args.categories):
        for seed in args.seeds:
            name = f"{folder.name}-{seed}"
            path = args.models / f"{name}.safetensors"
            of_sets[name] = figures(path, folder)
    print(f"| | {' | '.join(of_sets)} | gain |\n|---|{'---:|' * (len(of_sets) + 1)}")
    for part in PARTS:
        cells = ["{:.3f} / {:.3f}".format(*found[part]) for found in of_sets.values()]
        gains = (gain(list(of_sets.values()), part, i) for i in (0, 1))
        cells.append("{:+.3f} / {:+.3f}".format(*gains))
        without = part if part == METHOD else f"without {part}"
        print(f"| {without} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
