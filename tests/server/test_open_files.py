"""What the descriptors of a process are for."""

import resource
from collections.abc import Iterator

import pytest

from scheduler_api.server import open_files
from scheduler_api.server.open_files import ConnectionLimits, connection_limits


@pytest.mark.parametrize(
    ("wanted", "limit", "expected"),
    [
        (256, 65_536, ConnectionLimits(256, 16_564, 48_924)),
        (256, 1024, ConnectionLimits(256, 436, 540)),
        (256, 64, ConnectionLimits(8, 10, 6)),
        (256, 10, ConnectionLimits(1, 1, 1)),
        (1, 64, ConnectionLimits(1, 4, 12)),
    ],
)
def test_deliveries_get_what_they_want_but_at_most_half(
    wanted: int, limit: int, expected: ConnectionLimits
) -> None:
    assert connection_limits(wanted, limit) == expected


@pytest.fixture
def allowed() -> Iterator[tuple[int, int]]:
    """What this process has and may have, which a test may change."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_limit_is_raised_as_far_as_it_may_be(allowed: tuple[int, int]) -> None:
    highest = min(allowed[1], open_files.MAX_OPEN_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest - 1, allowed[1]))
    assert open_files.raised_limit() == highest
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (highest, allowed[1])


def test_a_limit_is_never_lowered(allowed: tuple[int, int]) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed[1], allowed[1]))
    assert open_files.raised_limit() == allowed[1]


@pytest.mark.parametrize("error", [ValueError("not allowed to raise maximum limit"), OSError(22)])
@pytest.mark.parametrize("allows", [10_240, 600, 100])
def test_a_kernel_that_allows_less_than_it_names_is_asked_for_less(
    error: Exception, allows: int, allowed: tuple[int, int]
) -> None:
    """As that of macOS does; a start must not fail for it."""
    has = 128
    resource.setrlimit(resource.RLIMIT_NOFILE, (has, allowed[1]))
    real = resource.setrlimit

    def setrlimit(which: int, limits: tuple[int, int]) -> None:
        if limits[0] > allows:
            raise error
        real(which, limits)

    with pytest.MonkeyPatch.context() as kernel:
        kernel.setattr(resource, "setrlimit", setrlimit)
        found = open_files.raised_limit()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (found, allowed[1])
    if allows > has:
        assert allows / 2 < found <= allows
    else:
        assert found == has


def test_a_process_without_a_limit_keeps_that(monkeypatch: pytest.MonkeyPatch) -> None:
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda _: unlimited)
    monkeypatch.delattr(resource, "setrlimit")
    assert open_files.raised_limit() == open_files.MAX_OPEN_FILES
