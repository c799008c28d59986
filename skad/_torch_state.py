"""What is global in torch, as it is when torch starts, whatever a program has set."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def as_at_start() -> Iterator[None]:
    """Compute with gradients, and in float32 where no type is said."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        torch.set_default_dtype(default)
