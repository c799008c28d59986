"""From file names to verdicts: paths -> ImageReader -> detector, in one Pipeline
==============================================================================

    python examples/pipeline_from_paths.py

Here the files are tiles of a photographed brick wall, written to a temporary folder.
"""

import tempfile
from pathlib import Path

from PIL import Image
from sklearn.pipeline import Pipeline

from skad import ImageReader, PatchAutoencoderDetector
from skad.datasets import load_surfaces
from skad.images import find_images


def write_tiles(folder, tiles):
    folder.mkdir()
    for i, tile in enumerate(tiles):
        Image.fromarray(tile).save(folder / f"{i:03}.png")
    return find_images(folder)


def main(epochs=20, tile_size=64):
    surfaces = load_surfaces("brick", tile_size=tile_size, n_train=60, n_test=20)
    pipeline = Pipeline(
        [
            ("read", ImageReader(image_size=tile_size, gray=True)),
            (
                "detect",
                PatchAutoencoderDetector(
                    tile_size // 4, epochs=epochs, target_fpr=0.1, random_state=0
                ),
            ),
        ]
    )
    with tempfile.TemporaryDirectory() as root:
        good = write_tiles(Path(root) / "good", surfaces.train)
        new = write_tiles(Path(root) / "new", surfaces.test)
        pipeline.fit(good)
        labels = pipeline.predict(new)
        accuracy = pipeline.score(new, surfaces.y_test)
        # What only the detector has, it gives for the images that the reader read.
        masks = pipeline["detect"].predict_mask(pipeline["read"].transform(new))
    for path, label, mask in list(zip(new, labels, masks, strict=True))[:5]:
        verdict = "good" if label == 1 else f"anomalous in {mask.sum()} pixels"
        print(f"{path.name}: {verdict}")
    print(f"balanced accuracy of {len(new)} files: {accuracy:.2f}")
    return labels, masks, accuracy


if __name__ == "__main__":
    main()
