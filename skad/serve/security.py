"""Who may call the service: host names, origins and the token."""

import hashlib
import hmac
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from skad.serve.settings import LOOPBACK, Settings

COOKIE = "skad_session"
OPEN = {"/healthz", "/readyz"}  # to probes, which know neither host nor token
LOGIN = "/login"


class Security:
    """Checks of hosts, origins and tokens by the settings of a service."""

    def __init__(self, settings: Settings) -> None:
        self.token = settings.token
        self.hosts = {*LOOPBACK, settings.host, *map(str.lower, settings.allow_host)}
        self.hosts -= {"0.0.0.0", "::"}  # of every address, and no name of one

    def refuses(self, request: HTTPConnection) -> tuple[int, str] | None:
        """Return status and reason if a request may not be answered."""
        if request.url.path in OPEN:
            return None
        host = request.headers.get("host", "")
        if _name_of(f"//{host}") not in self.hosts:
            return 403, f"host {host!r} is not allowed: start with --allow-host HOST"
        origin = request.headers.get("origin")  # of the page that a browser shows
        if origin is not None and _name_of(origin) not in self.hosts:
            return 403, "pages of other origins may not call this service"
        if request.url.path != LOGIN and not self.knows(request):
            return 401, "send the token: Authorization: Bearer TOKEN"
        return None

    def knows(self, request: HTTPConnection) -> bool:
        """Tell whether a request has the token, in its header or as a cookie."""
        if self.token is None:
            return True
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self.is_token(given.strip())
        cookie = request.cookies.get(COOKIE, "")
        return _is_same(cookie, self.cookie())

    def is_token(self, given: str) -> bool:
        """Compare in a time that tells nothing."""
        return self.token is not None and _is_same(given, self.token)

    def cookie(self) -> str:
        """Return the value of the cookie: who reads it does not learn the token."""
        key = (self.token or "").encode()
        return hmac.new(key, b"skad serve", hashlib.sha256).hexdigest()


def _is_same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


def _name_of(url: str) -> str | None:
    """Return the host of an address, without its port."""
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
