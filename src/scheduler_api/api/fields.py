"""Fields that several queries and responses have, and how a field is described."""

from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType

MAX_PAGE: Final = 1000  # items on one page of a list
# Examples that several fields have.
EXAMPLE_ID: Final = "msg-unique-id-123"
EXAMPLE_INSTANT: Final = "2046-04-15T02:41:45+00:00"
EXAMPLE_CURSOR: Final = "MTA6YQ"
EXAMPLE_MESSAGE: Final = {
    "webhookUrl": "https://example.com/hook",
    "delay": "10m",
    "payload": {"message": "Sua mensagem aqui"},
}


def described(description: str, *examples: Any) -> Meta:
    """The description of a field in the OpenAPI document."""
    return Meta(description=description, examples=list(examples) or None)


Instant = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]  # see format_instant


class PageQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Which page of a list."""

    limit: Annotated[
        int, Meta(ge=1, le=MAX_PAGE), described("Maximum number of items on the page.", 100)
    ] = MAX_PAGE
    cursor: Annotated[
        str | UnsetType,
        described(
            "`nextCursor` of the page before. Leave it out to get the first page.", EXAMPLE_CURSOR
        ),
    ] = UNSET


PAGE_FIELDS: Final = PageQuery.__struct_encode_fields__
