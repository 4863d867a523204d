"""The one check of a request's credential and of its scope."""

from collections.abc import Iterable
from typing import Protocol

from scheduler_api.domain.access import Principal, Scope
from scheduler_api.domain.errors import Unauthenticated


class Credential(Protocol):
    """A kind of credential that a request may bring."""

    def authenticate(self, authorization: bytes) -> Principal | None:
        """The caller with this `Authorization` header; None if it is no credential of this kind."""


def requires(scope: Scope, authorization: bytes, credentials: Iterable[Credential]) -> Principal:
    """The caller, who has this scope. Raises: Unauthenticated.

    Every credential has every scope so far: the first one that has fewer also needs an error of
    status 403, so that its caller learns which scope is missing.
    """
    for credential in credentials:
        principal = credential.authenticate(authorization)
        if principal is not None and scope in principal.scopes:
            return principal
    raise Unauthenticated
