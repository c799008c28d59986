"""From a score to what the line does with a part: accept, warn or reject."""

from dataclasses import dataclass

from skad.common.warnings import warn
from skad.serve.backends import Backend


@dataclass(frozen=True)
class Actions:
    """Thresholds of scores, and the false-alarm rates that they promise (or NaN)."""

    warn_below: float  # not lower than `reject_below`
    reject_below: float
    warn_fpr: float  # promised share of good images that are warned about or rejected
    reject_fpr: float  # promised share of good images that are rejected

    def of(self, score: float) -> str:
        """Return the action; lower scores are worse."""
        if score < self.reject_below:
            return "reject"
        return "warn" if score < self.warn_below else "accept"

    def promise(self, action: str) -> float | None:
        """Return the promised share of good images with this action or a worse one."""
        return {"warn": self.warn_fpr, "reject": self.reject_fpr}.get(action)


def set_actions(
    backend: Backend, warn_fpr: float | None, reject_fpr: float | None
) -> Actions:
    """Return the actions of a model, and set its threshold to the one that warns.

    So "anomalous" and regions mean what is warned about or rejected. Without rates, the
    model's own threshold rejects.
    """
    if reject_fpr is not None:
        backend.retarget(reject_fpr)
    reject = float(backend.offset_), float(backend.promised_fpr_)
    if warn_fpr is not None:
        backend.retarget(warn_fpr)
    warns = float(backend.offset_), float(backend.promised_fpr_)
    if warns[0] < reject[0]:
        raise ValueError(
            "warn_fpr must be above the rate of what is rejected; got "
            f"{warns[1]:g} to warn, and {reject[1]:g} to reject"
        )
    if warn_fpr is not None and warns[0] == reject[0]:
        warn(
            "too few calibration images tell warn_fpr from what rejects: no image will "
            "be warned about"
        )
    return Actions(warns[0], reject[0], warns[1], reject[1])
