"""What `skad serve` is told: models, address, limits, and where verdicts go."""

import re
from dataclasses import dataclass
from pathlib import Path

LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Settings:
    """The settings of a service, checked; a ValueError names a wrong one."""

    models: dict[str, Path]  # by name
    host: str = "127.0.0.1"
    port: int = 8000  # 0: any that is free
    allow_host: tuple[str, ...] = ()  # more names by which it may be called
    token: str | None = None  # that clients must send
    device: str | None = None  # of models that run on torch
    warn_fpr: float | None = None  # None: no warnings
    reject_fpr: float | None = None  # None: the model's own threshold rejects
    queue: int = 64  # requests under way, at most
    max_body: int = 32_000_000  # bytes
    max_pixels: int = 50_000_000  # of an image
    body_timeout: float = 15.0  # seconds
    timeout: float = 30.0  # seconds from a whole request to its verdict
    images: int = 100  # recent images that are kept in memory
    collect: Path | None = None  # folder for files that people mark as good or bad
    state: Path | None = None  # folder of the log of verdicts and of the monitors
    log_size: int = 1_000_000  # verdicts in the log, at most
    webhook: str | None = None
    webhook_on: str = "reject"
    spool: int = 10_000  # verdicts that wait for the webhook, at most
    watch: Path | None = None  # folder whose new images are inspected
    watch_model: str | None = None  # None: the only one

    def __post_init__(self) -> None:
        """Check what belongs together."""
        for name in ("warn_fpr", "reject_fpr"):
            rate = getattr(self, name)
            if rate is not None and not 0 < rate < 1:
                raise ValueError(f"{name} must be above 0 and below 1; got {rate:g}")
        for name in ("queue", "max_body", "max_pixels", "images", "log_size", "spool"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name} must be at least 1; got {getattr(self, name)}"
                )
        for name in ("body_timeout", "timeout"):
            seconds = getattr(self, name)
            if not 0 < seconds < 86_400:
                raise ValueError(f"{name} must be seconds of a day; got {seconds:g}")
        if not 0 <= self.port < 65_536:
            raise ValueError(f"port must be from 0 to 65535; got {self.port}")
        if self.webhook is not None:
            if not self.webhook.startswith(("http://", "https://")):
                rule = "webhook must be an http:// or https:// address"
                raise ValueError(f"{rule}; got {self.webhook!r}")
            if self.state is None:
                raise ValueError(
                    "webhook needs a folder for verdicts that wait; add --state FOLDER"
                )
        if self.token is not None and (not self.token.isascii() or len(self.token) < 8):
            raise ValueError("the token must have at least 8 characters, all of ASCII")
        if self.watch is not None and not self.watch.is_dir():
            raise ValueError(f"watch must be a folder; got {self.watch}")
        self._check_watched_model()

    def _check_watched_model(self) -> None:
        several = self.watch is not None and len(self.models) > 1
        known = self.watch_model in self.models or self.watch_model is None
        if not known or (several and self.watch_model is None):
            names = ", ".join(self.models)
            raise ValueError(
                f"watch_model must be one of {names}; got {self.watch_model}"
            )


def named_models(paths: list[Path], names: list[str] | None) -> dict[str, Path]:
    """Return model files by name: those given, or the files' names."""
    if names is not None and len(names) != len(paths):
        rule = "name must be given once for each model, in their order"
        raise ValueError(f"{rule}; got {len(names)} for {len(paths)} models")
    names = names or [path.name.partition(".")[0] for path in paths]
    if len(set(names)) < len(names):
        raise ValueError(f"name must differ between models; got {', '.join(names)}")
    for name in names:  # it is a label, and part of a file's name
        if not re.fullmatch(r"[\w.-]+", name):
            rule = "name must be of letters, digits, '_', '-' and '.'"
            raise ValueError(f"{rule}; got {name!r}. Pass other names")
    return dict(zip(names, paths, strict=True))
