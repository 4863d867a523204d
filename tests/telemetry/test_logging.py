"""The form of a log line, and what it must never contain."""

import io
import json
import logging
import pty
import warnings
from datetime import UTC, datetime, timedelta
from typing import Any, TextIO

import pytest
import structlog

from scheduler_api.settings import Settings
from scheduler_api.telemetry.logging import configure_logging

EVIL = "a\nb\r\x1b[31mred\x9b0m\u2028\x00\x7f"


class Log:
    """A stream in memory, and loggers that write to it."""

    def __init__(self, format: str, level: str = "INFO", stream: TextIO | None = None) -> None:
        self.bytes = io.BytesIO()
        self.stream = stream or io.TextIOWrapper(self.bytes, "utf-8", write_through=True)
        configure_logging(level, format, self.stream, cache=False)
        self.log = structlog.get_logger()

    @property
    def text(self) -> str:
        return self.bytes.getvalue().decode()

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]


def test_event_is_one_json_line_with_level_and_time_in_milliseconds() -> None:
    it = Log("json")
    it.log.info("message_delivered", message_id="á", attempt=1)
    (event,) = it.events()
    assert list(event)[:3] == ["timestamp", "level", "event"]
    at = datetime.fromisoformat(event.pop("timestamp"))
    assert abs(datetime.now(UTC) - at) < timedelta(minutes=1)
    assert event == {
        "event": "message_delivered", "level": "info", "message_id": "á", "attempt": 1,
    }  # fmt: skip
    assert '"timestamp":"2' in it.text
    assert it.text.split('"timestamp":"')[1][19:24:4] == ".Z"


def test_event_below_the_level_is_not_written() -> None:
    it = Log("json", "WARNING")
    it.log.info("quiet")
    logging.getLogger("asyncio").info("quiet")
    it.log.warning("loud")
    assert [event["event"] for event in it.events()] == ["loud"]


def test_event_of_a_library_has_the_same_form() -> None:
    it = Log("json")
    logging.getLogger("aiohttp.server").warning("odd %s", "request", extra={"color_message": "x"})
    (event,) = it.events()
    assert event.pop("timestamp")
    assert event == {"event": "odd request", "level": "warning", "logger": "aiohttp.server"}


def test_python_warning_is_logged() -> None:
    it = Log("json")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old thing", stacklevel=1)
    assert "old thing" in it.events()[0]["event"]


@pytest.mark.parametrize(
    ("level", "uvicorn"),
    [("DEBUG", "DEBUG"), ("INFO", "WARNING"), ("WARNING", "WARNING"), ("ERROR", "ERROR")],
)
def test_uvicorn_logs_only_warnings_unless_the_level_is_debug(level: str, uvicorn: str) -> None:
    logging.getLogger("uvicorn.access").addHandler(logging.NullHandler())
    logging.getLogger("uvicorn.error").setLevel("INFO")
    Log("json", level)
    assert logging.getLogger("uvicorn.error").getEffectiveLevel() == logging.getLevelName(uvicorn)
    assert not logging.getLogger("uvicorn.access").handlers


@pytest.mark.parametrize("format", ["json", "console"])
@pytest.mark.parametrize("library", [False, True])
def test_exception_is_logged_without_local_variables(format: str, library: bool) -> None:
    it = Log(format)
    log: Any = logging.getLogger("asyncio") if library else it.log
    try:
        planted = "sec" + "ret-in-a-local"
        raise RuntimeError("boom")
    except RuntimeError:
        log.exception("failed")
    assert "boom" in it.text
    assert "test_exception_is_logged" in it.text
    assert planted not in it.text


@pytest.mark.parametrize("library", [False, True])
def test_json_escapes_a_newline(library: bool) -> None:
    it = Log("json")
    if library:
        logging.getLogger("x").warning(EVIL)
    else:
        it.log.info(EVIL, field=EVIL, nested=[EVIL])
    assert it.text.count("\n") == 1
    assert it.events()[0]["event"] == EVIL
    assert "\x1b" not in it.text


@pytest.mark.parametrize("library", [False, True])
def test_console_escapes_control_characters_of_a_field(library: bool) -> None:
    it = Log("console")
    if library:
        logging.getLogger("x").warning(EVIL)
    else:
        it.log.info(EVIL, field=EVIL, nested=[EVIL], error=ValueError(EVIL), other=["plain"])
    assert it.text.endswith("\n")
    assert it.text[:-1].isprintable()
    assert "a\\nb" in it.text


def test_console_indents_the_lines_of_an_exception() -> None:
    it = Log("console")
    try:
        raise RuntimeError("x\n2026-01-01 [info] forged\x1b[0m")
    except RuntimeError:
        it.log.exception("failed")
    assert "\n2026-01-01" not in it.text
    assert "  2026-01-01 [info] forged\\x1b" in it.text


@pytest.mark.parametrize("format", ["json", "console"])
def test_struct_is_logged_by_its_repr(format: str) -> None:
    it = Log(format)
    it.log.info("start", settings=Settings(api_token="hidden"))
    assert "***" in it.text
    assert "hidden" not in it.text


@pytest.mark.parametrize("format", ["json", "console"])
def test_log_call_with_values_that_cannot_be_encoded_does_not_raise(format: str) -> None:
    it = Log(format)
    loop: list[object] = []
    loop.append(loop)
    for value in ("\ud800", loop, object(), b"\xff", {"k": object()}, 2**70):
        it.log.info("odd", value=value)
    assert it.text.count("\n") == 6
    assert it.text.count("odd") == 6


def test_auto_format_is_json_without_a_terminal() -> None:
    it = Log("auto")
    it.log.info("x")
    assert it.events()[0]["event"] == "x"


def test_auto_format_is_a_coloured_console_on_a_terminal() -> None:
    ours, theirs = pty.openpty()
    with open(ours, "rb", buffering=0) as screen, open(theirs, "w", encoding="utf-8") as stream:
        Log("auto", stream=stream).log.info("started", field="\x1b]0;title\x07")
        shown = screen.read(4096).decode()
    assert "started" in shown
    assert "\x1b[" in shown
    assert "\x1b]" not in shown


def test_configure_logging_replaces_the_configuration_and_defaults_to_stderr(
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = Log("json")
    first.log.info("one")
    configure_logging("ERROR", "json", cache=False)
    first.log.info("dropped")
    first.log.error("two")
    assert "two" not in first.text
    assert [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()] == ["two"]


def test_configure_logging_caches_loggers_unless_cache_is_false() -> None:
    configure_logging("INFO", "json", io.TextIOWrapper(io.BytesIO()))
    assert structlog.get_config()["cache_logger_on_first_use"]


class Unruly:
    """A value whose repr raises."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


@pytest.mark.parametrize("format", ["json", "console"])
def test_value_whose_repr_raises_does_not_stop_its_event(format: str) -> None:
    it = Log(format)
    it.log.warning("odd \ud800\x7f", value=Unruly())
    it.log.warning(Unruly(), value=Unruly())
    first, second = it.events()
    assert (first["level"], first["unrendered"]) == ("warning", "RuntimeError")
    assert first["event"] == "odd \\ud800\\x7f"
    assert second["event"] == "Unruly"


def test_exception_whose_str_raises_does_not_stop_its_event() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError("no text")

    it = Log("json")
    try:
        raise Mute
    except Mute:
        it.log.exception("failed")
    (event,) = it.events()
    assert (event["event"], event["level"]) == ("failed", "error")


def test_invalid_log_call_of_a_library_is_an_event_and_not_a_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    it = Log("json")
    logging.getLogger("library").warning("%d messages", "many")
    (event,) = it.events()
    assert event["event"] == "log_call_failed"
    assert event["logger"] == "library"
    assert event["place"].startswith("test_logging:")
    assert capsys.readouterr().err == ""
