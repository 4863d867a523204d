"""What the server is set up with, and how its run ends."""

import asyncio
import socket
from pathlib import Path

import pytest

from scheduler_api.server import run, worker, worker_channel
from scheduler_api.server.shutdown import Shutdown
from scheduler_api.server.startup_log import configure_log
from scheduler_api.server.worker_channel import Channel
from scheduler_api.settings import Settings

PROXIES_KEEP = 60  # seconds that nginx, HAProxy and the load balancers of clouds keep a connection


def test_idle_connections_of_callers_are_kept_longer_than_proxies_keep_theirs() -> None:
    """Else a proxy sends a request on a connection that is just being closed, and answers 502."""
    assert run._config(Settings(), None).timeout_keep_alive > PROXIES_KEEP


def test_configure_log_warns_of_a_setting_in_quotes(capsys: pytest.CaptureFixture[str]) -> None:
    configure_log(Settings(api_token="'abc'", log_format="json"))
    written = capsys.readouterr().err
    assert '"event":"setting_quoted","setting":"API_TOKEN"' in written
    assert "abc" not in written


async def test_run_ends_with_a_cancel_that_no_signal_caused(tmp_path: Path) -> None:
    with socket.socket() as sock:
        settings = Settings(data_dir=tmp_path, api_token="t")
        running = asyncio.create_task(run.run(settings, sock, Shutdown(), lambda _: None))
        await asyncio.sleep(0)  # it has begun
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


async def test_a_worker_says_to_its_parent_which_setting_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "token").mkdir()
    ours, theirs = socket.socketpair()
    parent = await Channel.over(ours)
    with socket.socket() as sock:
        assert await worker._run(Settings(data_dir=tmp_path), sock, theirs) == 1
    said = [words async for words in parent.messages()]
    parent.close()
    assert [words[0] for words in said if words[0] != worker_channel.HEARTBEAT] == [
        worker_channel.WRONG_SETTINGS
    ]
    assert "API_TOKEN" in said[-1][1]
