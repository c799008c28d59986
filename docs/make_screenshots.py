"""Make the pictures of pages in docs/: photographed bricks, with planted defects.

Needs pip install ".[pretrained,report,serve,test]" and chromium.
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
from serving import serving  # noqa: E402

REPORT_SIZES = {"report": (1280, 1330), "report_narrow": (390, 1240)}
SERVICE_SIZE = (1280, 800)


def make_example(folder):
    """Fit a detector, write its file and 60 tiles, 20 of them with a defect."""
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
    model = folder / "bricks.safetensors"
    skad.save(detector, model)
    return detector, model, paths, tiles.y_test


def photograph_report(folder, detector, model, paths, y):
    page = folder / "report.html"
    skad.write_report(detector, paths, page, y, model=model.name)
    for name, size in REPORT_SIZES.items():
        (DOCS / f"{name}.png").write_bytes(photograph(page.as_uri(), size))


def photograph_service(folder, model, paths):
    with serving(model, warn_fpr=0.1, collect=folder / "marked") as (client, server):
        for path in sorted(paths, key=lambda path: path.stem[::-1]):  # kinds mixed
            files = {"file": (path.name, path.read_bytes())}
            client.post("/v1/inspect", files=files).raise_for_status()
        content = photograph(server.address, SERVICE_SIZE)
        (DOCS / "service.png").write_bytes(content)


def photograph(url, size):
    """Return the top of a page as a PNG of 256 colours."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=program("chromium"), args=FLAGS
        )
        tab = browser.new_page(
            viewport=dict(zip(("width", "height"), size, strict=True))
        )
        tab.goto(url)
        tab.wait_for_timeout(2000)  # ms, until the heat is drawn
        picture = Image.open(io.BytesIO(tab.screenshot()))
        browser.close()
    content = io.BytesIO()
    picture.convert("RGB").quantize(256).save(content, "PNG", optimize=True)
    return content.getvalue()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        detector, model, paths, y = make_example(Path(folder))
        photograph_report(Path(folder), detector, model, paths, y)
        photograph_service(Path(folder), model, paths)
