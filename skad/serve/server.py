"""Run a service until it is told to stop; what is under way then is finished."""

import asyncio
import logging
import os
import signal
import socket
from contextlib import ExitStack
from types import FrameType
from typing import Any

import uvicorn

from skad.common.locks import locked
from skad.serve.app import make_app
from skad.serve.guard import Guard
from skad.serve.models import load_model
from skad.serve.service import Service
from skad.serve.settings import LOOPBACK, Settings

_LOG = logging.getLogger(__name__)
_LAST_ANSWERS = 5  # seconds for clients to read them
_IDLE = 60  # seconds that a connection is kept for the next request


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT."""
    logging.basicConfig(format="skad: %(message)s", level=logging.INFO)
    for name in ("httpx", "uvicorn.error", "watchfiles"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with ExitStack() as stack:
        listening = stack.enter_context(listen(settings.host, settings.port))
        if settings.state is not None:
            settings.state.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(settings.state))
        models = {
            name: load_model(name, path, settings)
            for name, path in settings.models.items()
        }
        service = Service(settings, models)
        stack.callback(service.close)
        Server(make_app(service)).run([listening])


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; an OSError names the address if it cannot."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio switches Nagle's algorithm off, which costs 40 ms a request, if it is told
    # the protocol; `socket.create_server` does not tell it.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen()
    except OSError as error:
        listening.close()
        raise OSError(
            f"cannot listen at {host}, port {port}: {error.strerror or error}; name "
            "another --host or --port"
        ) from error
    return listening


class Server(uvicorn.Server):
    """A server that answers what is under way before it closes its socket."""

    def __init__(self, app: Guard) -> None:
        self.service = app.service
        config = uvicorn.Config(
            app,
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            ws="none",
            timeout_keep_alive=_IDLE,
            timeout_graceful_shutdown=_LAST_ANSWERS,
        )
        super().__init__(config)
        self.address = ""
        self._guard = app
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: Any = None) -> None:
        """Start, and say where."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        self.address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        settings = self.service.settings
        _LOG.info("%s at %s", ", ".join(settings.models), self.address)
        if settings.host not in LOOPBACK and settings.token is None:
            _LOG.warning("without a token, anyone who reaches it may use it")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take no more requests; a second SIGINT stops at once."""
        service = self.service
        if service.stops and sig == signal.SIGINT:
            self.should_exit = self.force_exit = True
        elif not service.stops and self._loop is not None:
            service.stops = True
            self._loop.call_soon_threadsafe(self._loop.create_task, self._drain())

    async def _drain(self) -> None:
        while self._guard.n_active:
            await asyncio.sleep(0.02)
        self.service.events.close()
        self.should_exit = True
