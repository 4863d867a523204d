"""Send a webhook to the future: this payload, to this URL, at this instant."""

from typing import Any

__version__ = "2.0.0"


def __getattr__(name: str) -> Any:
    """`app`, made on first use, so that `uvicorn scheduler_api:app` works."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from scheduler_api.server.asgi import app as make  # noqa: PLC0415

    globals()["app"] = made = make()
    return made
