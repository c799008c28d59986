"""One verdict about an image, and its regions in the pixels of the frame."""

import joblib
import numpy as np
import pytest
from PIL import Image

from skad import ImageFolder, InspectionResult, PatchAutoencoderDetector, Region
from skad.inspection.verdict import judge

SIZE = (32, 32)


@pytest.fixture(scope="module")
def detector():
    rng = np.random.default_rng(0)
    good = rng.integers(90, 110, (40, *SIZE), dtype=np.uint8)
    fitted = PatchAutoencoderDetector(8, epochs=2, target_fpr=0.1, random_state=0)
    return fitted.fit(good)


@pytest.fixture
def photo(tmp_path):
    """A file of 96 x 160 pixels that EXIF turns upright, bright in one place."""
    pixels = np.full((160, 96), 100, np.uint8)
    pixels[100:120, 60:90] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.fromarray(np.rot90(pixels))
    turned.save(tmp_path / "turned.png", exif=exif)
    Image.new("L", (64, 48), 100).save(tmp_path / "wide.png")
    return tmp_path


def test_results_say_what_the_other_methods_say(detector):
    X = np.random.default_rng(1).integers(90, 110, (5, *SIZE), dtype=np.uint8)
    X[3:, 10:18, 12:20] = 255
    results = detector.inspect(X)
    assert all(isinstance(result, InspectionResult) for result in results)
    for name, told in (
        ("score", detector.score_samples(X)),
        ("decision", detector.decision_function(X)),
        ("p_value", detector.p_value(X)),
        ("is_anomaly", detector.predict(X) == -1),
        ("anomaly_map", detector.anomaly_map(X)),
    ):
        values = [getattr(result, name) for result in results]
        np.testing.assert_array_equal(values, told)
    assert [result.regions for result in results] == detector.anomaly_regions(X)
    assert [r.verdict for r in results[2:]] == ["good", "anomalous", "anomalous"]


def test_regions_of_a_folder_are_in_pixels_of_its_files(detector, photo):
    folder = ImageFolder(photo, image_size=SIZE)
    before = joblib.hash(folder)
    found = detector.inspect(folder)
    assert joblib.hash(folder) == before
    assert folder.frame_sizes == [(160, 96), (48, 64)]
    assert folder[[1]].frame_sizes == [(48, 64)]
    plain = detector.inspect(np.stack([folder[0], folder[1]]))
    for one, other, frame in zip(found, plain, folder.frame_sizes, strict=True):
        assert one.anomaly_map.shape == SIZE
        assert one.regions == [r.scaled(SIZE, frame) for r in other.regions]
    assert found[0].regions
    assert [one.regions for one in found] == detector.anomaly_regions(folder)


def test_a_threshold_itself_is_good():
    values = np.array([[0.25, 0.1]], np.float32)
    result = judge(values, -0.25, [-0.25, -0.1])
    assert (result.verdict, result.decision, result.p_value) == ("good", 0, 2 / 3)
    assert result.regions == []
    result = judge(values, -np.nextafter(0.25, 0), [-0.25, -0.1])
    assert (result.verdict, len(result.regions)) == ("anomalous", 1)
    result = judge(values, -np.inf, None)
    assert (result.verdict, result.regions) == ("good", [])
    assert np.isnan(result.p_value)


def test_regions_of_a_map_drawn_by_hand():
    amap = np.zeros((8, 9), np.float32)
    amap[1:3, 1:4] = 5.0
    amap[3, 4] = 7.0  # touches the rectangle by a corner
    amap[6, 8] = 9.0
    amap[0, 7] = 2.0  # exactly the threshold: no region
    assert judge(amap, -2.0, None).regions == [
        Region((6, 8, 7, 9), 1, 9.0, (6.0, 8.0)),
        Region((1, 1, 4, 5), 7, 7.0, (pytest.approx(12 / 7), pytest.approx(16 / 7))),
    ]


def test_regions_scale_outward():
    region = Region((0, 3, 2, 4), 2, 9.0, (0.5, 3.0))
    large = Region((0, 30, 4, 40), 40, 9.0, (1.5, 34.5))
    assert region.scaled((4, 4), (8, 40)) == large
    assert region.scaled((4, 4), (4, 4)) == region
    corner = Region((7, 7, 8, 8), 1, 9.0, (7.0, 7.0))
    small = Region((2, 2, 3, 3), 1, 9.0, (2.3125, 2.3125))
    assert corner.scaled((8, 8), (3, 3)) == small
    with pytest.raises(ValueError, match="to_size must be"):
        corner.scaled((8, 8), (0, 4))
    with pytest.raises(ValueError, match=r"from_size .* does not lie in \(2, 4\)"):
        corner.scaled((2, 4), (4, 4))
