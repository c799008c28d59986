"""Thresholds and p-values from the scores of good images, or from labelled ones.

Imports `common`.
"""
