"""Nonces for proofs (RFC 9449, section 8): that a proof was made now, not in advance by who had the key for a while.

Nothing is remembered: a nonce is the time it was given out in, sealed, so every process over one data directory knows
those of the others.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable

#: For how long one nonce is given out (seconds); it counts while the next one is given out, too.
TURN = 120.0


class Nonces:
    """``key`` brings 32 random bytes; it may touch the disk at the first nonce."""

    def __init__(self, key: Callable[[], bytes], clock: Callable[[], float]) -> None:
        self._key = key
        self._clock = clock
        self._made: dict[int, str] = {}

    def current(self) -> str:
        """The nonce that clients are told now."""
        return self._of(self._turn())

    def holds(self, nonce: str) -> bool:
        turn = self._turn()
        return any(hmac.compare_digest(nonce.encode(), self._of(each).encode()) for each in (turn, turn - 1))

    def _turn(self) -> int:
        return int(self._clock() // TURN)

    def _of(self, turn: int) -> str:
        found = self._made.get(turn)
        if found is None:
            digest = hmac.digest(self._key(), b"dpop nonce %d" % turn, hashlib.sha256)
            found = base64.urlsafe_b64encode(digest[:24]).decode("ascii")
            self._made = {turn: found, **{each: made for each, made in self._made.items() if abs(each - turn) < 2}}
        return found
