"""requires.py: which callers pass, with one kind of credential and with several."""

from typing import get_args

import pytest

from scheduler_api.api.auth.bearer import BearerToken
from scheduler_api.api.auth.requires import Credential, requires
from scheduler_api.domain.access import Principal, Scope
from scheduler_api.domain.errors import Unauthenticated

OWNER = BearerToken("owner")
READER = Principal(frozenset({"read"}))


class Reader:
    """A kind of credential with one scope."""

    def authenticate(self, authorization: bytes) -> Principal | None:
        return READER if authorization == b"Bearer reader" else None


@pytest.mark.parametrize("scope", get_args(Scope))
@pytest.mark.parametrize("credentials", [(OWNER,), (OWNER, Reader()), (Reader(), OWNER)])
def test_requires_accepts_the_api_token_for_every_scope(
    scope: Scope, credentials: tuple[Credential, ...]
) -> None:
    assert requires(scope, b"Bearer owner", credentials).scopes == set(get_args(Scope))


@pytest.mark.parametrize("credentials", [(Reader(),), (OWNER, Reader()), (Reader(), OWNER)])
def test_requires_returns_the_caller_of_any_kind_of_credential(
    credentials: tuple[Credential, ...],
) -> None:
    assert requires("read", b"Bearer reader", credentials) is READER


@pytest.mark.parametrize("scope", ["write", "admin"])
def test_requires_refuses_a_caller_without_the_scope(scope: Scope) -> None:
    with pytest.raises(Unauthenticated):
        requires(scope, b"Bearer reader", (OWNER, Reader()))


@pytest.mark.parametrize("credentials", [(), (OWNER,), (OWNER, Reader())])
def test_requires_refuses_a_header_that_no_kind_of_credential_accepts(
    credentials: tuple[Credential, ...],
) -> None:
    with pytest.raises(Unauthenticated):
        requires("read", b"Bearer other", credentials)
