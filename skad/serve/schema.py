"""The JSON of answers: verdicts and models."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from skad.monitor.status import MonitorStatus
from skad.serve.models import Model
from skad.threshold.conformal import promise_in_words


class _Json(BaseModel):
    model_config = ConfigDict(ser_json_inf_nan="null")


class RegionJson(_Json):
    """A connected anomalous region, in pixels of the file."""

    box: tuple[int, int, int, int] = Field(
        description="row_min, col_min, row_max, col_max; half-open"
    )
    area: int
    peak: float = Field(description="largest value of the anomaly map in it")


class Verdict(_Json):
    """What a model says about an image."""

    id: str
    time: str = Field(description="ISO 8601, UTC")
    source: str | None = Field(description="name of the file, where it has one")
    model: str
    checksum: str = Field(description="SHA-256 of the model's file")
    width: int = Field(description="of the file, upright, in pixels")
    height: int
    score: float = Field(description="higher is more normal")
    decision: float = Field(description="score minus threshold; < 0 is anomalous")
    p_value: float | None = Field(description="conformal, in (0, 1]")
    verdict: str = Field(description="good or anomalous")
    action: str = Field(description="accept, warn or reject")
    promised_fpr: float | None = Field(
        description="promised share of good images that get this action or a worse one;"
        " null where nothing is promised, and for accept"
    )
    regions: list[RegionJson] = Field(description="highest peak first")


class Answer(Verdict):
    """A verdict, and the anomaly map where it was asked for."""

    map: str | None = Field(
        default=None,
        description="8-bit PNG in base64, at the model's resolution; "
        "255 is twice the threshold or more",
    )


class DriftJson(_Json):
    """What the monitor of a model has found."""

    n_images: int = Field(description="that it has seen")
    alarm: bool
    since: int | None = Field(description="estimated number of images before the drift")
    direction: str | None = Field(description="of the scores: lower or higher")
    share_flagged: float | None
    text: str = Field(description="the same, and more, in sentences")


class ModelJson(_Json):
    """A model that is served."""

    name: str
    checksum: str = Field(description="SHA-256 of its file")
    loaded: str = Field(description="when, ISO 8601, UTC")
    runtime: str = Field(description="torch or onnxruntime")
    shape: list[int] = Field(description="height, width and channels of its images")
    threshold: float = Field(description="of the anomaly map")
    promise: str
    warn_fpr: float | None = Field(description="promised rates of false alarms")
    reject_fpr: float | None
    reload_error: str | None = Field(description="why the file there now is not served")
    drift: DriftJson

    @classmethod
    def of(cls, model: Model, drift: MonitorStatus) -> Self:
        """Describe a model."""
        return cls(
            name=model.name,
            checksum=model.checksum,
            loaded=model.loaded,
            runtime=model.runtime,
            shape=list(model.shape),
            threshold=model.threshold,
            promise=promise_in_words(model.backend),
            warn_fpr=model.actions.warn_fpr,
            reject_fpr=model.actions.reject_fpr,
            reload_error=model.reload_error,
            drift=DriftJson(
                n_images=drift.n_images,
                alarm=drift.alarm,
                since=drift.since,
                direction=drift.direction,
                share_flagged=drift.share_flagged,
                text=str(drift),
            ),
        )


class ModelCounts(_Json):
    """How many images got which action from a model, since the start."""

    name: str
    accept: int
    warn: int
    reject: int
    flagged_interval: tuple[float, float] = Field(
        description="95 % interval of the share warned about or rejected; holds at all "
        "times at once"
    )


class Counts(_Json):
    """Counts of verdicts."""

    started: str = Field(description="start of the service, ISO 8601, UTC")
    collects: bool = Field(description="whether images can be marked")
    models: list[ModelCounts]


class Error(BaseModel):
    """Why there is no verdict."""

    error: str
