"""The keys that sign tokens: files in the data directory, which all processes over it read alike.

A key has a number and the time it was made. The first signs at once, each later one ``AHEAD`` seconds after it was
made, when everybody has had time to fetch it, and until its successor does; it stays published for as long as a token
lives that it may have signed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from callgate.errors import ConfigError

log = logging.getLogger("callgate.identity")

AHEAD = 3600.0
#: Longer than any token lives (``identity.oauth.token_ttl`` is at most an hour).
AFTER = 2 * 3600.0
REREAD = 60.0
_NAME = re.compile(r"([0-9]{6})\.json")


class SigningKey:
    """One key pair. ``trusted`` turns false when it is no longer published."""

    __slots__ = ("key", "kid", "number", "public", "starts", "trusted")

    def __init__(self, number: int, made: float, private: dict[str, Any]) -> None:
        self.number = number
        self.starts = made if number == 1 else made + AHEAD
        self.key = ECKey.import_key(private)
        self.kid: str = self.key.thumbprint()
        self.public = {**self.key.as_dict(private=False), "kid": self.kid, "use": "sig", "alg": "ES256"}
        self.trusted = True


class SigningKeys:
    """The keys of one data directory. All methods but ``signer``, ``find``, ``published`` and ``stale`` touch the disk.

    Raises ConfigError when the files cannot be used or can be read by others.
    """

    def __init__(self, folder: Path, rotation: float, clock: Callable[[], float]) -> None:
        self._folder = folder
        self._rotation = rotation
        self._clock = clock
        self._keys: dict[str, SigningKey] = {}
        self._read = float("-inf")
        self._reading = threading.Lock()

    def signer(self) -> SigningKey:
        now = self._clock()
        by_number = sorted(self._keys.values(), key=lambda each: each.number)
        return next((each for each in reversed(by_number) if each.starts <= now), by_number[0])

    def find(self, kid: object) -> SigningKey | None:
        return self._keys.get(kid) if isinstance(kid, str) else None

    def published(self) -> list[dict[str, Any]]:
        return [each.public for each in sorted(self._keys.values(), key=lambda each: each.number)]

    def stale(self, after: float = REREAD) -> bool:
        """Whether the files were read more than ``after`` seconds ago."""
        return not 0 <= self._clock() - self._read < after

    def reread(self) -> None:
        """``refresh`` while running: where that fails the keys that are there stay in use."""
        try:
            self.refresh()
        except ConfigError as error:
            if not self._keys:
                raise
            self._read = self._clock()
            log.warning("the signing keys could not be read again: %s", error.message)

    def refresh(self) -> None:
        """Read the files anew, make the next key when it is time, and delete what nobody needs."""
        with self._reading:
            self._refresh()

    def _refresh(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            _check_folder(self._folder)
            found = self._load()
            newest = max(found.values(), key=lambda each: each.number, default=None)
            if newest is None or newest.starts + self._rotation - AHEAD <= self._clock():
                self._make(1 if newest is None else newest.number + 1)
                found = self._load()
            self._retire(found)
        except OSError as error:
            raise ConfigError(
                f"The signing keys in `{self._folder}` cannot be used: {error.strerror}.",
                hint="Check `data_dir` and its owner.",
            ) from None
        for kid in self._keys.keys() - found.keys():
            self._keys[kid].trusted = False
        self._keys = found
        self._read = self._clock()

    def _load(self) -> dict[str, SigningKey]:
        known = {each.number: each for each in self._keys.values()}
        found: dict[str, SigningKey] = {}
        for path in self._folder.iterdir():
            if name := _NAME.fullmatch(path.name):
                number = int(name[1])
                with contextlib.suppress(FileNotFoundError):  # another process has just deleted it
                    each = known.get(number) or _read(path, number)
                    found[each.kid] = each
        return found

    def _make(self, number: int) -> None:
        key = ECKey.generate_key("P-256")
        content = msgspec.json.encode({"made": self._clock(), "key": key.as_dict(private=True)})
        path = self._folder / f"{number:06d}.json"
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        try:
            with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            # Neither of the two replaces a file: who comes second takes the key of who came first.
            with contextlib.suppress(FileExistsError):
                draft.rename(path) if os.name == "nt" else path.hardlink_to(draft)
        finally:
            draft.unlink(missing_ok=True)

    def _retire(self, found: dict[str, SigningKey]) -> None:
        by_number = sorted(found.values(), key=lambda each: each.number)
        for each, successor in pairwise(by_number):
            if successor.starts + AFTER <= self._clock():
                (self._folder / f"{each.number:06d}.json").unlink(missing_ok=True)
                del found[each.kid]


def _check_folder(folder: Path) -> None:
    """Whoever can put a file there can sign."""
    if os.name == "posix" and folder.stat().st_mode & 0o022:
        raise ConfigError(f"Others can write to `{folder}`.", hint="Take that from them: chmod 700.")


def _read(path: Path, number: int) -> SigningKey:
    if os.name == "posix" and path.stat().st_mode & 0o077:
        raise ConfigError(f"Others can read `{path}`.", hint="Delete it; callgate makes a new key when it starts.")
    try:
        content = msgspec.json.decode(path.read_bytes())
        return SigningKey(number, float(content["made"]), content["key"])
    except (msgspec.MsgspecError, JoseError, ValueError, TypeError, KeyError):
        raise ConfigError(f"`{path}` holds no signing key.", hint="Delete it; callgate makes a new one.") from None
