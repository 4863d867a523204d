"""What the server is set up with."""

from scheduler_api.server import run
from scheduler_api.settings import Settings

PROXIES_KEEP = 60  # seconds that nginx, HAProxy and the load balancers of clouds keep a connection


def test_idle_connections_of_callers_are_kept_longer_than_proxies_keep_theirs() -> None:
    """Else a proxy sends a request on a connection that is just being closed, and answers 502."""
    assert run._config(Settings(), None).timeout_keep_alive > PROXIES_KEEP
