"""Choose weights on all sets but one, report them on that one: python THIS_FILE ROOT
--models FOLDER.

FOLDER holds detectors with an encoder that `skad benchmark ROOT --models FOLDER` has
stored. The values of all branches are computed once; the weights of the segmentation
decoder, of the encoder's branches and of the whole image are varied. For each set, the
weights with the best mean of image AUROC and AU-PRO over the *other* sets are taken:
the figure that they give on the set itself is one that its images had no part in.
Sets whose names begin alike, as those of one series, are left out together, and count
as one.
"""

import argparse
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

import skad
from skad.benchmark import figures_of_pixels, find_categories, load_category
from skad.metrics import image_auroc_score
from skad.scoring import fusion

SERIES = 5  # letters of a name that sets of one series share
DECODER = (2.0, 4.0)
ENCODER = (4.0, 8.0)
WHOLE = (0.0, 4.0, 8.0)
SHIPPED = (fusion.NETWORK_WEIGHTS[0], fusion.ENCODER_WEIGHTS[0], fusion.ENCODER_WHOLE)
Weights = tuple[float, float, float]
Figures = tuple[float, float]  # image AUROC, AU-PRO


def figures(path: Path, folder: Path) -> dict[Weights, Figures]:
    """Return the figures of a stored detector for all weights."""
    category = load_category(folder)
    mapper: Any = skad.load(path, device="cpu").fitted.mapper
    batches = []
    for image in np.asarray(category.test):
        batch = image.reshape(1, *image.shape[:2], -1)
        x = mapper.preparation(batch, mapper.device)
        with torch.inference_mode():
            batches.append(mapper.values(x, (0, 0), x.shape[2:]))
    found = {}
    for weights in product(DECODER, ENCODER, WHOLE):
        decoder, encoder, whole = weights
        others = fusion.NETWORK_WEIGHTS[1:]
        mapper.weights = [decoder, *others, encoder, encoder]
        mapper.whole_weight = whole
        with torch.inference_mode():
            maps = [mapper.to_maps(mapper.joined(values)) for values in batches]
        together = torch.cat(maps).numpy()
        au_pro = figures_of_pixels(category.masks, together)["au_pro"]
        found[weights] = image_auroc_score(category.y, -together.max((1, 2))), au_pro
    return found


def mean_of(of_sets: dict[str, dict[Weights, Figures]], weights: Weights) -> Figures:
    """Return the mean figures over sets; those of one series count as one."""
    series: dict[str, list[Figures]] = {}
    for name, found in of_sets.items():
        series.setdefault(name[:SERIES], []).append(found[weights])
    means = np.array([np.mean(some, 0) for some in series.values()])
    return float(np.nanmean(means[:, 0])), float(np.nanmean(means[:, 1]))


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, metavar="ROOT")
    parser.add_argument("--models", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--categories", nargs="+", metavar="NAME")
    args = parser.parse_args()
    of_sets = {}
    for folder in find_categories(args.root, args.categories):
        path = args.models / f"{folder.name}-{args.seed}.safetensors"
        of_sets[folder.name] = figures(path, folder)
    every = list(product(DECODER, ENCODER, WHOLE))
    print("| set | weights by the others | with them | with those of skad |")
    print("|---|---|---:|---:|")
    held_out = {}
    for name, found in of_sets.items():
        rest = {k: v for k, v in of_sets.items() if k[:SERIES] != name[:SERIES]}
        best = max(every, key=lambda weights: sum(mean_of(rest, weights)))
        held_out[name] = {SHIPPED: found[best]}
        both = "{:.3f} / {:.3f} | {:.3f} / {:.3f}".format(*found[best], *found[SHIPPED])
        print(f"| {name} | {', '.join(f'{w:g}' for w in best)} | {both} |")
    means = *mean_of(held_out, SHIPPED), *mean_of(of_sets, SHIPPED)
    print("| mean | | {:.3f} / {:.3f} | {:.3f} / {:.3f} |".format(*means))


if __name__ == "__main__":
    main()
