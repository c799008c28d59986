"""How a browser gets in where there is a token: a form, or ?token= in an address."""

from typing import Any
from urllib.parse import parse_qs

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from skad.serve.security import COOKIE, LOGIN, Security

_A_WEEK = 7 * 24 * 3600  # seconds
_MOST = 4096  # bytes of a form
_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Sign in to skad</title>
<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">
<h1>Sign in</h1>{message}
<form method="post"><p><label>Token
<input type="password" name="token" autocomplete="current-password" required autofocus>
</label> <button>Sign in</button></p></form></html>
"""


def add_routes(app: FastAPI, security: Security) -> None:
    """Add the form, and what it is sent to."""

    @app.get(LOGIN, include_in_schema=False)
    async def form(token: str | None = None) -> Response:
        if token is not None:
            return _answer(token, security)
        return HTMLResponse(_PAGE.format(message=""))

    @app.post(LOGIN, include_in_schema=False)
    async def sign_in(request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MOST:
                break
        fields = parse_qs(body[:_MOST].decode("ascii", "replace"))
        return _answer(fields.get("token", [""])[0], security)


def _answer(token: str, security: Security) -> Response:
    if not security.is_token(token):
        message = "<p role=alert>This token is wrong.</p>"
        return HTMLResponse(_PAGE.format(message=message), 401)
    answer = RedirectResponse("/", 303)
    options: Any = {"max_age": _A_WEEK, "httponly": True, "samesite": "strict"}
    answer.set_cookie(COOKIE, security.cookie(), **options)
    return answer
