"""The tokens that callers presented, for exchanging them: in memory, by their SHA-256, until they expire.

A ``Principal`` carries only the digest (``proof``), so nothing that prints, records or keeps a principal can show the
token. It must be the very token of the call: another one of the same person may carry more scopes, or no agent.
"""

from __future__ import annotations

from collections import OrderedDict

MOST = 10_000


class Presented:
    """Tokens that were verified, least recently presented first; at most ``size``."""

    def __init__(self, size: int = MOST) -> None:
        self._size = size
        self._tokens: OrderedDict[bytes, tuple[bytes, float, str]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tokens)

    def put(self, proof: bytes, token: bytes, expires: float, principal: str) -> None:
        self._tokens[proof] = (token, expires, principal)
        self._tokens.move_to_end(proof)
        if len(self._tokens) > self._size:
            self._tokens.popitem(last=False)

    def get(self, proof: bytes, now: float) -> bytes | None:
        found = self._tokens.get(proof)
        if found is None:
            return None
        if found[1] <= now:
            del self._tokens[proof]
            return None
        return found[0]

    def forget(self, principal: str) -> None:
        """The tokens of this principal were revoked."""
        for proof in [proof for proof, found in self._tokens.items() if found[2] == principal]:
            del self._tokens[proof]

    def clear(self) -> None:
        self._tokens.clear()

    def sweep(self, now: float) -> None:
        for proof in [proof for proof, found in self._tokens.items() if found[1] <= now]:
            del self._tokens[proof]
