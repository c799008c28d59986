"""The service as a client meets it: verdicts, views, refusals, tokens."""

import base64
import io
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from serving import SIDE, defective, noise, png, save_model, serving

import skad
from skad.runtime import Inspector


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("models") / "part.onnx")


@pytest.fixture(scope="module")
def served(model):
    with serving(model, max_body=100_000, max_pixels=10_000, images=3) as found:
        yield found


@pytest.fixture
def client(served):
    return served[0]


def inspect(client, data, **query):
    return client.post("/v1/inspect", content=data, params=query)


# --- Verdicts ---------------------------------------------------------------------


def test_a_verdict_is_that_of_the_model(client, model):
    for image in (defective(), noise(5)):
        expected = Inspector(model).inspect(image)
        answer = inspect(client, png(image)).json()
        for name in ("score", "decision", "p_value", "verdict"):
            assert answer[name] == getattr(expected, name)
        found = [(tuple(r["box"]), r["area"], r["peak"]) for r in answer["regions"]]
        assert found == [(r.bbox, r.area, r.peak) for r in expected.regions]
        assert answer["action"] == ("reject" if expected.is_anomaly else "accept")
    assert answer["promised_fpr"] is None  # of the good one


def test_a_verdict_is_that_of_a_detector_on_torch(tmp_path):
    images = np.stack([noise(seed) for seed in range(30)])
    detector = skad.PatchAutoencoderDetector(8, epochs=1, target_fpr=0.2, device="cpu")
    path = tmp_path / "part.safetensors"
    skad.save(detector.fit(images), path)
    (expected,) = detector.retarget(0.3).inspect(defective()[None])
    with serving(path, reject_fpr=0.3) as (client, _):
        answer = inspect(client, png(defective())).json()
        assert client.get("/v1/models").json()[0]["runtime"] == "torch"
    assert (answer["score"], answer["decision"]) == (expected.score, expected.decision)
    assert (answer["action"], answer["promised_fpr"]) == ("reject", 0.3)
    assert [tuple(r["box"]) for r in answer["regions"]] == [
        region.bbox for region in expected.regions
    ]


def test_regions_are_in_pixels_of_the_file(client):
    large = np.kron(defective(), np.ones((2, 3), np.uint8))  # 64 x 96
    answer = inspect(client, png(large)).json()
    assert (answer["width"], answer["height"]) == (96, 64)
    assert answer["promised_fpr"] == 0.05
    (region,) = answer["regions"]
    assert (region["box"], region["area"]) == ([16, 36, 32, 72], 16 * 36)


def test_a_form_and_a_map(client):
    image = noise(3)
    image[3, 4] = 140  # a map value of 4, where the threshold is 2.5
    files = {"file": ("left.png", png(image))}
    answer = client.post("/v1/inspect", files=files, params={"map": "png"}).json()
    assert answer["source"] == "left.png"
    levels = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["map"]))))
    expected = np.minimum(np.abs(image - 100.0) / 10 / 5 * 255, 255)
    np.testing.assert_allclose(levels, expected, atol=0.51)


def test_two_thresholds_give_three_actions(model):
    # Calibration scores are -2.5, -2.5 + 1.5 / 18, …: the 10th of 19, and the 2nd.
    with serving(model, warn_fpr=0.5, reject_fpr=0.1) as (client, _):
        for level, action, promised in (
            (117, "accept", None),
            (118, "warn", 0.5),
            (124, "warn", 0.5),
            (125, "reject", 0.1),
        ):
            image = np.full((SIDE, SIDE), level, np.uint8)
            answer = inspect(client, png(image)).json()
            assert (answer["action"], answer["promised_fpr"]) == (action, promised)
            assert (answer["verdict"] == "good") == (action == "accept")
            assert bool(answer["regions"]) == (action != "accept")


def test_warning_less_than_rejecting_is_refused(model):
    with pytest.raises(ValueError, match="warn_fpr must be above the rate"):
        with serving(model, warn_fpr=0.1, reject_fpr=0.5):
            pass


# --- Views ------------------------------------------------------------------------


def test_the_last_images_are_kept_and_older_ones_go(client):
    ids = [inspect(client, png(noise(seed, 20, 40))).json()["id"] for seed in range(4)]
    assert [one["id"] for one in client.get("/v1/verdicts").json()] == ids[:0:-1]
    small = client.get(f"/v1/images/{ids[-1]}")
    assert small.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(small.content)).size == (40, 20)
    levels = client.get(f"/v1/images/{ids[-1]}/map").content
    assert Image.open(io.BytesIO(levels)).size == (40, 20)
    assert client.get(f"/v1/images/{ids[0]}").status_code == 404


def test_models_metrics_and_openapi(client):
    (described,) = client.get("/v1/models").json()
    assert (described["name"], described["shape"]) == ("part", [SIDE, SIDE])
    assert (described["threshold"], described["runtime"]) == (2.5, "onnxruntime")
    assert described["promise"].startswith("at most 5 % of good images")
    inspect(client, png(defective()))
    metrics = client.get("/metrics").text
    assert 'skad_verdicts_total{action="reject",model="part"}' in metrics
    assert "skad_inspection_seconds_bucket" in metrics
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/v1/inspect", "/v1/models", "/v1/events", "/metrics"} <= set(paths)
    assert "https://" not in client.get("/docs").text  # loads nothing from elsewhere
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json()["status"] == "ready"


def test_events_tell_verdicts(client):
    with client.stream("GET", "/v1/events") as stream:
        lines = stream.iter_lines()
        next(lines)
        answer = inspect(client, png(defective()))
        told = [next(lines) for _ in range(3)]
    assert told[1] == "event: verdict"
    assert json.loads(told[2].removeprefix("data: ")) == answer.json()


# --- Refusals ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 422, "got nothing"),
        (b"no image", 422, "its contents are not an image of PNG"),
        (png(noise(0))[:-30], 422, "cannot read the image"),
        (png(noise(0, 200, 51)), 413, "at most 10000 pixels; got 51 x 200"),
        (bytes(100_001), 413, "at most 100000 bytes"),
        (
            png(np.zeros((9, 9), np.float32), "TIFF"),
            422,
            "image must have shape (32, 32)",
        ),
    ],
)
def test_a_bad_body_is_refused_with_the_rule(client, body, status, words):
    answer = inspect(client, body)
    assert answer.status_code == status
    assert words in answer.json()["error"]


def test_a_chunked_body_that_is_too_large_is_refused(client):
    chunks = iter([bytes(60_000)] * 3)
    assert inspect(client, chunks).status_code == 413


def test_a_form_without_a_file_and_unknown_names_are_refused(client):
    form = client.post("/v1/inspect", files={"a": (None, "text")})
    assert (form.status_code, form.json()["error"][:22]) == (
        422,
        "the form must have one",
    )
    broken = client.post(
        "/v1/inspect", content=b"x", headers={"Content-Type": "multipart/form-data"}
    )
    assert broken.status_code == 422
    assert inspect(client, png(noise(0)), model="other").status_code == 404
    wrong = inspect(client, png(noise(0)), map="gif")
    assert (wrong.status_code, wrong.json()["error"][:4]) == (422, "map:")


# --- Who may call -----------------------------------------------------------------


def test_other_hosts_and_pages_of_other_origins_are_refused(model, client):
    assert client.get("/v1/models", headers={"Host": "evil.example"}).status_code == 403
    assert client.get("/healthz", headers={"Host": "10.0.0.7"}).status_code == 200
    for origin, status in (
        ("https://evil.example", 403),
        ("null", 403),
        ("http://localhost:1", 200),
    ):
        answer = client.get("/v1/models", headers={"Origin": origin})
        assert answer.status_code == status
    with serving(model, allow_host=("line.example",)) as (other, _):
        headers = {"Host": "LINE.example:8000"}
        assert other.get("/v1/models", headers=headers).status_code == 200


def test_a_token_is_asked_for_as_header_or_cookie(model):
    with serving(model, token="correct horse") as (client, _):
        assert client.get("/healthz").status_code == 200
        for path in ("/", "/v1/models", "/metrics", "/openapi.json", "/v1/events"):
            assert client.get(path).status_code == 401
        for given, status in (("correct horse", 200), ("wrong", 401), ("é", 401)):
            headers = {"Authorization": f"Bearer {given}".encode()}
            assert client.get("/v1/models", headers=headers).status_code == status
        page = client.get("/?token=wrong", headers={"Accept": "text/html"})
        assert page.headers["location"] == "/login?token=wrong"
        assert client.get("/login?token=wrong").status_code == 401
        assert client.post("/login", data={"token": "wrong"}).status_code == 401
        assert "<form" in client.get("/login").text
        signed_in = client.post("/login", data={"token": "correct horse"})
        assert signed_in.status_code == 303
        assert "correct horse" not in signed_in.headers["set-cookie"]
        assert "HttpOnly" in signed_in.headers["set-cookie"]
        assert client.get("/v1/models").status_code == 200  # with the cookie


# --- Without torch ----------------------------------------------------------------

LOAD = """
import sys
from pathlib import Path
import skad.serve.server
from skad.serve.models import load_model
from skad.serve.settings import Settings
load_model("part", Path(sys.argv[1]), Settings({}))
print(*sys.modules)
"""


def test_an_exported_model_is_served_without_torch(model):
    command = [sys.executable, "-c", LOAD, str(model)]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    heavy = {"torch", "scipy", "sklearn", "skimage", "safetensors", "joblib"}
    assert heavy & set(loaded.split()) == set()


def test_the_container_has_what_the_service_needs():
    root = Path(__file__).parents[1]
    with (root / "pyproject.toml").open("rb") as file:
        needed = tomllib.load(file)["project"]["optional-dependencies"]["serve"]
    installed = (root / ".ci/install_service").read_text().split()
    names = {re.match(r"[\w-]+", one)[0] for one in needed}
    assert names | {"numpy", "onnxruntime", "pillow"} <= set(installed)
    assert ".ci/install_service" in (root / "Dockerfile").read_text()
