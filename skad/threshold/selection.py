"""Selecting anomalous images so that few of the selected ones are good."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skad.common.checks import as_float
from skad.common.warnings import warn


def select(
    p_values: ArrayLike, fdr: float, *, n_calibration: int | None = None
) -> NDArray[np.bool_]:
    """Select images so that on average at most a share `fdr` of them is good.

    By the procedure of Benjamini and Hochberg [1]_: with n sorted p-values, the largest
    k whose p-value is at most ``fdr k / n`` says that the k lowest are selected. The
    promise holds for the `p_value` of a detector whose calibration images were held
    out: all p-values share them, and are positively dependent [2]_. It does not hold
    with ``calibration="cross"``.

    Parameters
    ----------
    p_values : array-like of shape (n,)
        In (0, 1].
    fdr : float
        In (0, 1): the false discovery rate, the expected share of good images among
        those selected.
    n_calibration : int, default=None
        The number m of calibration images. No p-value is below 1 / (m + 1), so that a
        few images cannot be selected among many. If nothing is selected and a single
        image could not be, a warning tells how many calibration images it takes.

    Returns
    -------
    ndarray of shape (n,), bool

    Raises
    ------
    ValueError
        If p-values or `fdr` are out of range.

    References
    ----------
    .. [1] Y. Benjamini and Y. Hochberg, "Controlling the false discovery rate",
       Journal of the Royal Statistical Society B 57(1), 1995.
    .. [2] S. Bates, E. Candès, L. Lei, Y. Romano and M. Sesia, "Testing for outliers
       with conformal p-values", Annals of Statistics 51(1), 2023.

    Examples
    --------
    >>> import skad
    >>> skad.select([0.01, 0.6, 0.02, 0.3], fdr=0.1)
    array([ True, False,  True, False])
    """
    p = np.asarray(p_values, float)
    if p.ndim != 1:
        raise ValueError(f"p_values must be of shape (n,); got shape {p.shape}.")
    wrong = np.flatnonzero(~((p > 0) & (p <= 1)))  # NaN, too
    if len(wrong):
        raise ValueError(
            f"p_values must be above 0 and at most 1; number {wrong[0]} is "
            f"{p[wrong[0]]:g}. Leave out images that were not scored."
        )
    if not 0 < as_float(fdr) < 1:
        raise ValueError(f"fdr must be a number between 0 and 1; got {fdr!r}.")
    if not len(p):
        return np.zeros(0, bool)
    from scipy.stats import false_discovery_control  # slow to import

    # Rounding must not decide: 0.05 * 6 / 3 is above 0.1.
    selected = false_discovery_control(p, method="bh") <= fdr * (1 + 1e-9)
    if n_calibration is not None and not selected.any():
        _warn_if_too_few(len(p), fdr, n_calibration)
    return selected


def _warn_if_too_few(n: int, fdr: float, m: int) -> None:
    """Warn if a selection of one image is impossible with m calibration images."""
    least = math.ceil(n / (fdr * (m + 1)) * (1 - 1e-9))
    if least > 1:
        can = "nothing" if least > n else f"no fewer than {least} of {n} images"
        needed = math.ceil(n / fdr * (1 - 1e-9)) - 1
        warn(
            f"Nothing is selected: with {m} calibration images, p-values are at least "
            f"{1 / (m + 1):.3g}, and fdr={fdr:g} can select {can}. To select a single "
            f"one, calibrate with {needed} images, or pass fewer images at a time."
        )
