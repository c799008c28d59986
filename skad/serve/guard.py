"""The first to see a request: security, the stop of the service, headers, counts."""

from typing import Any

from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, RedirectResponse, Response

from skad.serve.security import LOGIN, OPEN, Security
from skad.serve.service import Service

EVENTS = "/v1/events"  # streams that last, and end when the service stops
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),  # no-referrer would hide a form's origin
)


class Guard:
    """ASGI middleware around the routes."""

    def __init__(self, app: Any, security: Security, service: Service) -> None:
        self.app, self.security, self.service = app, security, service
        self.n_active = 0  # requests that a stop waits for

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_on(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS]
                self.service.metrics.requests.labels(str(message["status"])).inc()
            await send(message)

        waits = scope["path"] != EVENTS
        self.n_active += waits
        try:
            request = HTTPConnection(scope)
            answer: Any = self._refusal(request) or self.app
            await answer(scope, receive, send_on)
        finally:
            self.n_active -= waits

    def _refusal(self, request: HTTPConnection) -> Response | None:
        path = request.url.path
        if self.service.stops and path not in OPEN:
            headers = {"Retry-After": "5", "Connection": "close"}
            return JSONResponse({"error": "the service stops"}, 503, headers)
        refused = self.security.refuses(request)
        if refused is None:
            return None
        status, reason = refused
        if status == 401 and "text/html" in request.headers.get("accept", ""):
            return RedirectResponse(f"{LOGIN}?{request.url.query}", 303)
        headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
        return JSONResponse({"error": reason}, status, headers)
