"""The public detectors: parameters, fitting, scores, maps, verdicts and thresholds.

Imports `common`, `images`, `inspection`, `network`, `scoring` and `threshold`.
"""
