"""The local store: sealed values in the database, keys elsewhere. Everything here blocks for a moment."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping

from callgate.errors import ConfigError, NotFound, UsageError, nearest
from callgate.store import HeldRow, HeldRows, SealedSecret, SecretRows
from callgate.types import DEFAULT_TENANT

from .held import opened, sealed
from .keys import Key, Keys, new_key
from .value import Secret

log = logging.getLogger("callgate.identity")

LARGEST = 64 * 1024
Reseal = Callable[[SealedSecret], tuple[str, bytes]]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
#: A rotation between two looks makes what was read first out of date.
LOOKS = 3


def check_name(name: str) -> str:
    """``name``, if it can be that of a secret. What is refused is not shown: it may be the value."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            "That cannot be the name of a secret.",
            hint="Up to 128 letters, digits, `_`, `.` and `-`, the first a letter or digit.",
        )
    return name


class SecretStore:
    """The secrets of one tenant. Safe to use by several processes at once. ``held`` is sealed with the same keys, so
    a rotation seals it anew too.
    """

    def __init__(self, rows: SecretRows, keys: Keys, held: HeldRows, tenant: str = DEFAULT_TENANT) -> None:
        self._rows = rows
        self._keys = keys
        self._held = held
        self._tenant = tenant

    def get(self, name: str) -> Secret | None:
        """The secret, ``None`` when there is none; ``ConfigError`` when it is there and cannot be opened."""
        check_name(name)
        for left in reversed(range(LOOKS)):
            row = self._rows.find(name)
            if row is None:
                return None
            keys = self._by_id()
            if row.key_id in keys or not left:
                return Secret(self._open(row, keys).decode(), row.version)
        raise AssertionError("the last look opens or raises")

    def set(self, name: str, value: str) -> SealedSecret:
        """Keep a value as the next version of ``name``; makes the first key when there is none."""
        check_name(name)
        content = _checked(value)

        def seal(version: int) -> tuple[str, bytes]:
            return self._seal(self._keys.first(self._held.key_ids), name, version, content)

        return self._rows.put(name, seal)

    def all(self) -> tuple[SealedSecret, ...]:
        """Every secret as it is kept, by name."""
        return self._rows.all()

    def remove(self, name: str) -> None:
        if not self._rows.remove(check_name(name)):
            close = nearest(name, [row.name for row in self._rows.all()])
            raise NotFound(f"There is no secret `{name}`.", hint=f"Did you mean `{close}`?" if close else "")

    def rotate(self) -> int:
        """Seal everything with a new key; returns how many secrets. The old key stays until that is done: whatever
        happens in between, everything can be opened, and the next rotation finishes the work.
        """
        if self._keys.given:
            return self._rotate_given()
        count = self._rows.reseal(self._begin)
        self._held.reseal(self._held_again)
        self._rows.settled(lambda rows: self._forget_old())
        return count

    def _rotate_given(self) -> int:
        keys = self._keys.read()
        if self._held.key_ids() <= {keys[0].id}:
            raise UsageError(
                f"Everything is sealed with the first key of {self._keys.place} already.",
                hint="Put a new key and a comma in front (`openssl rand -base64 32` makes one), and rotate again.",
            )
        count = self._rows.reseal(lambda: lambda row: self._again(row, keys))
        self._held.reseal(self._held_again)
        return count

    def _begin(self) -> Reseal:
        """A new key in front of the others, on disk before anything is sealed with it."""
        known = self._keys.read()
        if not known and self._held.key_ids():
            raise self._keys.gone()
        keys = (new_key(), *known)
        self._keys.write(keys)
        return lambda row: self._again(row, keys)

    def _forget_old(self) -> None:
        """Runs while nobody can seal anything."""
        used = self._held.key_ids()
        keys = self._keys.read()
        kept = tuple(key for at, key in enumerate(keys) if at == 0 or key.id in used)
        if kept != keys:
            self._keys.write(kept)

    def _held_again(self, row: HeldRow) -> HeldRow | None:
        """``None`` for what was changed in the database: nobody will ever open it. What needs a key that is not
        there stays as it is; the key may come back.
        """
        keys = self._keys.read()
        if row.key_id == keys[0].id or row.key_id not in {key.id for key in keys}:
            return row
        try:
            return sealed(row, opened(row, keys), keys[0])
        except ConfigError:
            log.warning("something of kind %r was changed in the database, and is dropped", row.kind)
            return None

    def _again(self, row: SealedSecret, keys: tuple[Key, ...]) -> tuple[str, bytes]:
        content = self._open(row, {key.id: key for key in keys})
        return self._seal(keys[0], row.name, row.version, content)

    def _by_id(self) -> dict[str, Key]:
        keys = self._keys.read()
        if not keys:
            raise self._keys.gone()
        return {key.id: key for key in keys}

    def _seal(self, key: Key, name: str, version: int, content: bytes) -> tuple[str, bytes]:
        from .sealing import seal

        return key.id, seal(key.raw, content, self._tenant, name, version, key.id)

    def _open(self, row: SealedSecret, keys: Mapping[str, Key]) -> bytes:
        from .sealing import NotOpened, unseal

        key = keys.get(row.key_id)
        if key is None:
            raise ConfigError(
                f"The secret `{row.name}` was sealed with another key than those in {self._keys.place}.",
                hint=f"Put key {row.key_id} back, or set the secret again: `callgate secret set {row.name}`.",
            )
        try:
            return unseal(key.raw, row.sealed, self._tenant, row.name, row.version, row.key_id)
        except NotOpened:
            raise ConfigError(
                f"The secret `{row.name}` was changed in the database, or stands at another's place.",
                hint=f"Find out who did that, and set it again: `callgate secret set {row.name}`.",
            ) from None


def _checked(value: str) -> bytes:
    try:
        content = value.encode()
    except UnicodeEncodeError:
        raise UsageError("The value is not UTF-8 text.", hint="Encode it, in base64 for example.") from None
    if not content:
        raise UsageError("The value is empty.")
    if len(content) > LARGEST or b"\0" in content:
        raise UsageError(f"The value is longer than {LARGEST} bytes, or has a zero byte.")
    return content
