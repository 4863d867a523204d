"""Valid values of EGRESS_PROXY and EGRESS_CA_FILE."""

import re
import ssl
from pathlib import Path
from typing import Final

_PROXY: Final = re.compile(
    r"http://(?:[^\s/?#@]*@)?(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?/?"
)


def validated_proxy(text: str) -> str:
    """The URL of the proxy, without space around it. Raises: ValueError."""
    found = _PROXY.fullmatch(text.strip())
    if found is None or (found[1] and not 1 <= int(found[1]) <= 65_535):
        raise ValueError(
            "must be http://HOST:PORT or http://USER:PASSWORD@HOST:PORT, "
            "with special characters of USER and PASSWORD percent-encoded"
        )
    return text.strip()


def validated_ca_file(text: str) -> Path:
    """The path of a file that has certificates. Raises: ValueError."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(text)
    except OSError as error:  # includes ssl.SSLError
        raise ValueError(
            f"must be a readable PEM file with certificates ({error.strerror})"
        ) from None
    return Path(text)
