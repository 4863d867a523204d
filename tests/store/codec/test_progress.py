"""A progress: counts and the log of attempts, packed and unpacked."""

import msgspec

from scheduler_api.domain.attempt import ATTEMPTS_KEPT
from scheduler_api.store.codec.progress import (
    Progress,
    append_attempt,
    pack_progress,
    unpack_log,
    unpack_progress,
)
from tests.support.message_states import attempt


def test_unpack_progress_of_nothing_has_no_attempts() -> None:
    assert unpack_progress(b"") == Progress(0, 0, b"")
    assert unpack_log(b"") == []


def test_unpack_progress_returns_counts_and_the_packed_log() -> None:
    log = append_attempt(b"", attempt(3))
    progress = unpack_progress(b"3 1 retry 1800000000000\n" + log)
    assert progress == Progress(3, 1, log)


def test_unpack_progress_needs_only_the_first_line_for_the_counts() -> None:
    assert unpack_progress(b"3 1 retry 1800000000000") == Progress(3, 1, b"")


def test_append_attempt_keeps_attempts_as_they_were() -> None:
    first = attempt(1, status=None, error="timeout", response_excerpt=None, lateness_ms=0)
    second = attempt(2, status=503, response_excerpt="line\nline")
    log = append_attempt(append_attempt(b"", first), second)
    assert unpack_log(log) == [first, second]


def test_append_attempt_keeps_what_a_later_version_has_added() -> None:
    first = attempt(1, location="http://elsewhere/")
    (stored,) = msgspec.msgpack.decode(append_attempt(b"", first))
    later = msgspec.msgpack.encode([[*stored, "added"]])
    log = append_attempt(later, attempt(2))
    assert msgspec.msgpack.decode(log)[0] == [*stored, "added"]
    assert unpack_log(log) == [first, attempt(2)]


def test_append_attempt_stores_a_location_only_if_there_is_one() -> None:
    log = append_attempt(append_attempt(b"", attempt(1)), attempt(2, location="/elsewhere"))
    without, with_it = msgspec.msgpack.decode(log)
    assert len(with_it) == len(without) + 1
    assert [each.location for each in unpack_log(log)] == [None, "/elsewhere"]
    assert unpack_log(unpack_progress(pack_progress(2, 0, unpack_log(log))).log) == unpack_log(log)


def test_unpack_log_reads_attempts_without_the_field_location() -> None:
    before = [7, 1_800_000_000_000, 5, 302, None, "seen", 1]
    assert unpack_log(msgspec.msgpack.encode([before])) == [attempt(7, status=302)]


def test_append_attempt_drops_the_oldest_beyond_the_limit() -> None:
    log = b""
    for number in range(1, ATTEMPTS_KEPT + 6):
        log = append_attempt(log, attempt(number))
    assert [each.number for each in unpack_log(log)] == list(range(6, ATTEMPTS_KEPT + 6))
