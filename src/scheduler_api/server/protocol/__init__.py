"""Inbound HTTP/1.1 below the application: parsing, limits, and answers to what is refused there.

Also for `uvicorn scheduler_api:app --http scheduler_api.server.protocol:HttpProtocol`.
"""

from scheduler_api.server.protocol.http_protocol import HttpProtocol

__all__ = ["HttpProtocol"]
