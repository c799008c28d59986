"""Watch a line for drift
======================

    python examples/plot_drift.py

The threshold holds for images like those that set it. A monitor raises an alarm when
scores drift, here because the light fades slowly.
"""

import matplotlib.pyplot as plt
import numpy as np

import skad
from skad.datasets import load_surfaces

surfaces = load_surfaces(
    "brick", tile_size=64, n_train=70, n_test=120, n_calibration=60, defect_fraction=0
)
detector = skad.PatchAutoencoderDetector(patch_size=16, epochs=20, random_state=0)
detector.fit(surfaces.train).calibrate(surfaces.calibration)

# %%
# After 60 images, the light fades, down to 75 % of what it was.

light = np.interp(np.arange(120), [0, 60, 120], [1, 1, 0.75])
frames = (surfaces.test * light[:, None, None]).astype(np.uint8)

# %%
# Over the whole life of a monitor, a false alarm has a probability of at most `alpha`.

monitor = skad.Monitor(detector, alpha=0.01)
evidence = []
for frame in frames:
    monitor.update_images(frame[None])
    evidence.append(monitor.status().log_martingale)
print(monitor.status())

# %%
# The martingale is the evidence against "nothing has changed". It raises the alarm at
# 1 / alpha.

figure, (above, below) = plt.subplots(2, sharex=True, layout="constrained")
above.plot(detector.score_samples(frames), ".", label="score")
above.axhline(detector.offset_, color="tab:red", label="threshold")
above.axvline(60, color="gray", linestyle=":", label="the light begins to fade")
below.plot(np.exp(evidence), label="martingale")
below.axhline(1 / monitor.alpha, color="tab:red", label="alarm")
below.axvline(60, color="gray", linestyle=":")
below.set(yscale="log", xlabel="images")
above.legend()
below.legend()
plt.show()
