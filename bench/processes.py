"""Worker processes, asked over pipes, and the CPU and memory of processes. Linux only."""

import os
import resource
import select
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast

import msgspec

ROOT = Path(__file__).parent.parent
TICKS = os.sysconf("SC_CLK_TCK")  # clock ticks a second in /proc
END_LIMIT = 30.0  # longest time that a process takes to end, seconds
ANSWER_LIMIT = (
    3600.0  # longest time until an answer, seconds: filling a store with 10 million messages
)
PASSED_ON = ("PATH", "HOME", "LANG", "TMPDIR", "PYTHONPATH", "LD_LIBRARY_PATH")


def environment(settings: dict[str, str]) -> dict[str, str]:
    """The environment without our own variables, plus these settings."""
    return {name: os.environ[name] for name in PASSED_ON if name in os.environ} | settings


class Program:
    """A process that reads a line of JSON and prints a line of JSON."""

    def __init__(self, *command: str) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env=environment({})
        )
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        cast("IO[bytes]", self._process.stdin).close()
        end(self._process)
        cast("IO[bytes]", self._process.stdout).close()

    def read(self) -> Any:
        """The next line. Raises: RuntimeError if the process has ended or does not answer."""
        stdout = cast("IO[bytes]", self._process.stdout)
        if not select.select([stdout], [], [], ANSWER_LIMIT)[0]:
            raise RuntimeError(f"{self._process.args!r} does not answer")
        line = stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} ended")
        return msgspec.json.decode(line)

    def ask(self, question: Any) -> Any:
        """Ask, and return the answer. Raises: RuntimeError, BrokenPipeError if it has ended."""
        stdin = cast("IO[bytes]", self._process.stdin)
        stdin.write(msgspec.json.encode(question) + b"\n")
        stdin.flush()
        return self.read()


class Worker(Program):
    """A module of bench in its own process."""

    def __init__(self, module: str, *args: str) -> None:
        super().__init__(sys.executable, "-m", module, *args)


def answer(value: Any) -> None:
    """In a worker: print the answer."""
    sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
    sys.stdout.buffer.flush()


def end(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process that was asked to end; kill it if it does not."""
    try:
        process.wait(END_LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def cpu_seconds(pid: int) -> float:
    """CPU time of one process without its children, in steps of 10 ms."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / TICKS


def family_cpu_seconds(pid: int) -> float:
    """CPU time of a process and all its descendants, also of those that have ended."""
    ticks = 0
    for one in family(pid):
        with suppress(OSError):  # it has ended since
            ticks += sum(map(int, _stat(one)[11:15]))
    return ticks / TICKS


def resident_mib(pid: int) -> float:
    """Resident memory of one process, MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1024**2


def family(pid: int) -> dict[int, str]:
    """Pid → command name of a process and all its descendants."""
    parents, names = _processes()
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return {one: names[one] for one in found if one in names}


def _processes() -> tuple[dict[int, int], dict[int, str]]:
    parents, names = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        with suppress(OSError):  # it has ended since
            parents[pid], names[pid] = int(_stat(pid)[1]), (folder / "comm").read_text().strip()
    return parents, names


def _stat(pid: int) -> list[str]:
    # The command's name, in brackets, may have spaces.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


class Foreign:
    """CPU time of other processes on this machine, which disturbs a run.

    Ours is what this process and all that it started and ended took.
    """

    def __init__(self) -> None:
        self._began, self._busy, self._own = time.monotonic(), _busy(), _own()

    def percent(self) -> float:
        """Percent since the start; 100 is one core."""
        foreign = (_busy() - self._busy) - (_own() - self._own)
        return round(100 * max(0.0, foreign) / (time.monotonic() - self._began), 1)


def _busy() -> float:
    first = Path("/proc/stat").read_text().partition("\n")[0].split()
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, first[1:9])
    return (user + nice + system + irq + softirq + steal) / TICKS


def _own() -> float:
    parts = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in parts)
