"""Call a function in a process of its own, which keeps memory and crashes apart."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any


def in_a_process(call: Callable[..., Any], *args: Any) -> Any:
    """Call a function in a new process, which ends when this one is stopped.

    Raises what the function raises; BrokenProcessPool where the process dies.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, _end_with_the_parent) as pool:
        worker = pool.submit(os.getpid).result()
        try:
            return pool.submit(call, *args).result()
        except (KeyboardInterrupt, SystemExit):
            os.kill(worker, signal.SIGTERM)
            raise


def _end_with_the_parent() -> None:
    """Let this process end when its parent does, also where that one was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told, and ends this

    def wait() -> None:
        multiprocessing.parent_process().join()  # type: ignore[union-attr]
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
