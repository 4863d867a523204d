"""The bearer token of `API_TOKEN`, which has every scope."""

import hashlib
import hmac
from typing import Final

from scheduler_api.domain.access import EVERY_SCOPE, Principal

_OWNER: Final = Principal(EVERY_SCOPE)


class BearerToken:
    """One token, compared in constant time."""

    def __init__(self, token: str) -> None:
        self._usual = b"Bearer " + token.encode()  # as most clients write the header
        self._digest = hashlib.sha256(token.encode()).digest()

    def authenticate(self, authorization: bytes) -> Principal | None:
        """The caller with this `Authorization` header; None if the token is another one."""
        if hmac.compare_digest(authorization, self._usual):
            return _OWNER
        scheme, _, given = authorization.partition(b" ")
        digest = hashlib.sha256(given.strip(b" ")).digest()
        if scheme.lower() != b"bearer" or not hmac.compare_digest(digest, self._digest):
            return None
        return _OWNER
