"""The commands export and import, as real processes over a real store."""

import asyncio
import json
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from scheduler_api.admin.transfer import RESTORE_BATCH, ExportFile
from scheduler_api.store.store import Store
from tests.conftest import PARTITIONS
from tests.support.command_line import Run, run_in, shown_on_terminal
from tests.support.factories import URL, accepted
from tests.support.partitions import queue_of
from tests.support.valkey import client, valkey_server

AT = "2027-01-15T08:00:00Z"  # NOW


def line(message_id: str, **fields: Any) -> bytes:
    body = {"id": message_id, "webhookUrl": URL, "scheduleTo": AT, "createdAt": AT} | fields
    return json.dumps(body).encode() + b"\n"


async def create(store: Store, *ids: str) -> None:
    for message_id in ids:
        await store.messages.create(message_id, accepted(delay=60))


async def test_import_restores_an_export_and_skips_it_the_second_time(
    run: Run, live_store: Store, tmp_path: Path
) -> None:
    await create(live_store, "a", "b")
    done = await run("export", "out.ndjson")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"2 messages exported\n")
    assert stat.S_IMODE((tmp_path / "out.ndjson").stat().st_mode) == 0o600
    await live_store.messages.cancel("b")
    done = await run("import", "out.ndjson")
    assert (done.returncode, done.stderr) == (0, b"1 imported, 1 existed already\n")
    done = await run("import", "-", stdin=(tmp_path / "out.ndjson").read_bytes())
    assert (done.returncode, done.stderr) == (0, b"0 imported, 2 existed already\n")
    assert await live_store.messages.count() == 2


async def test_import_restores_an_international_url_as_given(run: Run, live_store: Store) -> None:
    given = f"{URL}/pre\u00e7o"
    await live_store.messages.create("a", accepted(delay=60, webhookUrl=given))
    assert (await run("export", "out.ndjson")).returncode == 0
    await live_store.messages.cancel("a")
    assert (await run("import", "out.ndjson")).returncode == 0
    message = await live_store.messages.get("a")
    assert (message.url, message.spec.given_url) == (f"{URL}/pre%C3%A7o", given)


async def test_import_restores_text_in_its_charset(
    run: Run, live_store: Store, tmp_path: Path
) -> None:
    text = accepted(delay=60, payload="ol\u00e1", contentType="text/plain; charset=iso-8859-1")
    await live_store.messages.create("a", text)
    assert (await run("export", "out.ndjson")).returncode == 0
    assert json.loads((tmp_path / "out.ndjson").read_bytes())["payload"] == "ol\u00e1"
    await live_store.messages.cancel("a")
    assert (await run("import", "out.ndjson")).returncode == 0
    assert (await live_store.messages.get("a")).spec.body == b"ol\xe1"


async def test_import_reads_the_milliseconds_of_earlier_exports(
    run: Run, live_store: Store, tmp_path: Path
) -> None:
    earlier = [line("a", delayMs=0), line("b", delayMs=90_001, timeoutMs=30_500)]
    (tmp_path / "in").write_bytes(b"".join(earlier))
    done = await run("import", "in")
    assert (done.returncode, done.stderr) == (0, b"2 imported, 0 existed already\n")
    first, second = [(await live_store.messages.get(message_id)).spec for message_id in "ab"]
    assert (first.delay, first.timeout) == (0, None)
    assert (second.delay, second.timeout) == (90.001, 30.5)
    assert (await run("export", "out")).returncode == 0
    exported = [json.loads(text) for text in (tmp_path / "out").read_bytes().splitlines()]
    assert not any(name.endswith("Ms") for message in exported for name in message)


async def test_progress_bar_is_shown_on_a_terminal(
    live_store: Store, valkey: str, prefix: str, tmp_path: Path
) -> None:
    await create(live_store, *(f"m{number}" for number in range(RESTORE_BATCH)))
    own = {"REDIS_URL": valkey, "REDIS_PREFIX": prefix, "PARTITIONS": str(PARTITIONS)}
    own |= {"EGRESS_ALLOW": "127.0.0.1"}
    for command, printed in (
        ("export", f"{RESTORE_BATCH} messages exported"),
        ("import", "0 imported"),
    ):
        code, shown = await asyncio.to_thread(
            shown_on_terminal, tmp_path, command, "out.ndjson", **own
        )
        assert code == 0, shown
        assert "ing  [" in shown
        assert "100%" in shown
        assert printed in shown


async def test_export_that_fails_leaves_a_part_to_resume(tmp_path: Path) -> None:
    def break_off() -> None:
        with ExportFile(tmp_path / "out", resume=False) as file:
            file.write(b"{}\n")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        break_off()
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "out.part").read_bytes() == b"{}\n"
    with ExportFile(tmp_path / "out", resume=True) as file:
        file.write(b"[]\n")
    assert (tmp_path / "out").read_bytes() == b"{}\n[]\n"


async def test_export_to_stdout_prints_only_lines(run: Run, live_store: Store) -> None:
    await create(live_store, "a")
    done = await run("export", "-")
    (only,) = done.stdout.splitlines()
    assert json.loads(only)["id"] == "a"


async def test_export_does_not_overwrite_a_file(
    run: Run, live_store: Store, tmp_path: Path
) -> None:
    await create(live_store, "a")
    (tmp_path / "out").write_text("mine")
    done = await run("export", "out")
    assert (done.returncode, done.stderr) == (
        1,
        b"Error: out exists and is not overwritten: choose another name, or remove it\n",
    )
    assert (tmp_path / "out").read_text() == "mine"


async def test_export_resumes_where_it_was_interrupted(
    run: Run, live_store: Store, tmp_path: Path
) -> None:
    await create(live_store, "a", "b", "c")
    whole = (await run("export", "-")).stdout
    first, second, third = whole.splitlines(keepends=True)
    (tmp_path / "out.part").write_bytes(first + second[:-9])
    done = await run("export", "out")
    assert done.returncode == 1
    assert b"continue with --resume, or remove it" in done.stderr
    done = await run("export", "--resume", "out")
    assert (done.returncode, done.stderr) == (0, b"2 messages exported\n")
    assert (tmp_path / "out").read_bytes() == first + second + third
    assert not (tmp_path / "out.part").exists()


async def test_import_with_one_invalid_line_imports_nothing(
    run: Run, live_store: Store, tmp_path: Path
) -> None:
    lines = [line("a"), b"{}\n", line("b"), line("c", webhookUrl="ftp://x/")]
    (tmp_path / "in").write_bytes(b"".join(lines))
    done = await run("import", "in")
    assert done.returncode == 1
    printed = done.stderr.decode().splitlines()
    assert printed[0] == "0 imported, 0 existed already"
    assert printed[1].startswith("refused: line 2: /id: this field is required")
    assert printed[2].startswith("refused: line 4: /webhookUrl: ")
    assert printed[3:] == ["Error: 2 refused"]
    assert await live_store.messages.count() == 0


async def test_import_refuses_an_id_of_another_message_and_imports_the_others(
    run: Run, live_store: Store, tmp_path: Path
) -> None:
    await create(live_store, "a")
    # More messages than in one call, and more refusals than are listed.
    taken = [line("a", payload=number) for number in range(30)]
    (tmp_path / "in").write_bytes(b"".join([*taken, *(line(f"m{n}") for n in range(600))]))
    done = await run("import", "in")
    assert done.returncode == 1
    printed = done.stderr.decode().splitlines()
    assert printed[0] == "600 imported, 0 existed already"
    assert printed[1:21] == ["refused: a: another message has this id"] * 20
    assert printed[21:] == ["Error: 30 refused"]


@pytest.mark.parametrize("arguments", [(), ("-", "--from-original", "redis://127.0.0.1:1")])
async def test_import_requires_exactly_one_source(run: Run, arguments: tuple[str, ...]) -> None:
    done = await run("import", *arguments)
    assert done.returncode == 2
    assert b"Give FILE or --from-original URL." in done.stderr


async def test_import_from_an_unreachable_original_prints_one_line(run: Run) -> None:
    done = await run("import", "--from-original", "redis://127.0.0.1:1")
    assert done.returncode == 1
    assert done.stderr.startswith(b"Error: The store cannot be reached")
    assert b"127.0.0.1:1" in done.stderr, "the cause has the address"
    assert done.stderr.count(b"\n") == 1


@pytest.fixture
async def original(tmp_path: Path) -> AsyncIterator[tuple[str, Redis]]:
    """The address and a client of a database of the original service."""
    async with valkey_server(tmp_path) as server:
        address = f"{server.address}?db=7"
        async with client(address) as redis:
            yield address, redis


def kept(at: str, **fields: Any) -> str:
    return json.dumps({"scheduleTo": at, "payload": {"n": 1}, "webhookUrl": URL} | fields)


async def test_import_from_the_original_copies_each_message_once_and_leaves_it_there(
    run: Run, live_store: Store, original: tuple[str, Redis]
) -> None:
    address, redis = original
    keys = {f"message:m{n}": kept("2046-04-15T02:41:45.000Z") for n in range(250)}
    keys["message:past"] = kept("2020-01-01T00:00:00Z", id="past")
    await redis.mset(keys | {"apscheduler.jobs": "x", "message:bad": "{}"})
    await redis.hset("message:other-type", "a", "1")
    for restored, same in ((251, 0), (0, 251)):
        done = await run("import", "--from-original", address)
        printed = done.stderr.decode().splitlines()
        assert printed[0] == f"{restored} imported, {same} existed already"
        assert printed[1].startswith("refused: bad: /webhookUrl: this field is required")
        assert (done.returncode, printed[2:]) == (1, ["Error: 1 refused"])
    assert await redis.dbsize() == 254
    claim = await queue_of(live_store, "past").claim(10)
    assert [message.id for message in claim.messages] == ["past"]
    assert (await live_store.messages.get("m7")).spec.body == b'{"n": 1}'
    assert await live_store.messages.count() == 251


async def test_export_and_import_use_the_embedded_store(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(line("a"))
    for arguments, printed in (("import", b"1 imported"), ("export", b"1 message exported")):
        file = "in" if arguments == "import" else "out"
        done = await run_in(tmp_path, arguments, file, EGRESS_ALLOW="127.0.0.1")
        assert printed in done.stderr
    assert json.loads((tmp_path / "out").read_text())["id"] == "a"
