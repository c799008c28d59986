"""The old script's calls.

Imports `detectors`, `model_io` and the rooms below them; nobody imports it.
"""

from skad.legacy.ad import AD, Result

__all__ = ["AD", "Result"]
