"""The audit of good images: which of them are bad, copies, or in the test, too.

Imports `common`, `images`, `encoders`, `network`, `scoring`, `detectors` and `report`.
"""
