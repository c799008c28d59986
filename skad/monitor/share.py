"""A confidence interval of a share that holds at every moment at once."""

import math


def share_interval(k: int, n: int, alpha: float) -> tuple[float, float]:
    """Return an interval for the probability of which k of n draws came true.

    With a probability of at least 1 - alpha, all intervals for n = 1, 2, … contain it:
    those q where the mixture of likelihood ratios ``B(k + 1/2, n - k + 1/2) / (pi q^k
    (1 - q)^(n - k))`` is below 1 / alpha. For the true q, it is a martingale in n [1]_.

    References
    ----------
    .. [1] H. Robbins, "Statistical methods related to the law of the iterated
       logarithm", Annals of Mathematical Statistics 41(5), 1970; here with the Beta
       distribution of parameters 1/2 as the mixture.
    """
    if n == 0:
        return 0.0, 1.0
    mixture = math.lgamma(k + 0.5) + math.lgamma(n - k + 0.5) - math.lgamma(n + 1)
    limit = mixture - math.log(math.pi) + math.log(alpha)

    def is_inside(q: float) -> bool:
        return limit < k * math.log(q) + (n - k) * math.log1p(-q)

    low = 0.0 if k == 0 else _border(0.0, k / n, is_inside)
    high = 1.0 if k == n else _border(1.0, k / n, is_inside)
    return low, high


def _border(outside, inside, is_inside):
    """Return by bisection where an interval ends; SciPy may not be installed."""
    for _ in range(60):
        middle = (outside + inside) / 2
        if is_inside(middle):
            inside = middle
        else:
            outside = middle
    return outside
