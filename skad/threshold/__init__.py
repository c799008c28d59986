"""From scores to a verdict: conformal thresholds and what they promise.

Imports `common`.
"""
