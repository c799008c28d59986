"""What a service does by itself: load replaced models, watch a folder, deliver."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from skad.serve.errors import Refused
from skad.serve.models import Model, reloaded, stamp_of
from skad.serve.monitors import DriftWatch
from skad.serve.schema import Error
from skad.serve.service import Service
from skad.serve.watch import new_images
from skad.serve.webhook import deliver

_LOG = logging.getLogger(__name__)
_POLL = 1.0  # seconds between looks at the files of models
_STORE = 300.0  # seconds between writes of the monitors' states
_RESTART = 5.0  # seconds after a failure that nobody has thought of


@asynccontextmanager
async def running(service: Service) -> AsyncGenerator[None, None]:
    """Work in the background until the block ends."""
    settings = service.settings
    jobs: list[Any] = [
        lambda: _keep_models_current(service),
        lambda: _store_monitors(service),
    ]
    if settings.webhook is not None and service.journal is not None:
        journal, url = service.journal, settings.webhook
        jobs.append(lambda: deliver(journal, url))
    if settings.watch is not None:
        folder = settings.watch
        jobs.append(lambda: _watch(service, folder))
    tasks = [asyncio.create_task(_for_ever(job)) for job in jobs]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _for_ever(job: Any) -> None:
    """Start a job anew where it fails, so that one bad moment does not end it."""
    while True:
        try:
            await job()
        except Exception:
            _LOG.exception("a background job failed; it starts anew")
        await asyncio.sleep(_RESTART)


async def _keep_models_current(service: Service) -> None:
    """Load models whose files were replaced, once these are still for a moment."""
    seen: dict[str, tuple[int, ...]] = {}
    while True:
        await asyncio.sleep(_POLL)
        for name, model in list(service.models.items()):
            stamp = stamp_of(model.path)
            if stamp not in (model.stamp, ()) and stamp == seen.get(name):
                await _reload(service, model)
            seen[name] = stamp


async def _reload(service: Service, model: Model) -> None:
    new = await asyncio.to_thread(reloaded, model, service.settings)
    failed = new.reload_error is not None
    result = "failed" if failed else "loaded"
    service.metrics.reloads.labels(model.name, result).inc()
    if failed:
        _LOG.error("the old model %s stays: %s", model.name, new.reload_error)
    else:
        _LOG.info("model %s was replaced: %s", model.name, new.checksum)
    drift = service.drift[model.name]
    if not failed:
        await asyncio.to_thread(drift.save)
        drift = await asyncio.to_thread(DriftWatch, new, service.settings.state)
    service.put(new, drift)


async def _store_monitors(service: Service) -> None:
    while True:
        await asyncio.sleep(_STORE)
        for drift in list(service.drift.values()):
            await asyncio.to_thread(drift.save)


async def _watch(service: Service, folder: Path) -> None:
    """Inspect each new image of a folder, one after the other."""
    model = service.model(service.settings.watch_model)
    async for path in new_images(folder):
        try:
            await _inspect_file(service, path, model.name)
        except Refused as refused:
            service.metrics.unreadable.inc()
            reason = f"{path.name}: {refused.reason}"
            _LOG.error("no verdict for %s", reason)
            service.events.publish("unreadable", Error(error=reason).model_dump_json())


async def _inspect_file(service: Service, path: Path, model: str) -> None:
    """Inspect a file, when there is a place in the queue."""
    try:
        if path.stat().st_size > service.settings.max_body:
            raise Refused(
                413, f"a file must have at most {service.settings.max_body} bytes"
            )
        data = await asyncio.to_thread(path.read_bytes)
    except OSError as error:
        raise Refused(422, error.strerror or str(error)) from None
    while True:
        try:
            with service.place():
                await service.inspect(data, service.model(model), path.name)
            return
        except Refused as refused:
            if refused.retry_after is None:
                raise
            await asyncio.sleep(refused.retry_after)
