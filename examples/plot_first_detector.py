"""First detector, first heat map
==============================

    python examples/plot_first_detector.py

Train on good tiles of a photographed brick wall, and find a planted defect.
"""

import matplotlib.pyplot as plt

import skad
from skad.datasets import load_surfaces

# %%
# Half of the test tiles have a defect. Nothing about defects is used for training.
# With your own images, use ``skad.ImageFolder("parts/good", image_size=256)``.

surfaces = load_surfaces("brick", tile_size=96, n_train=70, n_test=20, n_calibration=40)

# %%
# `patch_size` is the size of the largest defect that you expect, in pixels. The default
# of 75 epochs finds more; 20 are enough here.

detector = skad.PatchAutoencoderDetector(patch_size=16, epochs=20, random_state=0)
detector.fit(surfaces.train)

# %%
# `fit` sets the threshold on good images that it held out. The tiles overlap, so these
# are not new to the network: set the threshold again, on tiles that are.

detector.calibrate(surfaces.calibration)
labels = detector.predict(surfaces.test)  # +1 good, -1 anomalous
print(f"{(labels == surfaces.y_test).sum()} of {len(labels)} verdicts are right")

# %%
# The map is higher where the image is more anomalous. Outlines show where it exceeds
# the threshold; the red line in the colour bar is the threshold.

worst = detector.score_samples(surfaces.test).argmin()
skad.AnomalyMapDisplay.from_estimator(detector, surfaces.test[worst])
plt.show()
