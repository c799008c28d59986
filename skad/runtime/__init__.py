"""Run an exported detector with numpy, onnxruntime and Pillow alone.

Imports `common`, `images`, `threshold` and `inspection`; never torch.
"""
