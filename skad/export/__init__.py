"""Export to ONNX: one graph that gives the anomaly maps, proven to agree with torch.

Imports `common`, `images`, `threshold`, `datasets`, `runtime`, `scoring` and
`detectors`.
"""
