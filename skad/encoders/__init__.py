"""Frozen encoders, trained elsewhere: images to feature maps.

Imports `common`.
"""
