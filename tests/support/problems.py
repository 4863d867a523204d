"""Reads error responses (RFC 9457), strictly."""

from typing import Any

import aiohttp

MEMBERS = {"type", "title", "status", "detail", "code"}


async def problem(response: aiohttp.ClientResponse, status: int, code: str) -> dict[str, Any]:
    """Check the members that every problem has → all members."""
    assert response.content_type == "application/problem+json"
    found: dict[str, Any] = await response.json(content_type=None)
    assert response.status == status, found
    assert set(found) >= MEMBERS
    assert (found["type"], found["status"], found["code"]) == ("about:blank", status, code)
    assert found["title"]
    assert found["detail"]
    return found


async def wrong_paths(response: aiohttp.ClientResponse) -> list[str]:
    """The fields that a 422 names."""
    found = await problem(response, 422, "invalid_request")
    assert all(set(error) == {"path", "message"} for error in found["errors"])
    assert all(error["message"] for error in found["errors"])
    return [error["path"] for error in found["errors"]]
