"""Who reads, and how much they may read.

The operator (``operator.token``) and principals with the role ``admin`` or ``auditor`` read everything of their
tenant. Anybody else who is recognised reads what is theirs: their own calls, and the servers and tools that the
policy lets them see. Where nobody has to say who they are (a laptop), there is nothing to hide from anybody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from callgate.errors import Denied, Unauthenticated
from callgate.identity import recognise_operator
from callgate.types import Principal

if TYPE_CHECKING:
    from callgate.gateway import House

READS_ALL = frozenset({"admin", "auditor"})
CHANGES = "admin"


class Reader(msgspec.Struct, frozen=True):
    """The one who asks. ``everything`` is about the reader's own tenant, never about another; ``admin``: whether
    the reader may also change things.
    """

    who: Principal
    everything: bool
    admin: bool = False

    def only_if_everything(self) -> None:
        """Raise ``Denied`` for readers of their own things: rules and reasons are not theirs to read (POL-10)."""
        if not self.everything:
            roles = " or ".join(f"`{role}`" for role in sorted(READS_ALL))
            raise Denied("This is for operators and auditors.", hint=f"Ask for the role {roles}.")

    def only_if_admin(self) -> None:
        if not self.admin:
            raise Denied("This is for operators.", hint=f"Ask for the role `{CHANGES}`.")


async def recognise(authorization: bytes | None, token: str, house: House, *, loopback: bool) -> Reader:
    """The reader behind an ``Authorization`` header. ``loopback``: only this machine reaches the admin listener.

    Raises ``Unauthenticated``.
    """
    if authorization is not None and authorization[7:].strip().startswith(b"cgo_"):
        return Reader(recognise_operator(authorization, token), True, True)
    recogniser = house.recogniser
    who = recogniser.known(authorization) or await recogniser.recognise(authorization)
    if who.via == "anonymous" and not loopback:
        # Anonymous callers were admitted for a gateway listener on loopback; this one is reached from elsewhere.
        raise Unauthenticated("This request carries no credential.", hint="Send the operator's token, or your own.")
    if who.audience:
        raise Unauthenticated("The token is for the gateway listener.", hint="Send a token of your own, or a key.")
    identity = house.settings.identity
    laptop = who.via == "anonymous" and not identity.keys and not identity.jwt and identity.oauth is None
    return Reader(who, laptop or not READS_ALL.isdisjoint(who.roles), laptop or CHANGES in who.roles)
