"""Time a detector with an encoder and no training against the encoder's bare pass.

python THIS_FILE CATEGORY: a folder in MVTec AD layout. The bare pass turns all good
training images into features, one image at a time, without gradients. Fitting and
scoring are timed in turn with it, and given as multiples of its time an image.
"""

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
import torch

from skad import FrozenEncoder, PatchAutoencoderDetector
from skad.benchmark import load_category

ROUNDS = 3


def main() -> None:
    """Print a line for every round, and the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("category", type=Path, metavar="CATEGORY")
    parser.add_argument("--encoder", default="efficientnet-lite0")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    train = np.asarray(load_category(args.category).train)
    encoder = FrozenEncoder.named(args.encoder)
    encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    ratios = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        with torch.inference_mode():
            for image in train:
                x = torch.from_numpy(image / np.float32(255)).reshape(
                    1, *image.shape[:2], -1
                )
                encoder(x.movedim(3, 1))
        bare = (time.perf_counter() - start) / len(train)
        detector = PatchAutoencoderDetector(
            encoder=args.encoder, epochs=0, random_state=0
        )
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            detector.fit(train)
        fit = (time.perf_counter() - start) / len(train)
        start = time.perf_counter()
        detector.score_samples(train)
        score = (time.perf_counter() - start) / len(train)
        ratios.append((fit / bare, score / bare))
        print(
            f"an image, in ms: bare pass {1000 * bare:.1f}, fit {1000 * fit:.1f}, "
            f"score {1000 * score:.1f}",
            flush=True,
        )
    fits, scores = np.median(ratios, 0)
    print(f"multiples of the bare pass: fit {fits:.2f}, score {scores:.2f}")


if __name__ == "__main__":
    main()
