"""The public detectors: parameters, fitting, scores, maps, regions and thresholds.

Imports `common`, `images`, `network`, `scoring` and `threshold`.
"""
