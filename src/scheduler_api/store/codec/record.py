"""A record: what never changes of a stored message. lua/lib/record.lua knows the same bytes.

byte 1       version of this layout
bytes 2–7    when the message was created, ms, highest byte first   (by the store's clock)
bytes 8–13   when it is scheduled for, ms
bytes 14–21  fingerprint of the request
byte 22      the URL's scheme: 7 for http://, 8 for https://
byte 23      size of its authority in bytes: the authority names the destination
then         the URL from its authority on, a line feed, the Spec as msgpack
"""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from typing import Final

import msgspec

from scheduler_api.domain.message import Accepted, Spec
from scheduler_api.domain.url import destination_name

VERSION: Final = b"\x02"  # of the layout; the Lua file writes it
# In each webhook-id. VERSION instead would change the ids of messages that a new layout imports.
_FIRST_VERSION: Final = b"\x01"
HEAD_SIZE: Final = 23  # bytes before the URL
# Not a secret: the record has the request in the clear beside it. Where it is encrypted, this must
# become a key that all replicas share, or the fingerprint would confirm a guess of the payload.
_FINGERPRINT_KEY: Final = b"scheduler-api request"
_FINGERPRINT_SIZE: Final = 8  # bytes; compared only with the record under the same id
_KEYED: Final = blake2b(digest_size=_FINGERPRINT_SIZE, key=_FINGERPRINT_KEY)
_SCHEMES: Final = {7: "http://", 8: "https://"}  # by their size
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)
_SPACE: Final = re.compile(rb"\s")

_encode_spec = msgspec.msgpack.Encoder().encode
_decode_spec = msgspec.msgpack.Decoder(Spec).decode


class Record(msgspec.Struct, frozen=True):
    """A record, unpacked."""

    created_ms: int
    scheduled_ms: int
    url: str
    destination: bytes
    spec: Spec


def to_ms(at: datetime) -> int:
    """Milliseconds since 1970."""
    return (at - _EPOCH) // _MS


@lru_cache(maxsize=256)  # many messages have the same instants, and the clock shows the same ms
def from_ms(ms: int) -> datetime:
    """The instant in UTC."""
    return _EPOCH + ms * _MS


def pack_tail(accepted: Accepted) -> bytes:
    """The record from its 14th byte on. The store writes what stands before."""
    url = accepted.url
    sizes = bytes((url.start, len(url.authority)))
    content = b"%b%b\n%b" % (sizes, url.url[url.start :].encode(), _encode_spec(accepted.spec))
    return _fingerprint(content) + content


def _fingerprint(content: bytes) -> bytes:
    """Equal for requests that ask for the same; an instant is compared beside it."""
    hashed = _KEYED.copy()  # takes half of the time of a new one
    hashed.update(content)
    return hashed.digest()


def pack_scheduled(scheduled_ms: int) -> bytes:
    """The record's bytes 8–13."""
    return scheduled_ms.to_bytes(6)


def unpack_record(record: bytes) -> Record:
    """A whole record. Raises: ValueError, msgspec.MsgspecError."""
    if record[:1] != VERSION:
        raise ValueError(f"a record of version {record[:1]!r} is not known")
    end = record.index(b"\n", HEAD_SIZE)
    created, scheduled, url = unpack_head(record[: end + 1])
    destination = _name(record[HEAD_SIZE : HEAD_SIZE + record[HEAD_SIZE - 1]])
    return Record(created, scheduled, url, destination, _decode_spec(record[end + 1 :]))


def unpack_head(head: bytes) -> tuple[int, int, str]:
    """Created ms, scheduled ms and URL of a record that ends after its URL's line feed.

    Raises: ValueError.
    """
    if len(head) < HEAD_SIZE or head[HEAD_SIZE - 2] not in _SCHEMES:
        raise ValueError("the record has no URL")
    url = _SCHEMES[head[HEAD_SIZE - 2]] + head[HEAD_SIZE:-1].decode()
    return int.from_bytes(head[1:7]), int.from_bytes(head[7:13]), url


def webhook_id_of(message_id: bytes, record: bytes) -> str:
    """The same for each attempt; another one for a new message with the same id.

    Made of the id and of the instant of its creation, which an import keeps.
    """
    salt = _FIRST_VERSION + record[1:7]
    return f"msg_{blake2b(message_id, salt=salt, digest_size=16).hexdigest()}"


def destination_of(record: bytes) -> bytes:
    """The destination's name; b'?' if this is no record, as in lua/lib/record.lua."""
    if len(record) < HEAD_SIZE:
        return b"?"
    return _name(record[HEAD_SIZE : HEAD_SIZE + record[HEAD_SIZE - 1]])


@lru_cache(maxsize=4096)
def _name(authority: bytes) -> bytes:
    if not authority or _SPACE.search(authority):
        return b"?"
    return destination_name(authority.decode("latin-1")).encode("latin-1")
