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
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from sklearn.base import clone
from torch import Tensor, nn

import skad
from skad.benchmark import figures_of_pixels, find_categories, load_category
from skad.detectors import learning as _learning
from skad.metrics import image_auroc_score
from skad.network.model import fold
from skad.scoring import anomaly_map as _anomaly_map
from skad.scoring import fitting as _fitting
from skad.scoring import fusion as _fusion
from skad.scoring import gaussians as _gaussians
from skad.scoring import neighbours as _neighbours
from skad.scoring.network_branches import STRIDES

METHOD = "the method"
OF_NETWORK = (
    "segmentation decoder",
    *(f"Gaussians at stride {stride}" for stride in STRIDES),
    "reconstruction error",
)
OF_ENCODER = ("neighbours of the encoder", "Gaussians of the encoder")
Part = Callable[[], AbstractContextManager]


def remembered(compute: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    """Return a function that computes what it returns for the same images once."""
    found: dict[bytes, Any] = {}

    def remember(x: Tensor) -> Any:
        key = x.numpy().tobytes()
        if key not in found:
            found[key] = compute(x)
        return found[key]

    return remember


def with_weights(branch: int | None, whole: float) -> AbstractContextManager:
    """Leave a branch out, and multiply the weight of the whole image."""

    def changed(*parts: bool) -> tuple[list[float], float]:
        weights, of_whole = _fusion.weights_of(*parts)
        if branch is not None:
            weights[branch] = 0.0
        return weights, whole * of_whole

    return patch.object(_anomaly_map, "weights_of", changed)


def _no_context(pairs: Iterable[Any]) -> None:
    for _ in pairs:  # threads that compute them end
        pass


@contextmanager
def of_all_images() -> Iterator[None]:
    """Calibrate by values of the images that Gaussians and neighbours are of."""

    def gaussians(folds: Tensor) -> tuple[Any, list[Any]]:
        found, _ = _gaussians.fit_gaussians(folds)
        return found, [found] * len(folds)

    def neighbours(candidates: Any) -> tuple[Any, list[Any]]:
        found, others = choose(candidates)
        return found, [found] * len(others)

    choose = _neighbours.Candidates.choose
    with (
        patch.object(_fitting, "fit_gaussians", gaussians),
        patch.object(_neighbours.Candidates, "choose", neighbours),
    ):
        yield


def parts_of(with_network: bool, with_encoder: bool) -> dict[str, Part]:
    """Return what switches off one part, by its name."""
    branches = OF_NETWORK * with_network + OF_ENCODER * with_encoder
    parts: dict[str, Part] = {METHOD: ExitStack}
    parts |= {name: partial(with_weights, i, 1.0) for i, name in enumerate(branches)}
    parts["whole image"] = partial(with_weights, None, 0.0)
    if with_network:
        parts["context"] = lambda: patch.object(_fitting, "fit_context", _no_context)
    return parts | {
        "a Gaussian per position": lambda: patch.object(_gaussians, "_SHRINKAGE", 1.0),
        "tails of held-out images": of_all_images,
    }


class _CapturedError(Exception):
    """Ends a fit."""


def arguments_of_fit(detector: Any, train: np.ndarray) -> tuple:
    """Return what `fit_mapper` is given when a stored detector is fitted."""
    given: list[tuple] = []

    def take(network: nn.Module, *_: object, **__: object) -> list[dict]:
        network.load_state_dict(detector.network_.state_dict())
        network.eval()
        return []

    def capture(*args: Any) -> None:
        given.append(args)
        raise _CapturedError

    with (
        patch.object(_learning, "train", take),
        patch.object(_learning, "fit_mapper", capture),
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
    network, *_, encoder = args
    folded = None if network is None else fold(network)
    if folded is not None:
        folded.forward = remembered(folded.forward)
        folded.encode = remembered(folded.encode)
    if encoder is not None:
        encoder.forward = remembered(encoder.forward)
    found = {}
    for name, switched_off in parts_of(folded is not None, encoder is not None).items():
        with (
            switched_off(),
            patch.object(_fitting, "fold", lambda _: folded),
            patch.object(_anomaly_map, "fold", lambda _: folded),
        ):
            mapper, _ = _fitting.fit_mapper(*args)
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
    for part in next(iter(of_sets.values())):
        cells = ["{:.3f} / {:.3f}".format(*found[part]) for found in of_sets.values()]
        gains = (gain(list(of_sets.values()), part, i) for i in (0, 1))
        cells.append("{:+.3f} / {:+.3f}".format(*gains))
        without = part if part == METHOD else f"without {part}"
        print(f"| {without} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
