"""Watching the scores of a detector for drift, image by image.

Imports `common`; needs NumPy alone.
"""
