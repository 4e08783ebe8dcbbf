"""Ids of tasks: callgate's own, sealed. An id carries all that is needed to find the task again (rule TASK-9).

That is why it still works after a restart, and why nothing can be guessed from it or made of it: whoever changes a
byte, or is not the one who got the id, is told what is told about an id that never was (rule TASK-5).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

import msgspec

from callgate.errors import ProtocolError
from callgate.gateway.sealed import Box
from callgate.gateway.wire import INVALID_PARAMS

#: Arguments larger than this (bytes of JSON) do not go into the id.
ARGUMENTS = 1024
#: Bytes of the longest id that is looked at.
LONGEST = 16 * 1024

#: Who keeps the task: a server of one of the eras, or callgate itself.
Kept = Literal["modern", "legacy", "callgate"]


class Ticket(msgspec.Struct, frozen=True, array_like=True):
    """What an id carries: whose task it is, which call made it, and what its keeper calls it.

    ``arguments`` are those of the call (JSON; empty when they are too large), because policy judges every request
    about the task as it judged the call. ``digest`` names the settings of the server at that time.
    """

    principal: str
    server: str
    tool: str
    inner: str
    kept: Kept
    expires: int
    digest: str
    arguments: str = ""

    @property
    def native(self) -> str:
        return f"{self.server}/{self.tool}"


class TaskIds:
    """Seals tickets with AES-GCM. ``key`` gives the key when it is needed for the first time."""

    def __init__(self, key: Callable[[], bytes]) -> None:
        self._box = Box(key, b"task", Ticket, LONGEST)

    def seal(self, ticket: Ticket) -> str:
        return self._box.seal(ticket)

    def open(self, id: object, principal: str) -> Ticket:
        """What this principal's id carries; raises ``ProtocolError`` (-32602) for any other id."""
        ticket = self.read(id, principal)
        if ticket is None:
            raise unknown()
        return ticket

    def read(self, id: object, principal: str) -> Ticket | None:
        ticket = self._box.open(id)
        if ticket is None or ticket.principal != principal or ticket.expires < time.time():
            return None
        return ticket


def unknown() -> ProtocolError:
    """What is said of every id that leads nowhere."""
    return ProtocolError("Unknown task: it does not exist, or has expired.", INVALID_PARAMS)
