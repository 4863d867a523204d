"""Scheduler API: sends webhooks at a later time."""

from typing import Any

__version__ = "2.0.0"


def __getattr__(name: str) -> Any:
    """`app`, created on first use, for `uvicorn scheduler_api:app`."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from scheduler_api.server.asgi import app as create_app  # noqa: PLC0415

    globals()["app"] = created = create_app()
    return created
