"""The losses of a training: noted step by step, kept epoch by epoch."""

from collections.abc import Callable
from typing import Any

import numpy as np


class History:
    """The means of the losses of every epoch.

    Parameters
    ----------
    n_epochs : int
    n_steps : int
        Of an epoch.
    progress : callable or None
        Told the step, the number of steps and the losses, after every step.
    """

    def __init__(
        self,
        n_epochs: int,
        n_steps: int,
        progress: Callable[[int, int, dict[str, float]], None] | None,
    ) -> None:
        self.epochs: list[dict[str, float]] = []
        self._steps: list[dict[str, float]] = []  # of the epoch that is not over
        self._n_epochs, self._n_steps = n_epochs, n_steps
        self._progress = progress

    def note(self, step: dict[str, float]) -> None:
        """Take down the losses of the next step."""
        self._steps.append(step)
        if self._progress is not None:
            n_done = len(self.epochs) * self._n_steps + len(self._steps)
            self._progress(n_done, self._n_epochs * self._n_steps, step)
        if len(self._steps) == self._n_steps:
            means = {
                name: float(np.mean([s[name] for s in self._steps])) for name in step
            }
            self.epochs.append({"epoch": len(self.epochs) + 1, **means})
            self._steps = []

    def state_dict(self) -> dict[str, Any]:
        """Return what was taken down so far."""
        return {"epochs": self.epochs, "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.epochs, self._steps = state["epochs"], state["steps"]


def check_finite_loss(numbers: Any, learning_rate: float) -> None:
    """Raise a ValueError where training went astray, and with it what it computes."""
    if not np.isfinite(numbers).all():
        raise diverged(learning_rate)


def diverged(learning_rate: float) -> ValueError:
    """Return the error for a training that went astray."""
    return ValueError(
        f"training with learning_rate={learning_rate} went astray: it computes NaN "
        "or infinity. Lower learning_rate."
    )
