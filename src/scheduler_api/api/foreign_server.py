"""Guards the application under an HTTP server other than ours, as by `uvicorn scheduler_api:app`.

It refuses requests that such a server parses wrongly; the parser of `scheduler-api serve` does so
itself.
"""

from typing import Final

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scheduler_api.api.http import header, problem
from scheduler_api.domain.errors import Malformed

_CLOSE: Final = (b"connection", b"close")


class ForeignServerGuard:
    """The application behind checks of a request's framing."""

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        """`root_path`: the prefix of a proxy, for a server that was not configured with it."""
        self._app = app
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on one request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if (root := self._root_path) and not scope.get("root_path"):
            scope = {**scope, "root_path": root, "path": root + scope["path"]}
        upgrade = scope["method"] == "CONNECT" or header(scope, b"upgrade") is not None
        app = _refusal(scope, upgrade) or self._app

        async def adapted(message: Message) -> None:
            if upgrade:
                # uvicorn may parse the bytes that follow as another request: close the connection.
                message = _with_connection(message, [_CLOSE])
            elif message.get("status") in (413, 503):
                # To close with unread bytes would lose the response; uvicorn discards the bytes.
                message = _with_connection(message, [])
            await send(message)

        await app(scope, receive, adapted)


def _refusal(scope: Scope, upgrade: bool) -> Response | None:
    """The response to a request whose body the server cannot read; None if it can."""
    length, coding = header(scope, b"content-length"), header(scope, b"transfer-encoding")
    if length is not None and coding is not None:
        return problem(Malformed("Send Content-Length or Transfer-Encoding, not both."))
    if upgrade and (coding is not None or (length or b"0") != b"0"):
        return problem(
            Malformed(
                "This server cannot read the body of a request with the header Upgrade: remove the "
                "header, or start the service with `scheduler-api serve`."
            )
        )
    return None


def _with_connection(message: Message, headers: list[tuple[bytes, bytes]]) -> Message:
    """The message with these headers in place of `Connection`, if it starts a response."""
    if message["type"] != "http.response.start":
        return message
    others = [it for it in message.get("headers", []) if it[0].lower() != b"connection"]
    return {**message, "headers": [*others, *headers]}
