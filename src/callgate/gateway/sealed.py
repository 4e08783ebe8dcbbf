"""Sealed text: what clients carry for callgate, and can neither read nor change nor make (AES-GCM).

Session ids, ids of tasks and `requestState` are such texts. Each is hostile input when it comes back.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec

T = TypeVar("T")

NONCE = 12
#: No text that holds anything is shorter.
_SHORTEST = 40


class Box(Generic[T]):
    """Seals and opens contents of one shape. ``key`` gives the key when it is needed for the first time. ``purpose`` is
    part of the seal, so that nothing opens for a purpose that it was not made for. ``longest`` is the length of the
    longest text that is looked at; ``version`` is what every text begins with.
    """

    def __init__(
        self, key: Callable[[], bytes], purpose: bytes, shape: type[T], longest: int, version: bytes = b""
    ) -> None:
        self._key = key
        self._purpose = purpose + version
        self._decode = msgspec.json.Decoder(shape).decode
        self._longest = longest
        self._version = version
        self._made: Any = None

    def seal(self, content: T, nonce: bytes | None = None) -> str:
        """A text with this content; ``nonce`` must never have been used before."""
        nonce = os.urandom(NONCE) if nonce is None else nonce
        sealed = self._cipher().encrypt(nonce, msgspec.json.encode(content), self._purpose)
        return _text(self._version + nonce + sealed)

    def open(self, text: object) -> T | None:
        """What a text holds; ``None`` unless it was made here, letter by letter."""
        if not isinstance(text, str) or not _SHORTEST <= len(text) <= self._longest:
            return None
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
            if not raw.startswith(self._version) or _text(raw) != text:  # one content has one spelling
                return None
            raw = raw[len(self._version) :]
            return self._decode(self._cipher().decrypt(raw[:NONCE], raw[NONCE:], self._purpose))
        except Exception:  # InvalidTag, binascii.Error, DecodeError: all mean that the text is not ours
            return None

    def _cipher(self) -> Any:
        if self._made is None:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM

            self._made = AESGCM(self._key())
        return self._made


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
