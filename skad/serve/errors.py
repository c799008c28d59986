"""Requests that are refused."""


class Refused(Exception):
    """A request gets no verdict, but this HTTP status and reason."""

    def __init__(self, status: int, reason: str, retry_after: int | None = None):
        super().__init__(reason)
        self.status, self.reason = status, reason
        self.retry_after = retry_after  # seconds
