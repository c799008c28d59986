"""Displays draw what was computed before.

Imports `overlays`, `metrics` and the rooms below `detectors`.
"""

from skad.displays.displays import AnomalyMapDisplay, ScoreDisplay

__all__ = ["AnomalyMapDisplay", "ScoreDisplay"]
