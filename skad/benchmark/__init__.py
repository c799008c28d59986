"""Measures detectors on image sets in the layout of MVTec AD.

Imports `detectors`, `model_io`, `metrics` and the rooms below them.
"""
