"""The picture in docs/explain.md: a scratch on bricks, and bricks that look like it."""

import sys

from skad import ExplanationDisplay, PatchAutoencoderDetector
from skad.datasets import load_surfaces


def main(picture: str) -> None:
    """Fit as `skad demo` does, with an encoder, and explain the first scratch."""
    surfaces = load_surfaces("brick", n_train=80, n_calibration=40)
    detector = PatchAutoencoderDetector(
        encoder="efficientnet-lite0", epochs=0, random_state=0
    )
    detector.fit(surfaces.train).calibrate(surfaces.calibration)
    image = surfaces.test[list(surfaces.kinds).index("scratch")]
    display = ExplanationDisplay.from_estimator(detector, image, surfaces.train)
    display.figure_.savefig(picture, dpi=70)
    print(display.explanation)


if __name__ == "__main__":
    main(sys.argv[1])
