"""What EGRESS_PROXY and EGRESS_CA_FILE may be."""

import re
import ssl
from pathlib import Path
from typing import Final

_PROXY: Final = re.compile(
    r"http://(?:[^\s/?#@]*@)?(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?/?"
)


def checked_proxy(text: str) -> str:
    """The URL of the proxy. Raises: ValueError."""
    found = _PROXY.fullmatch(text.strip())
    if found is None or (found[1] and not 1 <= int(found[1]) <= 65_535):
        raise ValueError(
            "give http://HOST:PORT or http://USER:PASSWORD@HOST:PORT, "
            "with special characters of USER and PASSWORD percent-encoded"
        )
    return text.strip()


def checked_ca_file(text: str) -> Path:
    """The file, if it has certificates. Raises: ValueError."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(text)
    except OSError as error:  # ssl.SSLError is one
        raise ValueError(f"give a file of certificates in PEM form ({error.strerror})") from None
    return Path(text)
