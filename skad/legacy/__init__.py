"""`AD`: the calls of the old script, carried out by the detectors.

Imports `detectors`, `model_io`, `overlays` and the packages below them. No other
package imports it.
"""

from skad.legacy.ad import AD, Result

__all__ = ["AD", "Result"]
