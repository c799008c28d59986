"""Image files, folders and arrays: found, decoded, resized, checked, read in batches.

Imports `common`.
"""

from importlib import import_module

_MODULE_OF = {
    "ImageFolder": "folder",
    "ImageReader": "folder",
    "find_images": "finding",
    "read_image": "decoding",
    "read_images": "folder",
    "resize_image": "resizing",
}

__all__ = [*_MODULE_OF]


def __getattr__(name: str) -> object:
    """Resolve a name on first use: `folder` needs scikit-learn, the others do not."""
    if name in _MODULE_OF:
        return getattr(import_module(f"skad.images.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"module 'skad.images' has no attribute {name!r}")
