"""Post verdicts to an address, in their order, again and again until it takes them."""

import asyncio
import logging

import httpx

from skad.serve.journal import Journal

_LOG = logging.getLogger(__name__)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 60.0  # seconds; each is twice the one before
_TIMEOUT = 10.0  # seconds

WANTED = {  # actions by `--webhook-on`
    "reject": {"reject"},
    "warn": {"warn", "reject"},
    "all": {"accept", "warn", "reject"},
}


async def deliver(journal: Journal, url: str) -> None:
    """Post what waits in the journal, for ever; redirects are failures."""
    pause = _FIRST_PAUSE
    async with httpx.AsyncClient(follow_redirects=False, timeout=_TIMEOUT) as client:
        while True:
            journal.arrived.clear()
            oldest = await journal.oldest_waiting()
            if oldest is None:
                await journal.arrived.wait()
                continue
            number, verdict = oldest
            why_not = await _post(client, url, verdict)
            if why_not is None:
                pause = _FIRST_PAUSE
                await journal.delivered(number)
                continue
            _LOG.warning("webhook: %s; next try in %g s", why_not, pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


async def _post(client: httpx.AsyncClient, url: str, verdict: str) -> str | None:
    """Post one verdict; return why it was not taken."""
    headers = {"Content-Type": "application/json"}
    try:
        answer = await client.post(url, content=verdict, headers=headers)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return str(error) or type(error).__name__
    return None if answer.is_success else f"it answered {answer.status_code}"
