"""Things that are held for somebody for a while: codes, refresh tokens, browser sessions, grants of users.

Each is sealed for its kind, name and owner, so a row that is copied to another's place does not open (rule SEC-4).
Names are kept as digests: whoever reads the database finds nothing that could be presented.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import msgspec

from callgate.errors import ConfigError
from callgate.store import HeldRow, HeldRows
from callgate.types import DEFAULT_TENANT

from .keys import Key, Keys

T = TypeVar("T", bound=msgspec.Struct)

#: A rotation between two looks makes what was read first out of date.
LOOKS = 3


class Held(Generic[T]):
    """Things of one ``kind``, each a ``shape``. Works over several processes; what was taken once stays taken.

    ``owner`` is whose a thing is, by the key of the principal or the id of the client: with it all of
    an owner can be dropped.
    Raises ConfigError when the database or the key cannot be used.
    """

    def __init__(
        self,
        kind: str,
        shape: type[T],
        rows: HeldRows,
        keys: Keys,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.kind = kind
        self._decode = msgspec.json.Decoder(shape).decode
        self._rows = rows
        self._keys = keys
        self._clock = clock

    async def get(self, name: str) -> T | None:
        """The thing with this name, while it has not expired."""
        found = await asyncio.to_thread(self._look, lambda: (self._rows.find(self.kind, self._digest(name)),))
        return found[0] if found else None

    async def of(self, owner: str) -> list[T]:
        """Everything that ``owner`` has."""
        return await asyncio.to_thread(self._look, lambda: self._rows.of(owner, self.kind))

    async def put(self, name: str, thing: T, owner: str, expires: float) -> None:
        """Keep it, in place of what had its name. On disk when this returns."""
        id = self._digest(name)
        # Sealed inside: of processes that start together one makes the first key.
        await asyncio.to_thread(
            self._rows.change, self.kind, id, lambda before: self._sealed(id, thing, owner, expires)
        )

    async def take(self, name: str) -> T | None:
        """The thing, which is gone then: of several takers one gets it."""
        return await self.change(name, lambda thing: None)

    async def change(self, name: str, change: Callable[[T], T | None], expires: float | None = None) -> T | None:
        """Put another one in its place, or none, in one step; returns what was there. ``change`` runs in a thread, and
        nobody else can change it meanwhile; the owner stays, and so does the expiry unless ``expires`` is another one.
        """
        found: list[T] = []

        def step(before: HeldRow | None) -> HeldRow | None:
            if before is None or not self._current(before):
                return None
            found.append(self._open(before))
            after = change(found[0])
            until = before.expires_at if expires is None else expires
            return None if after is None else self._sealed(before.id, after, before.owner, until)

        await asyncio.to_thread(self._rows.change, self.kind, self._digest(name), step)
        return found[0] if found else None

    async def drop(self, name: str) -> None:
        await asyncio.to_thread(self._rows.change, self.kind, self._digest(name), lambda before: None)

    async def drop_owner(self, owner: str) -> int:
        """Everything that ``owner`` has of this kind is gone; returns how much it was."""
        return await asyncio.to_thread(self._rows.drop_owner, owner, self.kind)

    def _look(self, find: Callable[[], tuple[HeldRow | None, ...]]) -> list[T]:
        """What is there and holds. A rotation between the two looks, at rows and keys, asks for another."""
        for left in reversed(range(LOOKS)):
            rows = [row for row in find() if row is not None and self._current(row)]
            keys = self._keys.read() if rows else ()
            if not left or {row.key_id for row in rows} <= {key.id for key in keys}:
                return [self._decode(opened(row, keys)) for row in rows]
        raise AssertionError("the last look opens or raises")

    def _digest(self, name: str) -> str:
        return hashlib.sha256(f"{self.kind}\0{name}".encode()).hexdigest()

    def _current(self, row: HeldRow) -> bool:
        return row.expires_at > self._clock()

    def _sealed(self, id: str, thing: T, owner: str, expires: float) -> HeldRow:
        key = self._keys.first(self._rows.key_ids)
        return sealed(HeldRow(self.kind, id, owner, "", b"", float(expires)), msgspec.json.encode(thing), key)

    def _open(self, row: HeldRow) -> T:
        return self._decode(opened(row, self._keys.read()))


class Hold(Protocol):
    """Makes a place for things of one kind."""

    def __call__(self, kind: str, shape: type[T]) -> Held[T]: ...


def sealed(row: HeldRow, content: bytes, key: Key) -> HeldRow:
    """The row with its content, sealed with this key."""
    from .sealing import seal

    return msgspec.structs.replace(row, key_id=key.id, sealed=seal(key.raw, content, *_bound(row, key)))


def opened(row: HeldRow, keys: tuple[Key, ...]) -> bytes:
    """Raises ConfigError where the key is gone, or the row was changed or stands at another's place."""
    from .sealing import NotOpened, unseal

    key = next((each for each in keys if each.id == row.key_id), None)
    if key is None:
        raise ConfigError(
            "Something in the database was sealed with a key that is gone.", hint=f"Put key {row.key_id} back."
        )
    try:
        return unseal(key.raw, row.sealed, *_bound(row, key))
    except NotOpened:
        raise ConfigError("Something sealed was changed in the database, or stands at another's place.") from None


def _bound(row: HeldRow, key: Key) -> tuple[str, ...]:
    """What a row is sealed for; also its end, which nobody can put off."""
    return ("held", DEFAULT_TENANT, row.kind, row.id, row.owner, repr(row.expires_at), key.id)
