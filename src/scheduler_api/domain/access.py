"""Access: the scopes of a caller, who may do what they allow.

read   show messages and destinations
write  create and delete messages
admin  change the settings of destinations
"""

from typing import Final, Literal, get_args

import msgspec

Scope = Literal["read", "write", "admin"]
EVERY_SCOPE: Final[frozenset[Scope]] = frozenset(get_args(Scope))


class Principal(msgspec.Struct, frozen=True):
    """A caller whose credential is valid."""

    scopes: frozenset[Scope]
