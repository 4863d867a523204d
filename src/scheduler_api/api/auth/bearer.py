"""Who may ask: the bearer token."""

import hashlib
import hmac

from scheduler_api.domain.errors import Unauthenticated


class BearerToken:
    """The one token, compared without telling how much of it was right."""

    def __init__(self, token: str) -> None:
        self._digest = hashlib.sha256(token.encode()).digest()

    def check(self, authorization: bytes) -> None:
        """The header's value. Raises: Unauthenticated."""
        scheme, _, given = authorization.partition(b" ")
        digest = hashlib.sha256(given.strip(b" ")).digest()
        if scheme.lower() != b"bearer" or not hmac.compare_digest(digest, self._digest):
            raise Unauthenticated
