"""What the error words of attempts say."""

from typing import get_args

import pytest

from scheduler_api.domain.attempt import ERROR_MEANINGS, ErrorWord, reached


def test_errors_give_each_word_a_meaning() -> None:
    assert list(ERROR_MEANINGS) == list(get_args(ErrorWord))
    assert all(meaning.text for meaning in ERROR_MEANINGS.values())


@pytest.mark.parametrize(
    ("status", "error", "expected"),
    [
        *((status, None, True) for status in (200, 301, 404, 429, 500, 503)),
        *((None, error, True) for error in ("tls_error", "bad_response", "disconnected")),
        *((None, error, False) for error in ("connect_error", "connect_timeout", "dns_error")),
        *((None, error, None) for error in ("timeout", "egress_denied", "proxy_error")),
        *((None, error, None) for error in ("shutdown", "bad_request", "internal_error")),
        (None, "a_word_of_a_later_version", None),
        (None, None, None),
    ],
)
def test_reached_follows_from_the_status_or_the_error(
    status: int | None, error: str | None, expected: bool | None
) -> None:
    assert reached(status, error) is expected
