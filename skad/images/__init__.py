"""Image files, folders and arrays: found, decoded, resized, checked, read in batches.

Imports `common`.
"""

from skad.images.decoding import read_image
from skad.images.finding import find_images
from skad.images.folder import ImageFolder, ImageReader, read_images
from skad.images.resizing import resize_image

__all__ = [
    "ImageFolder",
    "ImageReader",
    "find_images",
    "read_image",
    "read_images",
    "resize_image",
]
