"""The cluster: reach its scheduler, and make sure that its workers can score."""

from collections.abc import Iterator
from contextlib import contextmanager

from distributed import Client

from skad import __version__

_PATIENCE = 5  # seconds, for the scheduler to answer, and again for a first worker
_LISTED = 5  # workers that one message names


@contextmanager
def connected(address: str) -> Iterator[Client]:
    """Connect with a scheduler, and leave it at the end.

    Parameters
    ----------
    address : str
        Of the scheduler, as "tcp://10.0.0.5:8786".

    Yields
    ------
    client : distributed.Client

    Raises
    ------
    ConnectionError
        If no scheduler answers within 5 seconds.
    """
    try:
        client = Client(address, timeout=_PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ConnectionError(
            f"no Dask scheduler answers at {address}; start one with dask scheduler, "
            f"and pass the address that it prints ({error})"
        ) from error
    with client:
        yield client


def check_workers(client: Client) -> None:
    """Raise an error unless there are workers, all with this version of skad."""
    address = client.scheduler_info()["address"]
    try:
        client.wait_for_workers(1, timeout=_PATIENCE)
    except TimeoutError:
        raise TimeoutError(
            f"the scheduler at {address} has no worker; start one on each machine "
            f"with dask worker {address}"
        ) from None
    # A builtin, because a worker without skad could not unpickle a function of skad.
    found = client.run(eval, "__import__('skad').__version__", on_error="return")
    wrong = [f"{name}: {v!s}" for name, v in found.items() if v != __version__]
    if wrong:
        more = ", ..." * (len(wrong) > _LISTED)
        raise RuntimeError(
            f"workers must have skad {__version__}, as this program has; install it "
            f"on {len(wrong)} worker(s) ({', '.join(wrong[:_LISTED])}{more})"
        )
