"""What a log line looks like, and what can never get into one."""

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
    """A stream that remembers, and loggers that write to it."""

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


def test_an_event_is_one_json_line_with_level_and_time_in_milliseconds() -> None:
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


def test_lines_below_the_level_are_not_written() -> None:
    it = Log("json", "WARNING")
    it.log.info("quiet")
    logging.getLogger("asyncio").info("quiet")
    it.log.warning("loud")
    assert [event["event"] for event in it.events()] == ["loud"]


def test_logging_of_libraries_takes_the_same_form() -> None:
    it = Log("json")
    logging.getLogger("aiohttp.server").warning("odd %s", "request", extra={"color_message": "x"})
    (event,) = it.events()
    assert event.pop("timestamp")
    assert event == {"event": "odd request", "level": "warning", "logger": "aiohttp.server"}


def test_python_warnings_are_logged() -> None:
    it = Log("json")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old thing", stacklevel=1)
    assert "old thing" in it.events()[0]["event"]


@pytest.mark.parametrize(
    ("level", "uvicorn"),
    [("DEBUG", "DEBUG"), ("INFO", "WARNING"), ("WARNING", "WARNING"), ("ERROR", "ERROR")],
)
def test_uvicorn_is_quiet_unless_debugging(level: str, uvicorn: str) -> None:
    logging.getLogger("uvicorn.access").addHandler(logging.NullHandler())
    logging.getLogger("uvicorn.error").setLevel("INFO")
    Log("json", level)
    assert logging.getLogger("uvicorn.error").getEffectiveLevel() == logging.getLevelName(uvicorn)
    assert not logging.getLogger("uvicorn.access").handlers


@pytest.mark.parametrize("format", ["json", "console"])
@pytest.mark.parametrize("library", [False, True])
def test_an_exception_is_told_without_local_variables(format: str, library: bool) -> None:
    it = Log(format)
    log: Any = logging.getLogger("asyncio") if library else it.log
    try:
        planted = "sec" + "ret-in-a-local"
        raise RuntimeError("boom")
    except RuntimeError:
        log.exception("failed")
    assert "boom" in it.text
    assert "test_an_exception_is_told" in it.text
    assert planted not in it.text


@pytest.mark.parametrize("library", [False, True])
def test_json_keeps_a_newline_inside_its_line(library: bool) -> None:
    it = Log("json")
    if library:
        logging.getLogger("x").warning(EVIL)
    else:
        it.log.info(EVIL, field=EVIL, nested=[EVIL])
    assert it.text.count("\n") == 1
    assert it.events()[0]["event"] == EVIL
    assert "\x1b" not in it.text


@pytest.mark.parametrize("library", [False, True])
def test_console_output_holds_no_control_character_of_a_field(library: bool) -> None:
    it = Log("console")
    if library:
        logging.getLogger("x").warning(EVIL)
    else:
        it.log.info(EVIL, field=EVIL, nested=[EVIL], error=ValueError(EVIL), other=["plain"])
    assert it.text.endswith("\n")
    assert it.text[:-1].isprintable()
    assert "a\\nb" in it.text


def test_a_line_inside_an_exceptions_text_cannot_pass_for_an_event() -> None:
    it = Log("console")
    try:
        raise RuntimeError("x\n2026-01-01 [info] forged\x1b[0m")
    except RuntimeError:
        it.log.exception("failed")
    assert "\n2026-01-01" not in it.text
    assert "  2026-01-01 [info] forged\\x1b" in it.text


@pytest.mark.parametrize("format", ["json", "console"])
def test_a_logged_struct_shows_what_its_repr_shows(format: str) -> None:
    it = Log(format)
    it.log.info("start", settings=Settings(api_token="hidden"))
    assert "***" in it.text
    assert "hidden" not in it.text


@pytest.mark.parametrize("format", ["json", "console"])
def test_logging_never_fails(format: str) -> None:
    it = Log(format)
    loop: list[object] = []
    loop.append(loop)
    for value in ("\ud800", loop, object(), b"\xff", {"k": object()}, 2**70):
        it.log.info("odd", value=value)
    assert it.text.count("\n") == 6
    assert it.text.count("odd") == 6


def test_auto_means_json_where_there_is_no_terminal() -> None:
    it = Log("auto")
    it.log.info("x")
    assert it.events()[0]["event"] == "x"


def test_auto_means_a_coloured_console_on_a_terminal() -> None:
    ours, theirs = pty.openpty()
    with open(ours, "rb", buffering=0) as screen, open(theirs, "w", encoding="utf-8") as stream:
        Log("auto", stream=stream).log.info("started", field="\x1b]0;title\x07")
        shown = screen.read(4096).decode()
    assert "started" in shown
    assert "\x1b[" in shown
    assert "\x1b]" not in shown


def test_a_later_configuration_counts_and_stderr_is_the_default(
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = Log("json")
    first.log.info("one")
    configure_logging("ERROR", "json", cache=False)
    first.log.info("dropped")
    first.log.error("two")
    assert "two" not in first.text
    assert [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()] == ["two"]


def test_loggers_are_kept_ready_unless_told_otherwise() -> None:
    configure_logging("INFO", "json", io.TextIOWrapper(io.BytesIO()))
    assert structlog.get_config()["cache_logger_on_first_use"]


class Unruly:
    """A value that cannot be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


@pytest.mark.parametrize("format", ["json", "console"])
def test_a_value_that_cannot_be_shown_leaves_the_rest_of_its_event(format: str) -> None:
    it = Log(format)
    it.log.warning("odd \ud800\x7f", value=Unruly())
    it.log.warning(Unruly(), value=Unruly())
    first, second = it.events()
    assert (first["level"], first["unrendered"]) == ("warning", "RuntimeError")
    assert first["event"] == "odd \\ud800\\x7f"
    assert second["event"] == "Unruly"


def test_an_exception_that_cannot_be_shown_does_not_stop_its_log_call() -> None:
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


def test_a_librarys_wrong_log_call_is_reported_in_the_log_and_not_on_stderr(
    capsys: pytest.CaptureFixture[str],
) -> None:
    it = Log("json")
    logging.getLogger("library").warning("%d messages", "many")
    (event,) = it.events()
    assert event["event"] == "log_call_failed"
    assert event["logger"] == "library"
    assert event["place"].startswith("test_logging:")
    assert capsys.readouterr().err == ""
