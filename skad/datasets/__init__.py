"""Built-in real photographs with planted defects.

Imports `common`.
"""

from skad.datasets.surfaces import SURFACES, load_surfaces

__all__ = ["SURFACES", "load_surfaces"]
