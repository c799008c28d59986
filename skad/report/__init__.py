"""Reports as one HTML file: collect plain data, render it, write it.

Imports `common`, `images`, `threshold`, `overlays`, `detectors` and `model_io`.
"""
