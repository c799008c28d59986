"""A folder as the simplest camera: images that are new in it."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

from watchfiles import Change, awatch

from skad.images.finding import is_image_name
from skad.serve.models import stamp_of

_STILL = 0.3  # seconds without a change: a file is complete


async def new_images(folder: Path) -> AsyncGenerator[Path, None]:
    """Yield the images that are written to a folder from now on, once each is whole.

    One that is written anew is yielded again.
    """
    now = asyncio.get_running_loop().time
    changing: dict[Path, tuple[tuple[int, ...], float]] = {}  # stamp, and since when
    pause = round(1000 * _STILL)  # milliseconds
    async for changes in awatch(
        folder,
        recursive=False,
        debounce=pause,
        rust_timeout=pause,
        yield_on_timeout=True,
    ):
        for change, name in changes:
            if change != Change.deleted and is_image_name(Path(name)):
                changing.setdefault(Path(name), ((), now()))
        for path, (stamp, since) in list(changing.items()):
            current = stamp_of(path)
            if current != stamp:
                changing[path] = current, now()
            elif now() - since >= _STILL:
                del changing[path]
                if current:  # it is still there
                    yield path
