"""The memory that there is, by the machine and by the cgroups that hold the process."""

import os
from pathlib import Path

import pytest

from scheduler_api.settings.memory_shares import MIN_MEMORY, memory, shares

MIB = 1024**2
PHYSICAL = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
UNLIMITED_V1 = 9223372036854771712  # what an unset limit of cgroup v1 reads


def system(root: Path, cgroup: str, **files: object) -> Path:
    """A root folder with these limits, their paths with dots as `__` and slashes as ` `."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, value in files.items():
        file = root / "sys/fs/cgroup" / name.replace("__", ".").replace("0", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{value}\n")
    return root


def test_memory_of_a_machine_without_cgroups_is_its_own(tmp_path: Path) -> None:
    assert memory(tmp_path) == PHYSICAL


def test_memory_here_is_no_more_than_the_machine_has() -> None:
    assert 0 < memory() <= PHYSICAL


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        # Version 2: as a container sees it, and nested, where the smallest holds.
        ("0::/\n", {"memory__max": 512 * MIB}, 512 * MIB),
        ("0::/\n", {"memory__max": "max", "memory__high": 300 * MIB}, 300 * MIB),
        ("0::/a/b\n", {"a0b0memory__max": 256 * MIB, "a0memory__max": 512 * MIB}, 256 * MIB),
        ("0::/a/b\n", {"a0b0memory__max": "max", "a0memory__max": 128 * MIB}, 128 * MIB),
        ("0::/a/b\n", {"a0b0memory__max": "max"}, PHYSICAL),
        ("0::/../..\n", {"memory__max": 64 * MIB}, 64 * MIB),
        # Version 1: with the host's name of the group, of which the container sees the files.
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
def test_memory_is_the_least_limit(
    tmp_path: Path, cgroup: str, files: dict[str, object], expected: int
) -> None:
    assert memory(system(tmp_path, cgroup, **files)) == expected


@pytest.mark.parametrize("line", [b"", b"nonsense", b"0::", b"0::relative", b"0::/caf\xe9"])
def test_an_odd_line_about_cgroups_hides_no_other(tmp_path: Path, line: bytes) -> None:
    root = system(tmp_path, "", memory0memory__limit_in_bytes=50 * MIB)
    (root / "proc/self/cgroup").write_bytes(line + b"\n3:memory:/caf\xe9\n")
    assert memory(root) == 50 * MIB


@pytest.mark.parametrize("limit", [b"", b"-1\n", b"1.5\n", b"\xff\xfe\n", "٣\n".encode()])
def test_a_limit_that_is_no_number_is_none(tmp_path: Path, limit: bytes) -> None:
    root = system(tmp_path, "0::/\n", memory__max=0)
    assert memory(root) == 0
    (root / "sys/fs/cgroup/memory.max").write_bytes(limit)
    assert memory(root) == PHYSICAL


@pytest.mark.parametrize("limit", [0, 1000])
def test_shares_of_next_to_no_memory_are_those_of_the_least_setting(
    tmp_path: Path, limit: int
) -> None:
    root = system(tmp_path, "0::/\n", memory__max=limit)
    assert shares(0, 1, embedded=True, root=root) == shares(MIN_MEMORY, 1, embedded=True)


def test_shares_are_of_what_is_set() -> None:
    assert shares(1024 * MIB, 1, embedded=True) == (512 * MIB, 128 * MIB, 128 * MIB)


def test_shares_with_an_outside_store_are_of_the_processes() -> None:
    assert shares(1024 * MIB, 1, embedded=False) == (0, 256 * MIB, 256 * MIB)


def test_shares_of_several_processes_are_for_all_together() -> None:
    assert shares(1024 * MIB, 4, embedded=True) == (512 * MIB, 32 * MIB, 32 * MIB)


def test_shares_by_default_are_of_three_quarters_of_the_machine() -> None:
    assert shares(0, 1, embedded=True).store == int(0.75 * memory()) // 2
