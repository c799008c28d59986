"""Monitor: raises an alarm when scores drift, with a promised rate of false alarms."""

import math
import os
from array import array
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skad.common.checks import as_float, check_whole
from skad.common.warnings import warn
from skad.monitor.features import changes, image_features
from skad.monitor.martingale import (
    N_BETS,
    first_capital,
    insert_and_rank,
    log_factors,
    log_martingale,
    next_capital,
)
from skad.monitor.share import share_interval
from skad.monitor.state import checksum, read_state, write_state
from skad.monitor.status import MonitorStatus


class Monitor:
    """Watches the scores of a detector, and raises an alarm when they drift.

    If all images are exchangeable with the calibration images, the probability of an
    alarm is at most `alpha`, however long the monitor runs (Ville's inequality). It
    looks for lower scores, which mean more rejects, and for higher ones: of blurred
    images, say, where defects may be missed.

    Parameters
    ----------
    detector : object
        A fitted detector. Of another object, `calibration_scores_` (m,) and `offset_`
        are used, and `score_samples` by `update_images`.
    alpha : float, default=0.01
        In (0, 1): largest probability of a false alarm over the whole run.
    baseline : int, default=0
        So many first images of the stream take the place of the calibration images.
        Use it where a share of the images is always defective.
    random_state : int, default=0
        Breaks ties among scores.

    Attributes
    ----------
    alarm : bool
        Whether there was an alarm. It stays: make a new monitor once the cause is
        removed, or the detector recalibrated.
    alarm_at : int or None
        How many images had come by then.
    n_images : int
        How many images were seen.

    Raises
    ------
    ValueError
        If there are no calibration scores, any is not finite, or a parameter is out of
        range.

    Notes
    -----
    A score takes O(log n) comparisons; about 64 bytes are kept of an image. Let one
    thread at a time use a monitor.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import numpy as np
    >>> from skad import Monitor
    >>> rng = np.random.default_rng(0)
    >>> good = SimpleNamespace(calibration_scores_=rng.normal(size=60), offset_=-2.0)
    >>> monitor = Monitor(good)
    >>> monitor.update(rng.normal(size=200))
    False
    >>> monitor.update(rng.normal(size=30) - 2)
    True
    >>> status = monitor.status()
    >>> status.alarm_at, status.since, status.direction
    (209, 200, 'lower')
    """

    def __init__(
        self,
        detector: Any,
        *,
        alpha: float = 0.01,
        baseline: int = 0,
        random_state: int = 0,
    ) -> None:
        if not 0 < as_float(alpha) < 1:
            raise ValueError(f"alpha must be a number between 0 and 1; got {alpha!r}.")
        self.detector = detector
        self.alpha = float(alpha)
        self.baseline = check_whole("baseline", baseline, 0)
        self.random_state = check_whole("random_state", random_state, 0)
        self.alarm_at: int | None = None
        self._calibration = _calibration_scores(detector)
        self._rng = np.random.default_rng(self.random_state)
        self._scores = array("d")  # in the order in which they came
        self._features: dict[str, array[float]] = {}  # NaN where there was no image
        self._pool = array("d", () if baseline else np.sort(self._calibration))
        self._log_capital = first_capital()
        self._evidence = np.zeros(N_BETS)  # of a change at `_starts`, for each bet
        self._starts = np.zeros(N_BETS, int)
        self._change: tuple[int, str] | None = None
        if getattr(detector, "is_cross_fitted_", False) and not baseline:
            warn(
                "The calibration scores are cross-fitted, and new images are not "
                "exchangeable with them: alpha is no promise. Pass baseline=50, or so, "
                "to compare the stream with its own beginning."
            )

    @property
    def alarm(self) -> bool:
        """Whether there was an alarm."""
        return self.alarm_at is not None

    @property
    def n_images(self) -> int:
        """How many images were seen."""
        return len(self._scores)

    def update_images(self, X: Any) -> bool:
        """Score images with the detector, and watch scores and features of the images.

        X is what `detector.score_samples` takes; a lazy sequence is read twice. It
        returns and raises what `update` does.
        """
        return self.update(self.detector.score_samples(X), X)

    def update(self, scores: ArrayLike, images: Sequence[Any] | None = None) -> bool:
        """Watch scores that have come, oldest first.

        Parameters
        ----------
        scores : array-like of shape (n,)
            Of the detector's `score_samples`.
        images : sequence of n images (H, W) or (H, W, C), default=None
            Their brightness, contrast, sharpness and colours are kept, so that `status`
            can say what changed.

        Returns
        -------
        bool
            Whether there was an alarm, now or before.

        Raises
        ------
        ValueError
            If a score is not finite, or the numbers of scores and images differ.
            Nothing is kept of such a call.
        """
        new = _finite("scores", scores)
        if images is not None and len(images) != len(new):
            raise ValueError(
                f"images must be as many as scores; got {len(images)} images and "
                f"{len(new)} scores."
            )
        features = [] if images is None else list(map(image_features, images))
        for i, score in enumerate(new.tolist()):
            self._keep(features[i] if features else {})
            self._step(score)
        return self.alarm

    def status(self) -> MonitorStatus:
        """Return what was found so far; as a str, it is a few sentences."""
        scores, since, found = np.array(self._scores), None, {}
        if self._change is not None:
            since = self._change[0]
            features = {name: np.array(some) for name, some in self._features.items()}
            found = changes(features, since)
            known = scores[:0] if self.baseline else self._calibration
            level = {"score": np.concatenate([known, scores])}
            found |= changes(level, len(known) + since)
        n, flagged = len(scores), int((scores < self.detector.offset_).sum())
        return MonitorStatus(
            n_images=n,
            alpha=self.alpha,
            alarm=self.alarm,
            alarm_at=self.alarm_at,
            log_martingale=float(log_martingale(self._log_capital, self._n_bet)),
            since=since,
            direction=self._change[1] if self._change else None,
            changes=found,
            share_flagged=flagged / n if n else math.nan,
            flagged_interval=share_interval(flagged, n, self.alpha),
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all that was seen to a file, as JSON.

        About 75 bytes an image, with features.
        """
        parameters = {
            "alpha": self.alpha,
            "baseline": self.baseline,
            "random_state": self.random_state,
        }
        model = checksum(self._calibration)
        write_state(path, model, parameters, self._scores, self._features)

    @classmethod
    def load(cls, path: str | os.PathLike[str], detector: Any) -> Self:
        """Return the monitor of a file that `save` wrote, to the last bit as it was.

        It sees all scores again, about 3 s for 100,000. Raises a ValueError if the file
        is no state of a monitor, or if the calibration scores of the detector are not
        those of the monitor.
        """
        model = checksum(_calibration_scores(detector))
        parameters, scores, features = read_state(path, model)
        monitor = cls(detector, **parameters)
        monitor.update(scores)
        monitor._features = dict(features)
        return monitor

    def _keep(self, features: dict[str, float]) -> None:
        """Keep the features of the next image; call before its score is kept."""
        missing = array("d", [math.nan])
        for name in features.keys() - self._features.keys():
            self._features[name] = missing * self.n_images
        for name, kept in self._features.items():
            kept.append(features.get(name, math.nan))

    @property
    def _n_bet(self) -> int:
        """How many scores were bet on: all after the baseline."""
        return max(self.n_images - self.baseline, 0)

    def _step(self, score: float) -> None:
        """Rank one score, bet, and see whether that is an alarm."""
        i = self.n_images
        self._scores.append(score)
        p = insert_and_rank(self._pool, score, self._rng.random())
        n = self._n_bet
        if n == 0:
            return
        grown = log_factors(p)
        self._log_capital = next_capital(self._log_capital, grown, n)
        # A bet gains most from where its sum of gains was last at its least (CUSUM).
        self._starts[self._evidence <= 0] = i
        self._evidence = np.maximum(self._evidence, 0) + grown
        is_high = log_martingale(self._log_capital, n) >= -math.log(self.alpha)
        if is_high and not self.alarm:
            self.alarm_at = i + 1
            best = int(self._evidence.argmax())
            direction = "lower" if best < N_BETS // 2 else "higher"
            self._change = int(self._starts[best]), direction


def _finite(name: str, values: Any) -> NDArray[np.float64]:
    """Return finite numbers (n,) as an array; raise a ValueError for others."""
    found = np.asarray(values, float)
    if found.ndim != 1:
        raise ValueError(f"{name} must be of shape (n,); got shape {found.shape}.")
    wrong = np.flatnonzero(~np.isfinite(found))
    if len(wrong):
        raise ValueError(
            f"{name} must be finite; number {wrong[0]} is {found[wrong[0]]}. Leave out "
            "images that were not scored."
        )
    return found


def _calibration_scores(detector: Any) -> NDArray[np.float64]:
    scores = _finite("calibration_scores_", detector.calibration_scores_)
    if not len(scores):
        raise ValueError(
            "calibration_scores_ must hold the score of at least one good image; got "
            "none. Call detector.calibrate(X) with good images first."
        )
    return scores
