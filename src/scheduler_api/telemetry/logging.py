"""How the process tells what it does: structlog set-up. Asked for by server and cli."""

import json
import logging
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec
import structlog
from structlog.processors import ExceptionRenderer, format_exc_info
from structlog.stdlib import ProcessorFormatter, add_logger_name
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, Processor, WrappedLogger

from scheduler_api.telemetry.nonblocking_output import (
    make_standard_streams_nonblocking,
    nonblocking,
)

# Controls that could move the cursor, start a second line or colour what follows, as escapes.
CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {
    ord("\n"): "\\n",
    ord("\r"): "\\r",
    ord("\t"): "\\t",
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}
IN_TRACEBACK = CONTROLS | {ord("\n"): "\n  "}  # indented: no line of it can pass for another event
FIRST = ("timestamp", "level", "event")  # how a line of JSON begins
UVICORN = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")  # its loggers

# What JSON allows as it is, and a terminal or a line reader may obey: DEL, C1, U+2028, U+2029.
_UNSEEN = re.compile(rb"\x7f|\xc2[\x80-\x9f]|\xe2\x80[\xa8\xa9]")
_encode = msgspec.json.Encoder(enc_hook=repr).encode


def make_streams_nonblocking() -> None:
    """Let nothing raise or block that anybody in this process prints, or writes to stderr."""
    make_standard_streams_nonblocking(_dropped)


def _dropped(count: int) -> bytes:
    return _line("warning", "log_lines_dropped", count=count)


def _line(level: str, name: str, **facts: Any) -> bytes:
    event = {"timestamp": "", "level": level, "event": name, **facts}
    return _encode(_now(None, "", event)) + b"\n"


def configure_logging(
    level: str, format: str, stream: TextIO | None = None, *, cache: bool = True
) -> None:
    """Send structlog and logging to stream (stderr), one event a line: json, console or auto.

    cache=False lets a later call reach loggers already used; a test wants that.
    """
    stream = nonblocking(sys.stderr if stream is None else stream, _dropped)
    as_json = format == "json" or (format == "auto" and not stream.isatty())
    render = _json_chain() if as_json else _console_chain(colors=stream.isatty())
    structlog.configure(
        processors=[_always([*_FACTS, *render])],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.BytesLoggerFactory(stream.buffer),
        cache_logger_on_first_use=cache,
    )
    _configure_logging(level, render, stream)


def _always(chain: Sequence[Processor]) -> Processor:
    """All of them as one, which makes a line of any event: a log call must not raise."""

    def render(logger: WrappedLogger, level: str, event: EventDict) -> bytes:
        made: Any = event
        name = event.get("event")
        try:
            for process in chain:
                made = process(logger, level, made)
        except Exception as error:  # such as one of a value's own repr
            name = name if isinstance(name, str) else type(name).__name__
            name = printable(name).encode("ascii", "backslashreplace").decode()
            return _line(level, name, unrendered=type(error).__name__)[:-1]
        return bytes(made)

    return render


def printable(text: str) -> str:
    """The text on one line, its control characters as escapes."""
    return text if text.isprintable() else text.translate(CONTROLS)


def _now(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    now = datetime.now(UTC)
    text: str = msgspec.to_builtins(now)  # isoformat() takes a fifth of the whole line's time
    event["timestamp"] = f"{text[:19]}.{now.microsecond // 1000:03}Z"
    return event


_FACTS: tuple[Processor, ...] = (structlog.processors.add_log_level, _now)


def _json_chain() -> list[Processor]:
    # Local variables would write tokens and payloads into the log.
    return [ExceptionRenderer(ExceptionDictTransformer(show_locals=False)), _json]


def _json(_: WrappedLogger, __: str, event: EventDict) -> bytes:
    ordered = {key: event.pop(key) for key in FIRST} | dict(event)
    for key, value in event.items():
        # It would be encoded field by field, past its own repr: that is where secrets are hidden.
        if isinstance(value, msgspec.Struct):
            ordered[key] = repr(value)
    try:
        line = _encode(ordered)
    except (ValueError, TypeError, OverflowError, RecursionError):
        # Logging must not fail: half a surrogate pair, a list that holds itself.
        return json.dumps({k: repr(v) for k, v in ordered.items()}).encode()
    if line.isascii() and b"\x7f" not in line:
        return line
    return _UNSEEN.sub(lambda it: b"\\u%04x" % ord(it[0].decode()), line)


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
            event[key] = text.translate(IN_TRACEBACK if key == "exception" else CONTROLS)
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
    for name in UVICORN:  # started by its own command it has set up its own
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.NOTSET)
    quiet = level if level in ("DEBUG", "ERROR") else "WARNING"
    logging.getLogger("uvicorn").setLevel(quiet)


class _Handler(logging.StreamHandler[TextIO]):
    """Says which call it was whose text could not be made, instead of a traceback on stderr."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  logging's own name
        """Called in place of what the error would do."""
        place = f"{record.module}:{record.lineno}"
        line = _line("error", "log_call_failed", logger=record.name, place=place)
        self.stream.write(line.decode())


def _text(_: WrappedLogger, __: str, line: Any) -> str:
    return str(line, "utf-8")
