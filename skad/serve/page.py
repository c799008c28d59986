"""The operator's page, with its figures and marks; and the page about the API."""

from pathlib import Path
from typing import Any, Literal

from fastapi import FastAPI
from fastapi.responses import FileResponse, Response
from pydantic import BaseModel

from skad.monitor.share import share_interval
from skad.report.rendering import TEMPLATES
from skad.serve.collection import Collection
from skad.serve.errors import Refused
from skad.serve.schema import Counts, Error, ModelCounts
from skad.serve.service import Service

_OWN = Path(__file__).with_name("static")
_FILES = {  # those that every page shares, and those of this one
    "page.css": TEMPLATES,
    "heat.js": TEMPLATES,
    "api.css": _OWN,
    "api.js": _OWN,
    "operator.css": _OWN,
    "operator.js": _OWN,
    "trend.js": _OWN,
}
_HEADERS = {
    "Cache-Control": "no-cache",  # they change with the version
    "Content-Security-Policy": "; ".join(
        [
            "default-src 'none'",
            "connect-src 'self'",
            "img-src 'self' data:",
            "script-src 'self'",
            "style-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    ),
}
_ACTIONS = ("accept", "warn", "reject")
_CONFIDENCE = 0.95


class Mark(BaseModel):
    """What a person says about an image."""

    label: Literal["good", "bad"]


class Marked(Mark):
    """A mark, and where the file now is."""

    file: str


def add_page(app: FastAPI, service: Service) -> None:
    """Add the pages, what they load, and the operator's parts of the API."""

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(_OWN / "operator.html", headers=_HEADERS)

    @app.get("/docs", include_in_schema=False)
    async def api() -> Response:
        return FileResponse(_OWN / "api.html", headers=_HEADERS)

    @app.get("/static/{name}", include_in_schema=False)
    async def file(name: str) -> Response:
        if name not in _FILES:
            raise Refused(404, "no such file")
        return FileResponse(_FILES[name] / name, headers=_HEADERS)

    @app.get("/v1/counts", response_model=Counts, responses={401: {"model": Error}})
    async def counts() -> Any:
        """Count the verdicts since the start of the service."""
        return Counts(
            started=service.started,
            collects=service.collection is not None,
            models=[_counts_of(service, name) for name in service.models],
        )

    refusals: Any = {status: {"model": Error} for status in (401, 404, 503)}

    @app.post("/v1/images/{id}/label", response_model=Marked, responses=refusals)
    async def mark(id: str, mark: Mark) -> Any:
        """Write the file of one of the last images into the folder of a label."""
        collection = _collection(service)
        original = collection.original(id)
        path = await service.beside(collection.mark, original, mark.label)
        return Marked(label=mark.label, file=str(path))

    @app.delete("/v1/images/{id}/label", status_code=204, responses=refusals)
    async def unmark(id: str) -> None:
        """Take a mark back, and remove its file."""
        await service.beside(_collection(service).unmark, id)


def _collection(service: Service) -> Collection:
    if service.collection is None:
        raise Refused(404, "marks are not kept: start with --collect FOLDER")
    return service.collection


def _counts_of(service: Service, name: str) -> ModelCounts:
    n = {action: service.n_verdicts[name, action] for action in _ACTIONS}
    flagged, total = n["warn"] + n["reject"], sum(n.values())
    interval = share_interval(flagged, total, 1 - _CONFIDENCE)
    return ModelCounts(name=name, **n, flagged_interval=interval)
