"""Inbound HTTP/1.1 below the application: parsing, limits, and answers to what is refused there.

Also for `uvicorn scheduler_api:app --http scheduler_api.protocol:HttpProtocol`.
"""

from scheduler_api.protocol.connection import HttpProtocol

__all__ = ["HttpProtocol"]
