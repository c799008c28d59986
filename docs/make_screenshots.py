"""Make the pictures of a report in docs/: photographed bricks, with planted defects.

Needs pip install ".[pretrained,report,test]" and chromium.
"""

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

import skad
from skad.datasets import load_surfaces

DOCS = Path(__file__).parent
sys.path.append(str(DOCS.parent / "tests"))
from browser import FLAGS  # noqa: E402
from optional import program  # noqa: E402

SIZES = {"report": (1280, 1330), "report_narrow": (390, 1240)}


def write_report(folder):
    """Write a report about 60 tiles, 20 of them with a defect; return its path."""
    tiles = load_surfaces(
        "brick", n_train=80, n_calibration=40, n_test=60, defect_fraction=1 / 3
    )
    detector = skad.PatchAutoencoderDetector(
        encoder="efficientnet-lite0", epochs=0, random_state=0
    )
    detector.fit(tiles.train)
    detector.calibrate(tiles.calibration, groups=range(len(tiles.calibration)))
    paths = [folder / f"{kind}_{i:02}.png" for i, kind in enumerate(tiles.kinds)]
    for path, tile in zip(paths, tiles.test, strict=True):
        Image.fromarray(tile).save(path)
    model, page = folder / "bricks.safetensors", folder / "report.html"
    skad.save(detector, model)
    skad.write_report(detector, paths, page, tiles.y_test, model=model.name)
    return page


def photograph(page, size):
    """Return the top of a page as a PNG of 256 colours."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=program("chromium"), args=FLAGS
        )
        tab = browser.new_page(
            viewport=dict(zip(("width", "height"), size, strict=True))
        )
        tab.goto(page.as_uri())
        tab.wait_for_timeout(1000)  # ms, until the heat is drawn
        picture = Image.open(io.BytesIO(tab.screenshot()))
        browser.close()
    content = io.BytesIO()
    picture.convert("RGB").quantize(256).save(content, "PNG", optimize=True)
    return content.getvalue()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        page = write_report(Path(folder))
        for name, size in SIZES.items():
            (DOCS / f"{name}.png").write_bytes(photograph(page, size))
