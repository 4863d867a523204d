"""A message as it is stored and shown."""

import msgspec
from msgspec import UNSET

from scheduler_api.domain.message import Spec, payload


def test_payload_is_shown_as_it_was_given() -> None:
    assert payload(Spec()) is UNSET
    assert payload(Spec(content_type="text/plain", body="olá".encode())) == "olá"
    assert payload(Spec(body=b"[1]")) == msgspec.Raw(b"[1]")
