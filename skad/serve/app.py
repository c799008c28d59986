"""The routes of the service."""

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from prometheus_client import generate_latest
from starlette.exceptions import HTTPException

from skad import __version__
from skad.serve import login
from skad.serve.background import running
from skad.serve.body import Bodies
from skad.serve.errors import Refused
from skad.serve.guard import EVENTS, Guard
from skad.serve.page import add_page
from skad.serve.schema import Answer, Error, ModelJson, Verdict
from skad.serve.security import Security
from skad.serve.service import Service

_LOG = logging.getLogger(__name__)
_ANY_FILE: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_FORM = {"type": "object", "properties": {"file": _ANY_FILE["schema"]}}
_BODY = {  # for openapi.json; `Bodies` reads it
    "required": True,
    "content": {"image/*": _ANY_FILE, "multipart/form-data": {"schema": _FORM}},
}
_FOR_EVER = {"Cache-Control": "private, max-age=86400, immutable"}  # ids never return
_WHY_NOT = {
    401: "no token, or a wrong one",
    404: "there is none",
    408: "the body came too slowly",
    413: "the body is too large, or the image has too many pixels",
    422: "the file cannot be read, or is none for this model",
    503: "too many requests are under way; Retry-After tells when to come again",
    504: "there was no verdict in time",
}


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {n: {"model": Error, "description": _WHY_NOT[n]} for n in statuses}


def make_app(service: Service) -> Guard:
    """Return the application, in its guard."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        async with running(service):
            yield

    app = FastAPI(
        title="skad",
        version=__version__,
        summary="Verdicts of anomaly detectors about images.",
        lifespan=lifespan,
        docs_url=None,  # these pages would load scripts from elsewhere
        redoc_url=None,
    )
    security = Security(service.settings)
    _add_inspection(app, service)
    _add_views(app, service)
    _add_pictures(app, service)
    _add_operation(app, service)
    add_page(app, service)
    login.add_routes(app, security)
    _add_errors(app)
    return Guard(app, security, service)


def _add_inspection(app: FastAPI, service: Service) -> None:
    bodies = Bodies(service.settings.max_body, service.settings.body_timeout)

    @app.post(
        "/v1/inspect",
        response_model=Answer,
        response_model_exclude_unset=True,
        responses=_errors(401, 404, 408, 413, 422, 503, 504),
        openapi_extra={"requestBody": _BODY},
    )
    async def inspect(
        request: Request,
        model: Annotated[
            str | None, Query(description="a name, if there are several")
        ] = None,
        map: Annotated[
            Literal["png"] | None, Query(description="png: with the anomaly map")
        ] = None,
    ) -> Any:
        """Inspect an image: the body, or the file of a form."""
        service.refuse_if_full()  # before a body is read in vain
        used, wants_map = service.model(model), map == "png"
        async with bodies.read(request) as sent:
            with service.place():
                found = await service.inspect(sent.data, used, sent.name, wants_map)
        return Response(found.model_dump_json(), media_type="application/json")


def _add_views(app: FastAPI, service: Service) -> None:
    @app.get("/v1/models", response_model=list[ModelJson], responses=_errors(401))
    async def models() -> Any:
        """Describe the models."""
        return [service.describe(model) for model in service.models.values()]

    @app.delete(
        "/v1/models/{name}/drift",
        response_model=ModelJson,
        responses=_errors(401, 404),
    )
    async def restart_monitor(name: str) -> Any:
        """Let the monitor begin anew, once the cause of an alarm is mended."""
        model = service.model(name)
        service.drift[name].restart()
        service.tell_model(model)
        return service.describe(model)

    @app.get("/v1/verdicts", response_model=list[Verdict], responses=_errors(401))
    async def verdicts() -> Any:
        """Return the last verdicts, newest first: those whose images are kept."""
        return [recent.verdict for recent in reversed(service.recent.values())]

    @app.get(
        EVENTS,
        response_class=StreamingResponse,
        responses=_errors(401, 503) | {200: {"content": {"text/event-stream": {}}}},
    )
    async def events() -> Any:
        """Tell as server-sent events what happens: verdict, model, unreadable, lost."""
        if len(service.events) >= service.events.most_listeners:
            raise Refused(503, "too many listeners", 10)
        headers = {"Cache-Control": "no-store"}
        stream = service.events.listen()
        return StreamingResponse(stream, 200, headers, "text/event-stream")


def _add_pictures(app: FastAPI, service: Service) -> None:
    @app.get(
        "/v1/images/{id}",
        response_class=Response,
        responses=_errors(401, 404) | {200: {"content": {"image/jpeg": _ANY_FILE}}},
    )
    async def image(id: str) -> Any:
        """Return a small JPEG picture of one of the last images."""
        jpeg = await service.beside(service.small(id).jpeg)
        return Response(jpeg, 200, _FOR_EVER, "image/jpeg")

    @app.get(
        "/v1/images/{id}/map",
        response_class=Response,
        responses=_errors(401, 404) | {200: {"content": {"image/png": _ANY_FILE}}},
    )
    async def anomaly_map(id: str) -> Any:
        """Return its map: 8 bits, 255 is twice the threshold or more."""
        png = await service.beside(service.small(id).map_png)
        return Response(png, 200, _FOR_EVER, "image/png")


def _add_operation(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", response_model=dict[str, str])
    async def healthz() -> Any:
        """Say that the process answers."""
        return {"status": "ok"}

    @app.get("/readyz", response_model=dict[str, Any])
    async def readyz() -> Any:
        """Say whether images can be inspected, and which new model was refused."""
        failed = [m.name for m in service.models.values() if m.reload_error]
        status = "stopping" if service.stops else "ready"
        details = {"status": status, "models_not_reloaded": failed}
        return JSONResponse(details, 503 if service.stops else 200)

    @app.get("/metrics", response_class=Response, responses=_errors(401))
    async def metrics() -> Any:
        """Return the metrics for Prometheus."""
        service.measure()
        text = generate_latest(service.metrics.registry)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> JSONResponse:
        headers = {"Connection": "close"} if error.status in (408, 413) else {}
        if error.retry_after is not None:
            headers["Retry-After"] = str(error.retry_after)
        return JSONResponse({"error": error.reason}, error.status, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"][1:]))
        return JSONResponse({"error": f"{where}: {first['msg']}"}, 422)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        _LOG.error("%s failed", request.url.path, exc_info=error)
        return JSONResponse({"error": "the service failed; its log says why"}, 500)
