"""What a monitor says: values, and one sentence."""

import math
from dataclasses import dataclass

from skad.monitor.features import Change


@dataclass(frozen=True)
class MonitorStatus:
    """What a `Monitor` has found in the images that it has seen.

    Attributes
    ----------
    n_images : int
    alpha : float
        An alarm is false with at most this probability; 1 - alpha is the confidence of
        the interval.
    alarm : bool
    alarm_at : int or None
        How many images had come when the martingale reached 1 / alpha.
    log_martingale : float
        Its natural logarithm now; it may have fallen again since the alarm.
    since : int or None
        With an alarm, an estimate of the change: the number of images before it.
    direction : {"lower", "higher"} or None
        Where the scores went; lower ones are more anomalous.
    changes : dict of str to Change
        With an alarm, the score and features of images before `since` and from then on.
        For scores, the calibration scores count as before.
    share_flagged : float
        Share of images below the threshold; NaN without images.
    flagged_interval : tuple of float
        For the probability of that, if it is constant; holds at all times at once.
    """

    n_images: int
    alpha: float
    alarm: bool
    alarm_at: int | None
    log_martingale: float
    since: int | None
    direction: str | None
    changes: dict[str, Change]
    share_flagged: float
    flagged_interval: tuple[float, float]

    @property
    def martingale(self) -> float:
        """The martingale; infinity above 1e308."""
        return math.exp(self.log_martingale) if self.log_martingale < 709 else math.inf

    def __str__(self) -> str:
        """Say it in a few sentences."""
        return f"{self._verdict()} {self._flagged()}"

    def _verdict(self) -> str:
        if not self.alarm:
            return (
                f"No alarm after {self.n_images} images: the martingale is "
                f"{self.martingale:.3g}, and {1 / self.alpha:g} would be an alarm."
            )
        notable = {name: one for name, one in self.changes.items() if one.is_notable}
        order = sorted(notable, key=lambda name: -abs(notable[name].n_errors))
        moved = [
            f"{name} {notable[name].before:.3g} -> {notable[name].since:.3g}"
            for name in order
        ]
        what = f" Changed: {', '.join(moved)}." if moved else ""
        return (
            f"ALARM at image {self.alarm_at} of {self.n_images}: scores are "
            f"{self.direction} since about image {(self.since or 0) + 1}.{what} "
            f"Without drift, an alarm comes in at most {100 * self.alpha:g} % of runs."
        )

    def _flagged(self) -> str:
        if not self.n_images:
            return "Nothing is flagged yet."
        low, high = (100 * end for end in self.flagged_interval)
        return (
            f"Flagged: {100 * self.share_flagged:.3g} % of the images "
            f"({100 - 100 * self.alpha:g} % interval: {low:.3g} to {high:.3g} %)."
        )
