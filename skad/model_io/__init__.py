"""Model files: a fitted detector is saved as one safetensors file, checked and loaded.

Imports `detectors` and the packages below it.
"""
