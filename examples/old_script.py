"""The old script's example: the calls are the same, only the import is new
========================================================================

    python examples/old_script.py [FOLDER] [--epochs 75]

FOLDER holds good images in `Train` and others in `Test`. Without it, tiles of a
photographed brick wall are used, half of the test tiles with a planted defect. The
model goes to `Models/`, the pictures go to `Output/`, both in the current folder.
Twice 75 epochs take some minutes without a GPU.
"""

import argparse
import tempfile
from pathlib import Path

from PIL import Image

from skad import AD  # was: from Anomaly_Detector import AD
from skad.datasets import load_surfaces
from skad.images import find_images


def old_script(root, epochs):
    # Make a model and train it.
    ad = AD("AD1")
    ad.load_data(f"{root}/Train/")
    ad.train(epochs)

    # Load the model and go on training, usually with other images.
    ad = AD("Models/model")
    ad.load_data(f"{root}/Train/")
    ad.train(epochs)

    # See whether the reconstruction looks like the image.
    ad.test_img(find_images(f"{root}/Train/")[0])

    # Load the model and look for anomalies: in one image, and in a folder.
    ad = AD("Models/model")
    ad.predict(find_images(f"{root}/Test/")[0], "Output/hardcore/", hardcore=True)
    return ad.predict(f"{root}/Test/", "Output/")


def write_surfaces(root):
    surfaces = load_surfaces("brick", tile_size=80, n_train=100, n_test=20)
    for name, images in (("Train", surfaces.train), ("Test", surfaces.test)):
        (root / name).mkdir()
        for i, image in enumerate(images):
            Image.fromarray(image).save(root / name / f"{i:02}.png")


def main():
    parser = argparse.ArgumentParser(description="Run the old script's example.")
    parser.add_argument("folder", nargs="?", help="with Train and Test in it")
    parser.add_argument("--epochs", type=int, default=75)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        if options.folder is None:
            write_surfaces(Path(temporary))
        results = old_script(options.folder or temporary, options.epochs)
    for result in results:
        verdict = "anomalous" if result.is_anomaly else "good"
        print(f"{result.path.name}: {verdict}, score {result.score:.3g}")


if __name__ == "__main__":
    main()
