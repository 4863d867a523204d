"""Refusals of requests that the application never sees, or of which it cannot read the body."""

import httptools

from scheduler_api.api.http import Problem
from scheduler_api.domain.errors import Malformed, SchedulerError


class UnreadableBody:
    """Replaces the bytes of a body: a read raises the error."""

    def __init__(self, error: SchedulerError) -> None:
        self._error = error

    def __bytes__(self) -> bytes:
        raise self._error


def parse_error(error: httptools.HttpParserError) -> SchedulerError:
    """The error to respond with when the parser failed."""
    cause = error.__context__
    if isinstance(cause, SchedulerError):
        return cause
    if isinstance(error, httptools.HttpParserCallbackError):
        return Malformed(
            "The request target is not a valid URL; percent-encode characters that are not ASCII."
        )
    return Malformed(f"The request is not valid HTTP/1.1: {error}.")


def no_tunnel() -> Problem:
    """The response to CONNECT."""
    detail = "This server is not a proxy and opens no tunnels; use another method."
    return Problem(405, "Method Not Allowed", "method_not_allowed", detail, headers={"Allow": ""})
