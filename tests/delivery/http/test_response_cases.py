"""The table of responses over real connections: the result, and what the next request gets."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime

import pytest

from scheduler_api.delivery.http.sender import Sender, Sent
from scheduler_api.domain.message import Spec
from scheduler_api.store.claims import Claimed
from tests.delivery.conftest import send
from tests.support.fragmenting_server import Cutting, cutting
from tests.support.response_cases import CASES, Case
from tests.support.waiting import wait_until

CURL = shutil.which("curl")


def in_lines(answer: bytes) -> list[bytes]:
    """The first lines one by one, then the rest."""
    lines = answer.splitlines(keepends=True)
    return [*lines[:50], b"".join(lines[50:])]


def in_head_and_body(answer: bytes) -> list[bytes]:
    """In two packets."""
    head, end, body = answer.partition(b"\n\r\n")
    return [head + end, body]


WAYS: dict[str, Callable[[bytes], list[bytes]]] = {
    "whole": lambda answer: [answer],
    "head and body": in_head_and_body,
    "lines": in_lines,
    "bytes": lambda answer: [*(bytes([byte]) for byte in answer[:200]), answer[200:]],
}


@pytest.fixture
async def here() -> AsyncIterator[Cutting]:
    """A server that sends the given responses."""
    async with cutting() as here:
        yield here


async def attempt(sender: Sender, here: Cutting) -> Sent:
    """Send one request."""
    now = datetime.now(UTC)
    url, spec = f"http://127.0.0.1:{here.port}/", Spec(body=b"body", timeout=60)
    return await send(sender, Claimed("m", "w", 1, now, now, now, url, b"here", spec, 0, 0, b""))


def idle(sender: Sender) -> list[object]:
    """The idle connections that are still open."""
    pools = sender._transport._connector._conns.values()
    return [protocol for pool in pools for protocol, _ in pool if protocol.is_connected()]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES, ids=str)
async def test_promise_sent_once_as_the_status_line_decides(
    sender: Sender, here: Cutting, case: Case, way: str
) -> None:
    # The server closes only where the response ends so: all others end at once.
    here.answers.append((WAYS[way](case.answer), case.waits))
    found = (await attempt(sender, here)).attempt
    assert (found.status or found.error, found.response_excerpt) == (case.outcome, case.body)
    if not case.kept:
        await wait_until("no idle connection", lambda: not idle(sender))
    after = (await attempt(sender, here)).attempt
    assert (after.status, after.response_excerpt) == (299, "mine")
    assert here.connections == ([2] if case.kept else [1, 1])


if CURL:  # the tests above need no curl; it confirms the table

    async def test_cases_agree_with_curl() -> None:
        said = dict(zip(CASES, await curl([case.answer for case in CASES]), strict=True))
        ours = {case: case.outcome if isinstance(case.outcome, int) else 0 for case in CASES}
        unlike = [
            case.name for case in CASES if (said[case] // 100 == 2) != (ours[case] // 100 == 2)
        ]
        assert unlike == [case.name for case in CASES if case.unlike_curl]


async def curl(answers: list[bytes]) -> list[int]:
    """The status that curl reports for each; 0: none."""
    said: list[int] = []
    async with cutting() as here:
        while len(said) < len(answers):  # some responses end curl itself
            left = answers[len(said) :]
            here.answers = [([answer], True) for answer in left]
            each = ["-o", "/dev/null", f"http://127.0.0.1:{here.port}/"] * len(left)
            options = ["-q", "-s", "--http1.1", "--max-time", "60", "-w", "%{http_code}\n"]
            asked = await asyncio.create_subprocess_exec(
                str(CURL), *options, *each, stdout=asyncio.subprocess.PIPE
            )
            lines = (await asked.communicate())[0].split()
            assert lines, "curl reports at least one"
            said += map(int, lines)
    assert len(here.connections) == len(said), "one request for each"
    return said
