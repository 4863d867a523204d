"""New messages, made as from a caller's request."""

from typing import Any

import msgspec

from scheduler_api.domain.accept import accept
from scheduler_api.domain.egress import EgressRules
from scheduler_api.domain.message import Accepted, NewMessage

URL = "http://127.0.0.1:2/hook"  # nobody listens there
LOOPBACK = EgressRules.parse("127.0.0.0/8")


def new_message(**fields: Any) -> NewMessage:
    """A request body with these members (wire names), decoded."""
    body = msgspec.json.encode({"webhookUrl": URL} | fields)
    return msgspec.json.decode(body, type=NewMessage)


def accepted(**fields: Any) -> Accepted:
    """A new message that passed the checks."""
    return accept(new_message(**fields), "UTC", LOOPBACK.refusal_of_literal)
