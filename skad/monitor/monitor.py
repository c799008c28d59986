"""Monitor: raises an alarm when scores drift, with a promised rate of false alarms."""

import hashlib
import json
import math
import os
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skad.common.checks import as_float, check_whole
from skad.common.files import make_room_for, write_atomically
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
from skad.monitor.status import MonitorStatus

_FORMAT = "skad monitor 1"


class Monitor:
    """Watches the scores of a detector, and raises an alarm when they drift.

    If all images are exchangeable with the calibration images, an alarm ever comes with
    a probability of at most `alpha`, however long the monitor runs (Ville's
    inequality). Lower and higher scores both count: lower ones mean more rejects,
    higher ones, as of blurred images, that defects may be missed.

    Parameters
    ----------
    detector : object
        A fitted detector. Of another object, `calibration_scores_` (m,) and `offset_`
        are used, and `score_samples` by `update_images`.
    alpha : float, default=0.01
        In (0, 1): largest probability of a false alarm over the whole run.
    baseline : int, default=0
        The first images of the stream, so many, take the place of the calibration
        images: the stream is compared with its own beginning. Use it where a share of
        the images is always defective.
    random_state : int, default=0
        Breaks ties among scores.

    Attributes
    ----------
    alarm : bool
        Whether there was an alarm. It stays; make a new monitor once the cause is
        mended or the detector recalibrated.
    n_images : int

    Raises
    ------
    ValueError
        If there are no calibration scores, any is not finite, or a parameter is out of
        range.

    Notes
    -----
    A step takes O(log n) comparisons; about 64 bytes are kept of each image. Only one
    thread may use a monitor at a time.

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
        self.alarm_at: int | None = None
        self._calibration = _calibration_scores(detector)
        self._rng = np.random.default_rng(check_whole("random_state", random_state, 0))
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
                "exchangeable with them: false alarms may come more often than alpha. "
                "Pass baseline=50, or so, to compare the stream with its own beginning."
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

        X is what `detector.score_samples` takes; a lazy sequence is read twice. Returns
        whether there was an alarm, now or before.
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
        """Write the state to a file, as JSON; `load` goes on from it, bit by bit."""
        state = {
            "format": _FORMAT,
            "calibration_sha256": _checksum(self._calibration),
            "alpha": self.alpha,
            "baseline": self.baseline,
            "alarm_at": self.alarm_at,
            "change": self._change,
            "random": self._rng.bit_generator.state,
            "log_capital": self._log_capital.tolist(),
            "evidence": self._evidence.tolist(),
            "starts": self._starts.tolist(),
            "scores": self._scores.tolist(),
            "features": {
                name: [None if math.isnan(x) else x for x in some]
                for name, some in self._features.items()
            },
        }
        write_atomically(make_room_for(path), json.dumps(state, allow_nan=False))

    @classmethod
    def load(cls, path: str | os.PathLike[str], detector: Any) -> Self:
        """Return the monitor of a file that `save` wrote.

        Raises a ValueError if the file is no state of a monitor, or if the calibration
        scores of the detector are others than those of the monitor.
        """
        state = _read_state(path)
        made_with = state["calibration_sha256"]
        found = _checksum(_calibration_scores(detector))
        if made_with != found:
            raise ValueError(
                f"{path} is the state of a monitor of another model: its calibration "
                f"scores have the SHA-256 {made_with}, those of this detector {found}. "
                "Pass that detector, or start a new monitor in another file."
            )
        try:
            monitor = cls(detector, alpha=state["alpha"], baseline=state["baseline"])
            monitor._restore(state)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _no_state(path, f"{type(error).__name__}: {error}") from error
        return monitor

    def _restore(self, state: dict[str, Any]) -> None:
        scores = _finite("scores", state["scores"])
        self.alarm_at = state["alarm_at"]
        self._change = tuple(state["change"]) if state["change"] else None
        self._rng.bit_generator.state = state["random"]
        self._log_capital = _finite("log_capital", state["log_capital"], N_BETS)
        self._evidence = _finite("evidence", state["evidence"], N_BETS)
        self._starts = _finite("starts", state["starts"], N_BETS).astype(int)
        self._scores = array("d", scores)
        self._pool = array("d", np.sort(np.append(self._pool, scores)))
        for name, some in state["features"].items():
            values = [math.nan if value is None else value for value in some]
            if len(values) != len(scores):
                raise ValueError(f"{name} has {len(values)} values of {len(scores)}")
            self._features[name] = array("d", values)

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


def _finite(name: str, values: Any, n: int | None = None) -> NDArray[np.float64]:
    """Return finite numbers (n,) as an array; raise a ValueError for others."""
    found = np.asarray(values, float)
    if found.ndim != 1 or (n is not None and len(found) != n):
        rule = f"{name} must be a list of {'' if n is None else f'{n} '}numbers"
        raise ValueError(f"{rule}; got an array of shape {found.shape}.")
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


def _checksum(calibration_scores: NDArray[np.float64]) -> str:
    """Return what tells models apart: the SHA-256 of their sorted scores."""
    return hashlib.sha256(
        np.sort(calibration_scores).astype("<f8").tobytes()
    ).hexdigest()


def _read_state(path: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        state = json.loads(Path(os.path.expanduser(path)).read_bytes())
    except ValueError as error:
        raise _no_state(path, str(error)) from error
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise _no_state(path, f"it must be a JSON object of format {_FORMAT!r}")
    if not isinstance(state.get("calibration_sha256"), str):
        raise _no_state(path, "calibration_sha256 is missing")
    return state


def _no_state(path: str | os.PathLike[str], why: str) -> ValueError:
    return ValueError(
        f"{path} is not the state of a monitor, or was cut off or changed: {why}. Move "
        "it away to start a new monitor."
    )
