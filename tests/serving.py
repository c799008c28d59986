"""A service in a thread, with tiny exported models, for tests."""
# ruff: noqa: E402  (what is missing is told before it is imported)

import io
import sys
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import numpy as np
from optional import optional
from PIL import Image

for name in ("fastapi", "uvicorn", "httpx", "watchfiles", "onnx", "onnxruntime"):
    optional(name)

import httpx
from onnx_models import model_of

from skad.serve.app import make_app
from skad.serve.models import load_model
from skad.serve.server import Server, listen
from skad.serve.service import Service
from skad.serve.settings import Settings

sys.path.append(str(Path(__file__).parents[1] / "docs/benchmarks"))
import serve_abuse as abuse  # noqa: F401 (tests use it)

SIDE = 32


def noise(seed, *shape):
    rng = np.random.default_rng(seed)
    return rng.integers(90, 110, shape or (SIDE, SIDE), dtype=np.uint8)


def defective(seed=0):
    image = noise(seed)
    image[8:16, 12:24] = 255
    return image


def png(image, name="PNG"):
    file = io.BytesIO()
    Image.fromarray(image).save(file, name)
    return file.getvalue()


def save_model(path, channels=(), scale=10):
    """Write a model whose map is |image - 100| / scale, and whose threshold 2.5."""
    shape = (SIDE, SIDE, *channels)
    model = model_of(scale, image_shape=shape)
    path.write_bytes(model.SerializeToString())
    return path


@contextmanager
def serving(*models: Path, **settings):
    """Serve model files; gives a client, and the server."""
    named = {path.stem: path for path in models}
    given = Settings(named, **{"port": 0, **settings})
    loaded = {
        name: load_model(name, path, given) for name, path in given.models.items()
    }
    server = Server(make_app(Service(given, loaded)))
    started = Event()
    log_started = server.startup

    async def startup(sockets=None):
        await log_started(sockets)
        started.set()

    server.startup = startup
    listening = listen("127.0.0.1", given.port)
    thread = Thread(target=server.run, args=[[listening]], daemon=True)
    thread.start()
    assert started.wait(20)
    try:
        with httpx.Client(base_url=server.address, timeout=20) as client:
            yield client, server
    finally:
        server.handle_exit(15, None)
        thread.join(20)
        server.service.close()
        assert not thread.is_alive()


def until(condition, seconds=15):
    """Wait until a condition holds, and return what it gave."""
    for _ in range(round(seconds / 0.05)):
        if found := condition():
            return found
        Event().wait(0.05)
    raise AssertionError("it has not come true")
