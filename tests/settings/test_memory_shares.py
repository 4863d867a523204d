"""The available memory, of the machine and of the cgroups of the process, and its shares."""

import os
from pathlib import Path

import pytest

from scheduler_api.settings.memory_shares import MIN_MEMORY, memory, shares

MIB = 1024**2
PHYSICAL = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
UNLIMITED_V1 = 9223372036854771712  # the value of a cgroup v1 limit that is not set


def system(root: Path, cgroup: str, **files: object) -> Path:
    """A root directory with these limit files; in their names `__` is a dot and `0` a slash."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, value in files.items():
        file = root / "sys/fs/cgroup" / name.replace("__", ".").replace("0", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{value}\n")
    return root


def test_memory_without_cgroups_is_that_of_the_machine(tmp_path: Path) -> None:
    assert memory(tmp_path) == PHYSICAL


def test_memory_here_is_at_most_that_of_the_machine() -> None:
    assert 0 < memory() <= PHYSICAL


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        # Version 2: in a container, and nested, where the lowest limit applies.
        ("0::/\n", {"memory__max": 512 * MIB}, 512 * MIB),
        ("0::/\n", {"memory__max": "max", "memory__high": 300 * MIB}, 300 * MIB),
        ("0::/a/b\n", {"a0b0memory__max": 256 * MIB, "a0memory__max": 512 * MIB}, 256 * MIB),
        ("0::/a/b\n", {"a0b0memory__max": "max", "a0memory__max": 128 * MIB}, 128 * MIB),
        ("0::/a/b\n", {"a0b0memory__max": "max"}, PHYSICAL),
        ("0::/../..\n", {"memory__max": 64 * MIB}, 64 * MIB),
        # Version 1: the group has its name on the host; the container sees its files at the root.
        (
            "4:cpu:/x\n3:memory:/docker/4f\n0::/\n",
            {"memory0memory__limit_in_bytes": 200 * MIB},
            200 * MIB,
        ),
        (
            "3:cpuset,memory:/a/b\n",
            {
                "memory0a0b0memory__limit_in_bytes": 100 * MIB,
                "memory0a0memory__limit_in_bytes": 90 * MIB,
                "memory0memory__limit_in_bytes": UNLIMITED_V1,
            },
            90 * MIB,
        ),
        ("3:memory:/\n", {"memory0memory__limit_in_bytes": UNLIMITED_V1}, PHYSICAL),
        ("2:cpu:/a\n", {"memory0memory__limit_in_bytes": MIB}, PHYSICAL),
    ],
)
def test_memory_is_the_lowest_limit(
    tmp_path: Path, cgroup: str, files: dict[str, object], expected: int
) -> None:
    assert memory(system(tmp_path, cgroup, **files)) == expected


@pytest.mark.parametrize("line", [b"", b"nonsense", b"0::", b"0::relative", b"0::/caf\xe9"])
def test_memory_skips_a_malformed_line_about_cgroups(tmp_path: Path, line: bytes) -> None:
    root = system(tmp_path, "", memory0memory__limit_in_bytes=50 * MIB)
    (root / "proc/self/cgroup").write_bytes(line + b"\n3:memory:/caf\xe9\n")
    assert memory(root) == 50 * MIB


@pytest.mark.parametrize("limit", [b"", b"-1\n", b"1.5\n", b"\xff\xfe\n", "٣\n".encode()])
def test_memory_ignores_a_limit_that_is_not_a_number(tmp_path: Path, limit: bytes) -> None:
    root = system(tmp_path, "0::/\n", memory__max=0)
    assert memory(root) == 0
    (root / "sys/fs/cgroup/memory.max").write_bytes(limit)
    assert memory(root) == PHYSICAL


@pytest.mark.parametrize("limit", [0, 1000])
def test_shares_of_very_little_memory_are_those_of_the_minimum(tmp_path: Path, limit: int) -> None:
    root = system(tmp_path, "0::/\n", memory__max=limit)
    assert shares(0, 1, embedded=True, root=root) == shares(MIN_MEMORY, 1, embedded=True)


def test_shares_divide_the_total_between_store_requests_and_deliveries() -> None:
    assert shares(1024 * MIB, 1, embedded=True) == (512 * MIB, 128 * MIB, 128 * MIB)


def test_shares_with_an_external_store_are_for_the_processes_only() -> None:
    assert shares(1024 * MIB, 1, embedded=False) == (0, 256 * MIB, 256 * MIB)


def test_shares_are_divided_between_the_processes() -> None:
    assert shares(1024 * MIB, 4, embedded=True) == (512 * MIB, 32 * MIB, 32 * MIB)


def test_shares_are_of_three_quarters_of_the_memory_by_default() -> None:
    assert shares(0, 1, embedded=True).store == int(0.75 * memory()) // 2
