"""Proofs that were used with calls: in memory, for as long as they could be used again, and no more than there is room.

Only who has a token that holds gets a proof in here, and each key has a share of the room: one that floods it is
refused itself, and pushes out nobody else's proofs.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable

from callgate.errors import Overloaded
from callgate.identity.possession import Proof
from callgate.identity.refusal import Refused

from .dpop import WINDOW

#: Proofs that are remembered, of all keys and of one. One takes about 140 bytes; 600,000 are 2,000 calls a second.
MOST, MOST_OF_ONE = 600_000, 300_000
#: Proofs are forgotten together that were made within so many seconds.
SLICE = 10.0


class Replays:
    """The proofs of one process."""

    def __init__(self, clock: Callable[[], float], most: int = MOST, most_of_one: int = MOST_OF_ONE) -> None:
        self._clock = clock
        self._most = most
        self._most_of_one = most_of_one
        self._salt = os.urandom(16)
        self._slices: dict[int, dict[str, set[int]]] = {}
        self._counts: Counter[str] = Counter()
        self._swept = float("-inf")
        self._total = 0

    def __len__(self) -> int:
        return self._total

    def take(self, proof: Proof) -> None:
        """Use a proof, once. Raises Refused when its id was used with its key before, Overloaded without room."""
        self._forget()
        digest = hashlib.blake2b(proof.jti.encode("utf-8", "surrogatepass"), digest_size=8, key=self._salt).digest()
        id = int.from_bytes(digest)
        for used in self._slices.values():
            if id in used.get(proof.jkt, ()):
                raise Refused("proof", "the proof: used before")
        self._check_room(proof.jkt)
        self._slices.setdefault(int(proof.issued // SLICE), {}).setdefault(proof.jkt, set()).add(id)
        self._counts[proof.jkt] += 1
        self._total += 1

    def _check_room(self, jkt: str) -> None:
        """When all is taken there is still room for keys that have less than half of their fair share."""
        mine = self._counts[jkt]
        fair = self._total < self._most or mine < self._most // (2 * len(self._counts))
        if mine >= self._most_of_one or not fair:
            raise Overloaded("Too many proofs of this key are to be remembered.", hint="Send fewer requests a second.")

    def _forget(self) -> None:
        """Drop what was made so long ago that its proofs do not hold any more."""
        now = self._clock()
        if 0 <= now - self._swept < SLICE:
            return
        self._swept = now
        for slice in [each for each in self._slices if (each + 1) * SLICE + WINDOW < now]:
            for jkt, used in self._slices.pop(slice).items():
                self._total -= len(used)
                self._counts[jkt] -= len(used)
                if not self._counts[jkt]:
                    del self._counts[jkt]
