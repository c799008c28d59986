"""Data sets in MVTec AD layout, and figures of a detector on them.

Imports `detectors`, `model_io`, `metrics` and the packages below them.
"""

from skad.benchmark.evaluation import figures_of_images, figures_of_pixels
from skad.benchmark.mvtec import Category, find_categories, load_category

__all__ = [
    "Category",
    "figures_of_images",
    "figures_of_pixels",
    "find_categories",
    "load_category",
]
