"""From the bytes of an image to a verdict: computed, written down, told, answered."""

import asyncio
import logging
import secrets
import sqlite3
import time
from collections import Counter, OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple

from skad.images.decoding import Frame
from skad.serve import pictures
from skad.serve.collection import Collection, Original
from skad.serve.errors import Refused
from skad.serve.events import Events
from skad.serve.journal import Journal
from skad.serve.metrics import Metrics
from skad.serve.models import Model
from skad.serve.monitors import DriftWatch
from skad.serve.schema import Answer, ModelJson, RegionJson, Verdict
from skad.serve.settings import Settings
from skad.serve.webhook import WANTED
from skad.serve.worker import Worker

_LOG = logging.getLogger(__name__)
_DECODERS = 2  # threads; each holds one decoded image
_RETRY_AFTER = 1  # seconds, for a client that found the queue full


class Recent(NamedTuple):
    """An image that was inspected."""

    verdict: Verdict
    small: pictures.Small


class Service:
    """Models, the requests under way, and what becomes of their verdicts."""

    def __init__(self, settings: Settings, models: dict[str, Model]) -> None:
        self.settings, self.models = settings, models
        self.metrics, self.events = Metrics(), Events()
        self.journal: Journal | None = None
        if settings.state is not None:
            limits = settings.log_size, settings.spool
            self.journal = Journal(settings.state, *limits, self.metrics.dropped.inc)
        self.drift = {k: DriftWatch(m, settings.state) for k, m in models.items()}
        self.recent: OrderedDict[str, Recent] = OrderedDict()  # by id, oldest first
        self.collection: Collection | None = None
        if settings.collect is not None:
            of_models = list(models), settings.images
            self.collection = Collection(settings.collect, *of_models)
        self.n_verdicts: Counter[tuple[str, str]] = Counter()  # by model and action
        self.started = datetime.now(UTC).isoformat(timespec="seconds")
        self.n_under_way = 0
        self.stops = False  # no new requests are taken
        self._worker = Worker()
        self._decoders = ThreadPoolExecutor(_DECODERS, "skad-decode")

    def close(self) -> None:
        """Finish what is under way, and store the state."""
        self._decoders.shutdown()
        self._worker.close()
        for drift in self.drift.values():
            drift.save()
        if self.journal is not None:
            self.journal.close()

    def model(self, name: str | None) -> Model:
        """Return a model by its name, or the only one."""
        if name is None and len(self.models) == 1:
            return next(iter(self.models.values()))
        if name is None or name not in self.models:
            rule = f"model must be one of {', '.join(self.models)}"
            raise Refused(404 if name else 422, f"{rule}; got {name!r}")
        return self.models[name]

    def small(self, id: str) -> pictures.Small:
        """Return the pictures of one of the last images."""
        if id not in self.recent:
            most = self.settings.images
            raise Refused(404, f"no such image: the last {most} are kept in memory")
        return self.recent[id].small

    def measure(self) -> None:
        """Set the metrics that are read only when somebody asks."""
        self.metrics.queue.set(self.n_under_way)
        self.metrics.listeners.set(len(self.events))
        for name, drift in self.drift.items():
            self.metrics.drift.labels(name).set(drift.alarm)
        if self.journal is not None:
            self.metrics.waiting.set(self.journal.n_waiting)

    def refuse_if_full(self) -> None:
        """Raise Refused if there is no place in the queue."""
        if self.n_under_way >= self.settings.queue:
            rule = f"{self.n_under_way} requests are under way, and no more may wait"
            raise Refused(503, rule, _RETRY_AFTER)

    def put(self, model: Model, drift: DriftWatch) -> None:
        """Serve a model from now on, in the place of that of its name."""
        self.models[model.name], self.drift[model.name] = model, drift
        self.tell_model(model)

    def describe(self, model: Model) -> ModelJson:
        """Describe a model, and the drift of its images."""
        return ModelJson.of(model, self.drift[model.name].status())

    def tell_model(self, model: Model) -> None:
        """Tell the listeners that something about a model has changed."""
        self.events.publish("model", self.describe(model).model_dump_json())

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold one of the places in the queue; Refused if there is none."""
        self.refuse_if_full()
        self.n_under_way += 1
        try:
            yield
        finally:
            self.n_under_way -= 1

    async def inspect(
        self, data: bytes, model: Model, source: str | None = None, map: bool = False
    ) -> Verdict:
        """Inspect the bytes of an image file; Refused tells why there is no verdict."""
        start = time.perf_counter()
        limit = self.settings.timeout
        try:
            async with asyncio.timeout(limit):
                frame, result = await self._result(data, model)
        except TimeoutError:
            raise Refused(504, f"there is no verdict after {limit:g} seconds") from None
        verdict = _verdict(model, source, frame, result)
        as_json = verdict.model_dump_json()
        await self._write_down(verdict.action, as_json)
        self.metrics.seconds.observe(time.perf_counter() - start)
        self.metrics.verdicts.labels(model.name, verdict.action).inc()
        self.n_verdicts[model.name, verdict.action] += 1
        seen = (result.anomaly_map, model.threshold)
        self._remember(Recent(verdict, pictures.Small.of(frame, *seen)))
        if self.collection is not None:
            self.collection.keep(Original(data, verdict))
        self.events.publish("verdict", as_json)
        self._watch(model, result.score, frame.image)
        if not map:
            return verdict
        return Answer(**dict(verdict), map=await self.beside(pictures.map_png, *seen))

    def beside(self, call: Any, *args: Any) -> asyncio.Future[Any]:
        """Call in a thread for decoding and encoding."""
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(self._decoders, call, *args)

    async def _result(self, data: bytes, model: Model) -> tuple[Frame, Any]:
        most = self.settings.max_pixels
        frame = await self.beside(pictures.read, data, model.reader, most)
        image = frame.image.reshape(model.shape)  # (H, W) or (H, W, C)
        try:
            computed = self._worker.submit(model.backend, image)
            return frame, await asyncio.wrap_future(computed)
        except ValueError as error:  # as for floats, where it learned from integers
            raise Refused(422, str(error)) from None
        except Exception as error:  # as where memory runs out
            _LOG.error("model %s failed", model.name, exc_info=error)
            raise Refused(
                500, "the model failed; the log of the service says why"
            ) from error

    async def _write_down(self, action: str, verdict: str) -> None:
        if self.journal is None:
            return
        wanted = self.settings.webhook is not None
        waits = wanted and action in WANTED[self.settings.webhook_on]
        try:
            await self.journal.append(verdict, waits)
        except sqlite3.Error as error:
            _LOG.error("the log of verdicts cannot be written: %s", error)
            raise Refused(503, "the verdict cannot be written down") from None

    def _watch(self, model: Model, score: float, image: Any) -> None:
        """Let the monitor see an image; its answer does not wait for that.

        The threads that decode do it, so that no more images wait than are under way.
        """

        def then(raised: asyncio.Future[bool]) -> None:
            if raised.result():
                _LOG.warning("the images of %s drift", model.name)
                self.tell_model(model)

        update = self.beside(self.drift[model.name].update, score, image)
        update.add_done_callback(then)

    def _remember(self, recent: Recent) -> None:
        self.recent[recent.verdict.id] = recent
        if len(self.recent) > self.settings.images:
            self.recent.popitem(last=False)


def _verdict(model: Model, source: str | None, frame: Frame, result: Any) -> Verdict:
    action = model.actions.of(result.score)
    size = model.shape[:2]
    return Verdict(
        id=secrets.token_hex(8),
        time=datetime.now(UTC).isoformat(timespec="milliseconds"),
        source=source,
        model=model.name,
        checksum=model.checksum,
        width=frame.size[1],
        height=frame.size[0],
        score=result.score,
        decision=result.decision,
        p_value=result.p_value,
        verdict=result.verdict,
        action=action,
        promised_fpr=model.actions.promise(action),
        regions=[
            RegionJson(box=region.bbox, area=region.area, peak=region.peak)
            for region in (r.scaled(size, frame.size) for r in result.regions)
        ],
    )
