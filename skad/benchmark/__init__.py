"""Runs of a detector on image sets in MVTec AD layout, and the table of their results.

Imports `detectors`, `model_io`, `metrics` and the packages below them.
"""
