"""Compare Muon with AdamW after fewer and more epochs: python THIS_FILE ROOT.

ROOT holds categories in MVTec AD layout. Both optimizers train the same network on the
same images. The losses are those of training, means of the last five epochs.
"""

import argparse
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import nn

from skad import PatchAutoencoderDetector
from skad.benchmark.mvtec import Category, find_categories, load_category
from skad.metrics import au_pro_score, image_auroc_score
from skad.network import training as _training

LEARNING_RATES = {"Muon": 0.01, "AdamW": 0.003}  # AdamW's was best of 0.0015 to 0.006
EPOCHS = (15, 40, 75)


class AdamW:
    """In place of `skad.network.training.Optimizer`: all weights by AdamW."""

    def __init__(self, network: nn.Module, learning_rate: float, n_steps: int) -> None:
        self.adam = torch.optim.AdamW(
            network.parameters(), learning_rate, weight_decay=0.01
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.adam, learning_rate, total_steps=n_steps + 1, pct_start=0.1
        )

    def step(self, loss: torch.Tensor) -> None:
        """Move the weights against the gradient of a loss."""
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        self.schedule.step()


def trial(category: Category, name: str, epochs: int, seed: int) -> list[float]:
    """Train with one of the two; return losses and figures."""
    detector = PatchAutoencoderDetector(
        epochs=epochs, learning_rate=LEARNING_RATES[name], random_state=seed
    )
    optimizer = {"Muon": _training.Optimizer, "AdamW": AdamW}[name]
    with (
        warnings.catch_warnings(),
        mock.patch.object(_training, "Optimizer", optimizer),
    ):
        warnings.simplefilter("ignore", UserWarning)  # few images for the promise
        detector.fit(category.train)
    maps = detector.anomaly_map(category.test)
    scores = -maps.max(axis=(1, 2)).astype(float)
    image_auroc = image_auroc_score(category.y, scores)
    last = detector.history_[-5:]
    losses = [
        np.mean([epoch[loss] for epoch in last])
        for loss in ("anomaly_loss", "reconstruction_loss")
    ]
    return [*losses, image_auroc, au_pro_score(category.masks, maps)]


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, metavar="ROOT")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--categories", nargs="+", metavar="NAME")
    args = parser.parse_args()
    print(
        "| category | epochs | optimizer | anomaly loss | reconstruction loss | "
        "image AUROC | AU-PRO |\n|---|---:|---|---:|---:|---:|---:|"
    )
    for folder in find_categories(args.root, args.categories):
        category = load_category(folder)
        for epochs in EPOCHS:
            for name in LEARNING_RATES:
                trials = [trial(category, name, epochs, seed) for seed in args.seeds]
                cells = " | ".join(f"{mean:.3f}" for mean in np.mean(trials, axis=0))
                print(f"| {category.name} | {epochs} | {name} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
