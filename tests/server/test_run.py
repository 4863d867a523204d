"""The run of one process: uvicorn's options, the start-up log, cancellation, a worker's refusal."""

import asyncio
import socket
from pathlib import Path

import pytest

from scheduler_api.server import run, worker, worker_channel
from scheduler_api.server.shutdown import Shutdown
from scheduler_api.server.startup_log import configure_log
from scheduler_api.server.worker_channel import Channel
from scheduler_api.settings import Settings

PROXY_IDLE_TIMEOUT = 60  # seconds: nginx, HAProxy and the load balancers of clouds


def test_config_keeps_idle_connections_longer_than_proxies_do() -> None:
    """Else a proxy sends a request on a connection that is being closed, and responds 502."""
    assert run._config(Settings(), None).timeout_keep_alive > PROXY_IDLE_TIMEOUT


def test_configure_log_warns_about_a_setting_in_quotes(capsys: pytest.CaptureFixture[str]) -> None:
    configure_log(Settings(api_token="'abc'", log_format="json"))
    written = capsys.readouterr().err
    assert '"event":"setting_quoted","setting":"API_TOKEN"' in written
    assert "abc" not in written


async def test_run_raises_a_cancellation_that_no_signal_caused(tmp_path: Path) -> None:
    with socket.socket() as sock:
        settings = Settings(data_dir=tmp_path, api_token="t")
        running = asyncio.create_task(run.run(settings, sock, Shutdown(), lambda _: None))
        await asyncio.sleep(0)  # let it begin
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


async def test_worker_sends_the_wrong_setting_to_its_parent(tmp_path: Path) -> None:
    (tmp_path / "token").mkdir()
    ours, theirs = socket.socketpair()
    parent = await Channel.over(ours)
    with socket.socket() as sock:
        assert await worker._run(Settings(data_dir=tmp_path), sock, theirs) == 1
    received = [words async for words in parent.messages()]
    parent.close()
    assert [words[0] for words in received if words[0] != worker_channel.HEARTBEAT] == [
        worker_channel.WRONG_SETTINGS
    ]
    assert "API_TOKEN" in received[-1][1]
