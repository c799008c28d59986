"""Score many image files on the machines of a Dask cluster.

Imports `detectors`, `model_io`, `inspection`, `images` and `common`.
"""

try:
    import distributed  # noqa: F401
    import pyarrow  # noqa: F401
except ImportError as error:
    raise ImportError(
        'skad.distributed needs dask, distributed and pyarrow: pip install "skad[dask]"'
    ) from error

from skad.distributed.cluster import connected
from skad.distributed.scoring import DATA_SET, score

__all__ = ["DATA_SET", "connected", "score"]
