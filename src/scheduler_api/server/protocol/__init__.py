"""Inbound HTTP/1.1 below the application: parsing, limits, and responses to refused requests.

Can also be used by uvicorn's own command:
`uvicorn scheduler_api:app --http scheduler_api.server.protocol:HttpProtocol`.
"""

from scheduler_api.server.protocol.http_protocol import HttpProtocol

__all__ = ["HttpProtocol"]
