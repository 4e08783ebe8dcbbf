"""Results that were too large to be given whole, kept for an hour for the caller who got a part of them.

Each is a file of its own, sealed; its id names its owner: with another caller's it is no id at all.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import time
from pathlib import Path
from typing import Any

import msgspec

from callgate.store import secret_key

#: How the links begin.
RESULTS = "callgate://results/"
#: Seconds that a result is kept, and what one caller may have: the oldest make room.
LIVES = 3600.0
MOST, MOST_BYTES = 64, 256 * 1024 * 1024
_NONCE, _TAG = 18, 18


class KeptResult(msgspec.Struct, frozen=True):
    """A whole result, and the call that it came from, by whose name it is judged again."""

    server: str
    tool: str
    arguments: dict[str, Any]
    result: msgspec.Raw
    expires: float


class Results:
    """The kept results of one data directory, shared by its processes. ``keep`` and ``find`` block."""

    def __init__(self, data_dir: Path, lives: float = LIVES) -> None:
        self._data_dir = data_dir
        self._folder = data_dir / "results"
        self._lives = lives
        self._made: bytes | None = None

    def owns(self, uri: str, owner: str) -> str:
        """The id in a link of this caller's; ``""`` for everything else. Looks at no disk."""
        id = uri.removeprefix(RESULTS)
        if id == uri or len(id) != 4 * (_NONCE + _TAG) // 3:
            return ""
        try:
            raw = base64.b64decode(id.encode("ascii"), b"-_", validate=True)
        except ValueError:
            return ""
        return id if hmac.compare_digest(raw[_NONCE:], self._tag(raw[:_NONCE], owner)) else ""

    def keep(self, whole: KeptResult, owner: str) -> str:
        """Keep a result; returns its link."""
        nonce = os.urandom(_NONCE)
        id = base64.urlsafe_b64encode(nonce + self._tag(nonce, owner)).decode()
        folder = self._of(owner)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        sealed = self._cipher().encrypt(nonce[:12], msgspec.json.encode(whole), f"{id}\0{owner}".encode())
        self._make_room(folder, len(sealed))
        draft = folder / f".{id}"
        with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            file.write(sealed)
        draft.rename(folder / id)
        return RESULTS + id

    def find(self, id: str, owner: str) -> KeptResult | None:
        """A kept result; ``id`` comes from ``owns``."""
        from cryptography.exceptions import InvalidTag

        try:
            sealed = (self._of(owner) / id).read_bytes()
            nonce = base64.b64decode(id.encode("ascii"), b"-_")[:12]
            opened = self._cipher().decrypt(nonce, sealed, f"{id}\0{owner}".encode())
            whole = msgspec.json.decode(opened, type=KeptResult)
        except (OSError, InvalidTag, msgspec.MsgspecError):
            return None
        return whole if whole.expires > time.time() else None

    def expiry(self) -> float:
        return time.time() + self._lives

    def sweep(self) -> int:
        """Drop what is too old; returns how many."""
        gone, oldest = 0, time.time() - self._lives
        for folder in self._folders():
            for file in _files(folder):
                with contextlib.suppress(OSError):
                    if file.stat().st_mtime < oldest:
                        file.unlink()
                        gone += 1
            with contextlib.suppress(OSError):
                folder.rmdir()
        return gone

    def _make_room(self, folder: Path, size: int) -> None:
        known = []
        for file in _files(folder):
            with contextlib.suppress(OSError):
                state = file.stat()
                known.append((state.st_mtime, state.st_size, file))
        known.sort(key=lambda each: each[0], reverse=True)
        total = size
        for at, (_, bytes_, file) in enumerate(known):
            total += bytes_
            if at + 1 >= MOST or total > MOST_BYTES:
                file.unlink(missing_ok=True)

    def _folders(self) -> list[Path]:
        return [each for each in self._folder.iterdir() if each.is_dir()] if self._folder.is_dir() else []

    def _of(self, owner: str) -> Path:
        return self._folder / hashlib.sha256(owner.encode()).hexdigest()[:32]

    def _key(self) -> bytes:
        if self._made is None:
            self._made = secret_key(self._data_dir, "results")
        return self._made

    def _tag(self, nonce: bytes, owner: str) -> bytes:
        return hmac.digest(self._key(), nonce + owner.encode(), "sha256")[:_TAG]

    def _cipher(self) -> Any:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return AESGCM(hashlib.sha256(b"seal" + self._key()).digest())


def _files(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []
