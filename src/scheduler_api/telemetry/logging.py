"""The log: set-up of structlog and logging. A log call never raises, and never blocks."""

import asyncio
import json
import logging
import re
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import Any, Final, TextIO, cast

import msgspec
import structlog
from msgspec import Struct
from structlog.processors import ExceptionRenderer, format_exc_info
from structlog.stdlib import ProcessorFormatter, add_logger_name
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, Processor, WrappedLogger

from scheduler_api.telemetry.nonblocking_output import (
    Output,
    make_standard_streams_nonblocking,
    nonblocking,
)

# Control characters that could move the cursor, start a new line or set a colour → escapes.
CONTROL_ESCAPES: Final = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {
    ord("\n"): "\\n",
    ord("\r"): "\\r",
    ord("\t"): "\\t",
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}
TRACEBACK_ESCAPES: Final = CONTROL_ESCAPES | {
    ord("\n"): "\n  "
}  # indented, so that no line of a traceback looks like another event
# The first fields of a JSON line.
_FIRST: Final[dict[str, Any]] = dict.fromkeys(("timestamp", "level", "event"))
# Types of most values: `isinstance(…, Struct)` of each would take a tenth of a line's time.
_PLAIN: Final = frozenset({str, int, float, bool, type(None)})
UVICORN_LOGGERS: Final = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")

# Characters that JSON allows unescaped but a terminal or a line reader may act on: DEL, C1,
# U+2028, U+2029.
_INVISIBLE = re.compile(rb"\x7f|\xc2[\x80-\x9f]|\xe2\x80[\xa8\xa9]")
_encode = msgspec.json.Encoder(enc_hook=repr).encode


def make_streams_nonblocking() -> None:
    """Let no write to stdout or stderr in this process raise or block; report dropped lines."""
    make_standard_streams_nonblocking(_dropped)


def _dropped(count: int) -> bytes:
    return _line("warning", "log_lines_dropped", count=count)


def _line(level: str, name: str, **facts: Any) -> bytes:
    event = {"timestamp": "", "level": level, "event": name, **facts}
    return _encode(_now(None, "", event)) + b"\n"


def configure_logging(
    level: str, format: str, stream: TextIO | None = None, *, cache: bool = True
) -> None:
    """Send structlog and logging to `stream` (stderr), one event a line: json, console or auto.

    `cache` False: a later call also changes loggers that were used before (for tests).
    """
    stream = nonblocking(sys.stderr if stream is None else stream, _dropped)
    as_json = format == "json" or (format == "auto" and not stream.isatty())
    render: list[Processor] = [_json] if as_json else _console_chain(colors=stream.isatty())
    structlog.configure(
        processors=[_always([*_FACTS, *render])],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=partial(_Lines, cast("Output", stream.buffer)),
        cache_logger_on_first_use=cache,
    )
    _configure_logging(level, render, stream)


class _Lines:
    """The logger below structlog's: takes lines without their ends.

    Lines of a warning or more are written at once: they may be the last ones of this process.
    """

    def __init__(self, output: Output, *_: Any) -> None:
        output.call_later = at_end_of_turn
        self.debug = self.info = output.write_later
        self.warning = self.error = self.critical = partial(_write, output)


def at_end_of_turn(function: Callable[[], None]) -> None:
    """Call it when the event loop has run what is ready now; without a loop in this thread, now."""
    try:
        asyncio.get_running_loop().call_soon(function)
    except RuntimeError:
        function()


def _write(output: Output, line: bytes) -> None:
    output.write(line + b"\n")


def _always(chain: Sequence[Processor]) -> Processor:
    """All processors as one that makes a line of any event: a log call must not raise."""

    def render(logger: WrappedLogger, level: str, event: EventDict) -> bytes:
        result: Any = event
        name = event.get("event")
        try:
            for process in chain:
                result = process(logger, level, result)
        except Exception as error:  # for example in a value's __repr__
            name = name if isinstance(name, str) else type(name).__name__
            name = printable(name).encode("ascii", "backslashreplace").decode()
            return _line(level, name, unrendered=type(error).__name__)[:-1]
        return bytes(result)

    return render


def printable(text: str) -> str:
    """The text in one line, with control characters escaped."""
    return text if text.isprintable() else text.translate(CONTROL_ESCAPES)


def _now(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    event["timestamp"] = _instant(time.time_ns() // 1_000_000)
    return event


@lru_cache(maxsize=1)  # a busy process writes many lines in a millisecond
def _instant(ms: int) -> str:
    text: str = msgspec.to_builtins(datetime.fromtimestamp(ms // 1000, UTC))
    return f"{text[:19]}.{ms % 1000:03}Z"


_FACTS: tuple[Processor, ...] = (structlog.processors.add_log_level, _now)


# Local variables would write tokens and payloads into the log.
_render_exception: Final = ExceptionRenderer(ExceptionDictTransformer(show_locals=False))


def _json(logger: WrappedLogger, name: str, event: EventDict) -> bytes:
    if "exc_info" in event:
        event = _render_exception(logger, name, event)
    ordered = {**_FIRST, **event}
    for key, value in event.items():
        # Else it is encoded field by field, without its __repr__, which hides secrets.
        if type(value) not in _PLAIN and isinstance(value, Struct):
            ordered[key] = repr(value)
    try:
        line = _encode(ordered)
    except (ValueError, TypeError, OverflowError, RecursionError):
        # A lone surrogate, or a list that contains itself: logging must not fail.
        return json.dumps({k: repr(v) for k, v in ordered.items()}).encode()
    if line.isascii() and b"\x7f" not in line:
        return line
    return _INVISIBLE.sub(lambda it: b"\\u%04x" % ord(it[0].decode()), line)


def _console_chain(*, colors: bool) -> list[Processor]:
    console = structlog.dev.ConsoleRenderer(
        colors=colors, exception_formatter=structlog.dev.plain_traceback
    )

    def render(logger: WrappedLogger, name: str, event: EventDict) -> bytes:
        return str(console(logger, name, event)).encode(errors="backslashreplace")

    return [format_exc_info, _escape, render]


def _escape(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    for key, value in event.items():
        text = value if isinstance(value, str) else repr(value)
        if not text.isprintable():
            event[key] = text.translate(
                TRACEBACK_ESCAPES if key == "exception" else CONTROL_ESCAPES
            )
    return event


def _configure_logging(level: str, render: list[Processor], stream: TextIO) -> None:
    handler = _Handler(stream)
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=[add_logger_name, *_FACTS],
            processors=[ProcessorFormatter.remove_processors_meta, *render, _text],
        )
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    for name in UVICORN_LOGGERS:  # uvicorn's own command has set up its handlers
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.NOTSET)
    quiet = level if level in ("DEBUG", "ERROR") else "WARNING"
    logging.getLogger("uvicorn").setLevel(quiet)


class _Handler(logging.StreamHandler[TextIO]):
    """Reports a log call whose text cannot be made, instead of printing a traceback to stderr."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  logging's own name
        """Replaces the traceback that logging would print."""
        place = f"{record.module}:{record.lineno}"
        line = _line("error", "log_call_failed", logger=record.name, place=place)
        self.stream.write(line.decode())


def _text(_: WrappedLogger, __: str, line: Any) -> str:
    return str(line, "utf-8")
