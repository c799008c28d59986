"""A detector of small gray images, files for reports, and what a page says."""

import json
import os
import re
from functools import cache

import numpy as np
from image_files import save

import skad

# What a file may be called; the last holds a byte that is no UTF-8.
HOSTILE = [
    "<script>alert(1)<.png",
    "a'b\"c,d&amp;.png",
    "new\nline.png",
    os.fsdecode(b"\xff.png"),
]


def parts(n, seed, *, n_bad=0):
    """Gray noise, n images 24 x 24; the last ones have a white patch."""
    images = np.random.default_rng(seed).integers(90, 110, (n, 24, 24), dtype=np.uint8)
    images[n - n_bad :, 4:14, 6:18] = 255
    return images


@cache
def fitted():
    """A detector for them, fitted once; copy it before you change it."""
    made = skad.PatchAutoencoderDetector(
        8, epochs=1, target_fpr=0.1, random_state=0, device="cpu"
    )
    return made.fit(parts(70, 0))


def write_images(root):
    """Write 26 good and 4 bad images in two folders; some good ones have odd names."""
    names = [*HOSTILE, *(f"{i}.png" for i in range(len(HOSTILE), 26))]
    for name, image in zip(names, parts(26, 1), strict=True):
        save(root / "good" / name, image)
    for i, image in enumerate(parts(4, 2, n_bad=4)):
        save(root / "scratch" / f"{i}.png", image)
    return root


def data_of(page):
    """The numbers in a page, a path or its text."""
    text = page if isinstance(page, str) else page.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="data">(.*?)</script>', text)[1])
