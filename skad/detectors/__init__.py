"""The public detectors: parameters, fit, scores, maps, inspection.

Imports all rooms below: `common`, `images`, `network`, `scoring`, `threshold`.
"""
