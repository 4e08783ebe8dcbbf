"""Browsers that are signed in: a random id in a cookie, and behind it, sealed, who it is."""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Callable

import msgspec

from callgate.errors import ConfigError
from callgate.identity.secrets.held import Held

from .person import Person

log = logging.getLogger("callgate.identity")


class Session(msgspec.Struct, frozen=True):
    """Who is signed in. The provider wants its ID token back when the person signs out there, and for nothing else is
    it kept here.
    """

    person: Person
    id_token: str = ""


class Browsers:
    """The sessions, by the ids in the cookies. ``life`` is how long one lasts (seconds)."""

    def __init__(self, held: Held[Session], clock: Callable[[], float] = time.time) -> None:
        self._held = held
        self._clock = clock

    async def open(self, session: Session, life: float, before: str) -> tuple[str, Person]:
        """A new session, under a new id (an id that somebody planted is worth nothing); ``before`` is the id of the
        session that this browser had, which ends.
        """
        id, now = secrets.token_urlsafe(32), self._clock()
        person = msgspec.structs.replace(session.person, at=now, expires=now + life)
        await self._held.put(id, msgspec.structs.replace(session, person=person), person.key, person.expires)
        await self.end(before)
        return id, person

    async def find(self, id: str) -> Session | None:
        if not id:
            return None
        try:
            return await self._held.get(id)
        except ConfigError as error:  # sealed with a key that is gone, or changed: nobody
            log.warning("a browser session cannot be read: %s", error.message)
            return None

    async def end(self, id: str) -> None:
        if id:
            await self._held.drop(id)

    async def end_all(self, person: str) -> int:
        """Sign the person with this key out everywhere; returns of how many browsers."""
        return await self._held.drop_owner(person)


def form_token(id: str) -> str:
    """What forms of the session with this id carry. It is no way back to the id."""
    return hmac.new(id.encode(), b"callgate form", hashlib.sha256).hexdigest() if id else ""
