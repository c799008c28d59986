"""Run an exported detector with numpy, onnxruntime and Pillow alone.

Imports `common`, `images`, `threshold`, `overlays` and `inspection`; never torch.
"""

from skad.runtime.inspector import Inspector

__all__ = ["Inspector"]
