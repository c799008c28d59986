"""One safetensors file for a fitted detector: written, checked and read.

Imports `detectors` and the rooms below it.
"""
