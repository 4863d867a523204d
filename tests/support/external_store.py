"""A store that the service does not run itself: tests stop, kill and start it."""

from pathlib import Path
from typing import Final
from urllib.parse import quote

from tests.support.valkey import Valkey
from tests.system.processes import free_port

PASSWORD: Final = "pass word/of:the@store"


class ExternalStore(Valkey):
    """A durable store on loopback, with a password."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        login = (f"port {self.port}", "bind 127.0.0.1", f"requirepass {PASSWORD!r}")
        super().__init__(folder, *login, "appendonly yes", "appendfsync always")

    @property
    def address(self) -> str:
        """Its URL."""
        return f"unix://:{quote(PASSWORD, safe='')}@{self.socket}"

    @property
    def environ(self) -> dict[str, str]:
        """Settings of a service that uses it."""
        return {
            "REDIS_HOST": "127.0.0.1",
            "REDIS_PORT": str(self.port),
            "REDIS_PASSWORD": PASSWORD,
        }
