"""A message as it is stored and shown."""

import msgspec
from msgspec import UNSET

from scheduler_api.domain.accept import accept
from scheduler_api.domain.message import OPTIONS, NewMessage, Request, Spec, options_of, payload
from tests.support.factories import accepted


def test_payload_returns_what_was_given() -> None:
    assert payload(Spec()) is UNSET
    assert payload(Spec(content_type="text/plain", body="olá".encode())) == "olá"
    assert payload(Spec(body=b"[1]")) == msgspec.Raw(b"[1]")


def test_spec_has_every_option_of_a_request_under_a_name_of_one_letter() -> None:
    assert set(OPTIONS) == set(Request.__struct_fields__) - {"id", "webhook_url"}
    names = Spec.__struct_encode_fields__
    assert {len(name) for name in names} == {1}
    assert len(set(names)) == len(names)


def test_options_of_a_spec_ask_for_the_same_spec_again() -> None:
    asked = accepted(
        delay="1h30m",
        timezone="America/Sao_Paulo",
        method="PUT",
        headers={"X-A": "1"},
        contentType="text/csv",
        timeout="1.5s",
    )
    again = NewMessage(webhook_url=asked.url.url, **options_of(asked.spec))
    assert accept(again, "UTC", lambda *_: None) == asked
