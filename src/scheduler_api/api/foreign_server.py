"""What another server's protocol reads wrongly or lets pass, refused by the application.

As under `uvicorn scheduler_api:app`; `scheduler-api serve` has a protocol of its own.
"""

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scheduler_api.api.http import header, problem
from scheduler_api.domain.errors import Malformed

_CLOSE = (b"connection", b"close")


class ForeignServerGuard:
    """The application, for requests whose framing nobody of ours has checked."""

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        """`root_path`: of a proxy before the server, which was perhaps not told it."""
        self._app = app
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the refusal of it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if (root := self._root_path) and not scope.get("root_path"):
            scope = {**scope, "root_path": root, "path": root + scope["path"]}
        upgrade = scope["method"] == "CONNECT" or header(scope, b"upgrade") is not None
        app = _refusal(scope, upgrade) or self._app

        async def adapted(message: Message) -> None:
            if upgrade:
                # uvicorn may read what follows as a request: close, so that none is answered.
                message = _with_headers(message, [_CLOSE])
            elif message.get("status") in (413, 503):
                # A close with unread bytes would lose the response; uvicorn discards them.
                message = _with_headers(message, [])
            await send(message)

        await app(scope, receive, adapted)


def _refusal(scope: Scope, upgrade: bool) -> Response | None:
    length, coding = header(scope, b"content-length"), header(scope, b"transfer-encoding")
    if length is not None and coding is not None:
        return problem(Malformed("Send Content-Length or Transfer-Encoding, not both."))
    if upgrade and (coding is not None or (length or b"0") != b"0"):
        return problem(
            Malformed(
                "This server cannot read the body of a request with Upgrade: leave it out, or run "
                "the server by `scheduler-api serve`."
            )
        )
    return None


def _with_headers(message: Message, headers: list[tuple[bytes, bytes]]) -> Message:
    """With these in place of its Connection; only the start of a response has any."""
    if message["type"] != "http.response.start":
        return message
    others = [it for it in message.get("headers", []) if it[0].lower() != b"connection"]
    return {**message, "headers": [*others, *headers]}
