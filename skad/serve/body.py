"""Read the body of a request: only so much, only so long, one file."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from skad.serve.errors import Refused

_BODIES_IN_MEMORY = 8  # of the largest size; the others are told to come again
_LINGER = 1.0  # seconds


class Sent(NamedTuple):
    """A file that was sent."""

    data: bytes
    name: str | None


class Bodies:
    """Reads bodies; those under way take no more memory than a few large ones."""

    def __init__(self, most: int, seconds: float) -> None:
        self.most, self.seconds = most, seconds  # bytes of a body, time for it
        self._room = _BODIES_IN_MEMORY * most

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncGenerator[Sent, None]:
        """Give the file in a body, raw or of multipart/form-data, while it is used."""
        told = request.headers.get("content-length", "")
        if told.isdecimal() and int(told) > self.most:
            raise await self._too_large(request)
        body = bytearray()
        try:
            await self._fill(body, request)
            yield await _file_in(request, bytes(body))
        finally:
            self._room += len(body)

    async def _fill(self, body: bytearray, request: Request) -> None:
        try:
            async with asyncio.timeout(self.seconds):
                async for chunk in request.stream():
                    body += chunk
                    self._room -= len(chunk)
                    if len(body) > self.most:
                        raise await self._too_large(request)
                    if self._room < 0:
                        raise Refused(503, "too many large bodies at once", 1)
        except TimeoutError:
            rule = f"a body must arrive within {self.seconds:g} seconds"
            raise Refused(408, f"{rule}; got {len(body)} bytes") from None
        except ClientDisconnect:
            raise Refused(400, "the connection ended before the body") from None

    async def _too_large(self, request: Request) -> Refused:
        """Read on for a moment: who is still sending would not see the answer."""
        size = 0
        with suppress(TimeoutError, ClientDisconnect):
            async with asyncio.timeout(_LINGER):
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > self.most:
                        break
        return Refused(413, f"a body must have at most {self.most} bytes; got more")


async def _file_in(request: Request, body: bytes) -> Sent:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _first_file(request, body)
    if not body:
        raise Refused(422, "the body must be an image file; got nothing")
    return Sent(body, None)


class _InMemory(MultiPartParser):
    spool_max_size = 2**62  # the body is in memory, anyway


async def _first_file(request: Request, body: bytes) -> Sent:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    try:
        form = await _InMemory(request.headers, stream(), max_files=1).parse()
    except MultiPartException as error:
        raise Refused(422, f"the form cannot be read: {error.message}") from None
    try:
        for part in form.values():
            if isinstance(part, UploadFile):
                return Sent(await part.read(), part.filename)
    finally:
        await form.close()
    raise Refused(422, "the form must have one file; got none")
