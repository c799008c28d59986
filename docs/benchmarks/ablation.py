"""Measure what each kind of evidence adds: python THIS_FILE ROOT --models FOLDER.

ROOT holds categories in the layout of MVTec AD. Every detector is trained once, with
default parameters, and stored in FOLDER, from where a further run takes it, as does one
after `skad benchmark ROOT --models FOLDER`. Then maps are made from each kind of
evidence alone, from all but one, and by other ways to join them; and with nothing, half
or all of what the surroundings let expect taken off. Only the first row has the second
look, which takes halos off. The table has the means over categories and seeds.
"""

import argparse
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

import skad
from skad.benchmark.evaluation import figures_of_pixels
from skad.benchmark.mvtec import Category, find_categories, load_category
from skad.detectors import learning as _learning
from skad.metrics import image_auroc_score
from skad.network.model import FEATURE_STRIDES
from skad.scoring import context as _expectation
from skad.scoring.anomaly_map import VIEWS, AnomalyMapper, evidence
from skad.scoring.fusion import combine, follow, on_one_scale

KINDS = (
    "anomaly decoder",
    *(f"Gaussians at stride {stride}" for stride in FEATURE_STRIDES),
    "reconstruction",
)
Join = Callable[[Tensor, AnomalyMapper], Tensor]  # evidence in, one map out
Figures = tuple[float, float, float]  # image AUROC, pixel AUROC and AU-PRO
BROAD, _, FINE = (np.array(view) for view in VIEWS)
METHOD = "the method"
FIRST_LOOK = "without the second look: the largest of three views"
SHARES = {
    "the largest of three views, nothing expected": 0.0,
    "the largest of three views, half of what is expected taken off": 0.5,
    "the largest of three views, all that is expected taken off": 1.0,
}


def joins() -> dict[str, Join]:
    """All ways to make one map that are compared, by name."""
    ways: dict[str, Join] = {
        FIRST_LOOK: _largest(0, 1, 2),
        "the larger of the broad and the fine view": _largest(0, 2),
        "the larger of the broad view and the decoder": _largest(0, 1),
        "the broad view alone": _view(BROAD),
        "the fine view alone": _view(FINE),
    }
    one = np.eye(len(KINDS))
    for i, kind in enumerate(KINDS):
        ways[f"{kind} alone"] = _view(one[i])
    for i, kind in enumerate(KINDS):
        ways[f"the broad view without {kind}"] = _view(BROAD * (1 - one[i]))
    return ways | {
        "the broad view, equal weights": _view(np.ones(len(KINDS))),
        "sum of all (Fisher)": lambda found, mapper: _each(found, mapper).sum(0),
        "maximum of all": lambda found, mapper: _each(found, mapper).amax(0),
    }


def _largest(*which: int) -> Join:
    def join(found: Tensor, mapper: AnomalyMapper) -> Tensor:
        views = on_one_scale(combine(found, mapper.tails, VIEWS), mapper.view_lines)
        return views[:, list(which)].amax(1)

    return join


def _view(weights: ArrayLike) -> Join:
    view = np.asarray(weights).tolist()
    return lambda found, mapper: combine(found, mapper.tails, [view])[:, 0]


def _each(found: Tensor, mapper: AnomalyMapper) -> Tensor:
    return follow(found.movedim(1, 0), mapper.tails)


def fitted(path: Path, category: Category, seed: int) -> AnomalyMapper:
    """Train the detector of one category and seed, or take the stored one."""
    if not path.exists():
        skad.save(_fit(category, seed), path)
    return skad.load(path).fitted.mapper


def refitted(
    mapper: AnomalyMapper, category: Category, seed: int, share: float
) -> AnomalyMapper:
    """Take off another share of what is expected; all but the network is made anew."""

    def take(network: torch.nn.Module, *_: object, **__: object) -> Iterator[dict]:
        network.load_state_dict(mapper.network.state_dict())
        network.eval()
        return iter(())

    with (
        patch.object(_learning, "train", take),
        patch.object(_expectation, "_SHARE", share),
    ):
        return _fit(category, seed).fitted.mapper


def _fit(category: Category, seed: int) -> skad.PatchAutoencoderDetector:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # thresholds play no part here
        return skad.PatchAutoencoderDetector(random_state=seed).fit(category.train)


@torch.inference_mode()
def figures(
    mapper: AnomalyMapper, category: Category, ways: dict[str, Join]
) -> dict[str, Figures]:
    """Figures of some ways to make a map."""
    prepared = (mapper.preparation(image, mapper.device) for image in _images(category))
    parts = mapper.gaussians, mapper.expectation
    found = [evidence(mapper.folded, x, *parts).half() for x in prepared]
    results = {}
    for name, join in ways.items():
        joined = [join(one.float(), mapper) for one in found]
        maps = torch.cat([mapper.preparation.to_input(m) for m in joined]).numpy()
        results[name] = figures_of_maps(maps, category)
    return results


def figures_of_maps(maps: np.ndarray, category: Category) -> Figures:
    """Image AUROC, pixel AUROC and AU-PRO."""
    pixels = figures_of_pixels(category.masks, maps)
    image_auroc = image_auroc_score(category.y, -maps.max((1, 2)))
    return image_auroc, pixels["pixel_auroc"], pixels["au_pro"]


def _images(category: Category) -> Iterator[np.ndarray]:
    """Yield the test images one by one: (1, H, W, C)."""
    test = category.test if category.test.ndim == 4 else category.test[..., np.newaxis]
    yield from test[:, np.newaxis]


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, metavar="ROOT")
    parser.add_argument("--models", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--categories", nargs="+", metavar="NAME")
    args = parser.parse_args()
    args.models.mkdir(parents=True, exist_ok=True)
    runs = []
    for folder in find_categories(args.root, args.categories):
        category = load_category(folder)
        for seed in args.seeds:
            path = args.models / f"{folder.name}-{seed}.safetensors"
            mapper = fitted(path, category, seed)
            maps = np.concatenate([mapper(image) for image in _images(category)])
            run = {METHOD: figures_of_maps(maps, category)}
            run |= figures(mapper, category, joins())
            for name, share in SHARES.items():
                other = refitted(mapper, category, seed, share)
                run |= figures(other, category, {name: _largest(0, 1, 2)})
            runs.append(run)
            print(f"<!-- {folder.name}, seed {seed} -->", flush=True)
    print("| map | image AUROC | pixel AUROC | AU-PRO |\n|---|---:|---:|---:|")
    for name in runs[0]:
        means = np.mean([run[name] for run in runs], axis=0)
        print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in means) + " |")


if __name__ == "__main__":
    main()
