"""The limit of open files: how it is raised, and how it is divided."""

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
def test_connection_limits_give_deliveries_what_they_want_up_to_half(
    wanted: int, limit: int, expected: ConnectionLimits
) -> None:
    assert connection_limits(wanted, limit) == expected


@pytest.fixture
def allowed() -> Iterator[tuple[int, int]]:
    """The soft and the hard limit of this process, restored after the test."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_raised_limit_is_the_hard_limit(allowed: tuple[int, int]) -> None:
    highest = min(allowed[1], open_files.MAX_OPEN_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest - 1, allowed[1]))
    assert open_files.raised_limit() == highest
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (highest, allowed[1])


def test_raised_limit_never_lowers_the_limit(allowed: tuple[int, int]) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed[1], allowed[1]))
    assert open_files.raised_limit() == allowed[1]


@pytest.mark.parametrize("error", [ValueError("not allowed to raise maximum limit"), OSError(22)])
@pytest.mark.parametrize("allows", [10_240, 600, 100])
def test_raised_limit_tries_less_if_the_kernel_refuses_the_hard_limit(
    error: Exception, allows: int, allowed: tuple[int, int]
) -> None:
    """macOS does this; the start must not fail."""
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


def test_raised_limit_keeps_an_unlimited_process(monkeypatch: pytest.MonkeyPatch) -> None:
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda _: unlimited)
    monkeypatch.delattr(resource, "setrlimit")
    assert open_files.raised_limit() == open_files.MAX_OPEN_FILES
