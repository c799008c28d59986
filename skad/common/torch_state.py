"""What is global in torch, as it is when torch starts, whatever a program has set."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import Lock

import torch

_lock = Lock()
_n_inside = 0  # computations that go on in all threads, which share the default type
_default = torch.float32  # what it was before the first of them


@contextmanager
def as_at_start() -> Iterator[None]:
    """Compute with gradients, and in float32 where no type is said."""
    with (
        _float32_by_default(),
        torch.inference_mode(False),
        torch.enable_grad(),
        _without_overrides(),
    ):
        yield


@contextmanager
def inference() -> Iterator[None]:
    """Compute without gradients, in the types that the numbers have."""
    with torch.inference_mode(), _without_overrides():
        yield


@contextmanager
def _without_overrides() -> Iterator[None]:
    """Switch off what changes types, and where a tensor is made that has no device."""
    with ExitStack() as stack:
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        yield


@contextmanager
def _float32_by_default() -> Iterator[None]:
    global _n_inside, _default
    with _lock:
        if not _n_inside:
            _default = torch.get_default_dtype()
            torch.set_default_dtype(torch.float32)
        _n_inside += 1
    try:
        yield
    finally:
        with _lock:
            _n_inside -= 1
            if not _n_inside:
                torch.set_default_dtype(_default)
