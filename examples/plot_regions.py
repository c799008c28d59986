"""Verdicts, heat maps and boxes
=============================

    python examples/plot_regions.py

Inspect several images at once, and draw what was found on each of them.
"""

import matplotlib.pyplot as plt

import skad
from skad.datasets import load_surfaces
from skad.overlays import boxes_image, heat_map_image

surfaces = load_surfaces("brick", tile_size=96, n_train=70, n_test=12, n_calibration=40)
detector = skad.PatchAutoencoderDetector(patch_size=16, epochs=20, random_state=0)
detector.fit(surfaces.train).calibrate(surfaces.calibration)

# %%
# `inspect` returns one result per image. Its regions are sorted: the worst comes first.
# Boxes are (row_min, col_min, row_max, col_max), half-open.

results = detector.inspect(surfaces.test)
for kind, result in zip(surfaces.kinds, results, strict=True):
    boxes = [region.bbox for region in result.regions[:2]]
    print(f"{kind:8} {result.verdict:10} p = {result.p_value:.3f} {boxes}")

# %%
# Heat covers an image exactly where its map exceeds the threshold. The worst six:

order = sorted(range(len(results)), key=lambda i: results[i].score)
figure, axes = plt.subplots(2, 3, figsize=(9, 6.4), layout="constrained")
for ax, i in zip(axes.flat, order, strict=False):
    result = results[i]
    picture = heat_map_image(
        surfaces.test[i], result.anomaly_map, detector.pixel_threshold_
    )
    boxes = [region.bbox for region in result.regions]
    ax.imshow(boxes_image(picture, boxes, thickness=1))
    ax.set(xticks=[], yticks=[], title=f"{surfaces.kinds[i]}: {result.verdict}")
plt.show()
