"""What a link is made for: whose it is, what its server is told, and who hears what the server says by itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from callgate.types import Answer, Ask, Era, Listing, News, Principal, Question, RpcError, ServerStatus

from .bulkhead import Bulkhead

Notice = Callable[[], None]
METHOD_NOT_FOUND = -32601
Tidings = Callable[[str, Mapping[str, Any]], None]


class Owner(NamedTuple):
    """Who shares a link: one principal, and one client session if there are such. Another one never gets the link.

    ``era`` is what the link speaks, ``capabilities`` what ``initialize`` declares on it (encoded).
    """

    principal: str
    session: str
    era: Era
    capabilities: bytes = b"{}"


def nobody() -> None:
    """The notice of a link whose news interest nobody."""


def unheard(method: str, params: Mapping[str, Any]) -> None:
    """Nobody is told."""


class Purpose(msgspec.Struct, frozen=True):
    """``floor`` is where calls give up their place while they wait for a client's answer.

    ``owner`` is ``None`` for the link that lists and that everybody may share. ``era`` is given when it is known.
    ``notice`` is called when the link became ``lost`` or ``stale``, ``news`` gets notifications that belong to no
    call, ``ask`` the questions that belong to none, ``renewed`` is called when the server has forgotten the session and
    another one was opened. ``listens``: the server's own stream is read. ``whose`` is the owner as it was recognised
    when the link was made.
    """

    floor: Bulkhead
    owner: Owner | None = None
    era: Era | None = None
    capabilities: Mapping[str, Any] = msgspec.field(default_factory=dict)
    notice: Notice = nobody
    renewed: Notice = nobody
    news: Tidings = unheard
    ask: Ask | None = None
    listens: bool = True
    whose: Principal | None = None


async def nobody_to_ask(server: str, principal: str, session: str, question: Question) -> Answer:
    """For houses whose clients cannot be asked outside calls."""
    return Answer(error=RpcError(METHOD_NOT_FOUND, "the client cannot be asked this"))


def unshared(server: str, principal: str, session: str) -> None:
    """For houses that show nobody lists of its own."""


class Ears(msgspec.Struct, frozen=True):
    """Who hears what servers are, and what they say outside calls.

    ``common_again``: nothing that an own link of this client announced counts any more.
    """

    listing: Callable[[Listing], None]
    status: Callable[[ServerStatus], None]
    news: Callable[[News], None]
    question: Callable[[str, str, str, Question], Awaitable[Answer]]
    common_again: Callable[[str, str, str], None] = unshared
