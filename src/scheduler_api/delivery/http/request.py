"""An HTTP/1.1 request as bytes."""

import re
from collections.abc import Mapping
from typing import Final

from yarl import URL

_find_target: Final = re.compile(r"[^:]*://[^/?#]*([^#]*)").match
_find_control: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]").search


def request_target(url: str) -> str:
    """Path and query exactly as in `url`; yarl drops a final `?` (aio-libs/yarl#222)."""
    found = _find_target(url)
    target = found[1] if found else ""
    return target if target.startswith("/") else f"/{target}"


def serialize(
    method: str, url: URL, target: str, headers: Mapping[str, str], body: bytes | None
) -> bytes:
    """Head and body; `Host` and `Content-Length` are added to the headers.

    Raises: ValueError for a control character in the head, which could add another header.
    """
    lines = [f"{method} {target} HTTP/1.1", f"Host: {url.host_port_subcomponent}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body is not None or method != "GET":  # RFC 9110, section 8.6
        lines.append(f"Content-Length: {len(body or b'')}")
    if _find_control("".join(lines)):
        raise ValueError("the head of a request contains a control character")
    lines.append("\r\n")
    return "\r\n".join(lines).encode() + (body or b"")
