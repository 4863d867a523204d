"""A receiver for try-outs: accepts every webhook and prints it in one line."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Final

from aiohttp import web
from multidict import CIMultiDictProxy

from scheduler_api.domain import signing
from scheduler_api.telemetry.logging import printable

MAX_PRINTED_BODY: Final = 1024**2  # bytes
MAX_SHOWN: Final = 200  # characters of a body

Echo = Callable[[str], object]  # prints a line

_print: Echo = partial(print, flush=True)  # flush: a pipe gets each line at once


@asynccontextmanager
async def receiver(
    host: str,
    port: int,
    secrets: tuple[bytes, ...] = (),
    echo: Echo = _print,
) -> AsyncIterator[str]:
    """Responds 200 to every request and prints a line; yields its URL, without a final slash.

    Port 0 picks a free port. Raises: OSError, if the port is in use.
    """
    app = web.Application(client_max_size=MAX_PRINTED_BODY)
    # (?s: a path may contain %0A, which a plain dot does not match.
    app.router.add_route("*", "/{path:(?s:.*)}", partial(_receive, secrets, echo))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        name = f"[{host}]" if ":" in host else host
        yield f"http://{name}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def _receive(secrets: tuple[bytes, ...], echo: Echo, request: web.Request) -> web.Response:
    now = datetime.now().astimezone()
    try:
        body = await request.read()
    except web.HTTPRequestEntityTooLarge:
        echo(_line(request, now, "", f"refused: larger than {MAX_PRINTED_BODY} bytes"))
        raise
    signature = _check_signature(secrets, request.headers, body)
    echo(_line(request, now, signature, body.decode(errors="replace")))
    return web.json_response({"received": True})


def _line(request: web.Request, now: datetime, signature: str, text: str) -> str:
    headers = request.headers
    attempt = headers.get("Scheduler-Attempt")
    parts = (
        f"{now:%H:%M:%S}.{now.microsecond // 1000:03}",
        f"{request.method} {request.path}",
        headers.get("Scheduler-Message-Id") or headers.get("webhook-id", ""),
        f"attempt {attempt}" if attempt else "",
        _lateness(headers.get("Scheduler-Scheduled-For", ""), now),
        signature,
        text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…",
    )
    return printable("  ".join(part for part in parts if part))


def _lateness(scheduled_for: str, now: datetime) -> str:
    try:
        late = now - datetime.fromisoformat(scheduled_for)
    except (ValueError, TypeError):  # not an instant, or one without an offset
        return ""
    return f"{late.total_seconds() * 1000:.0f} ms late"


def _check_signature(
    secrets: tuple[bytes, ...], headers: CIMultiDictProxy[str], body: bytes
) -> str:
    if not secrets:
        return ""
    if "webhook-signature" not in headers:
        return "not signed"
    valid = signing.verify(
        secrets,
        headers.get("webhook-id", ""),
        _seconds(headers.get("webhook-timestamp", "")),
        body,
        headers["webhook-signature"],
        now=int(time.time()),
    )
    return "signature valid" if valid else "SIGNATURE INVALID"


def _seconds(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0
