"""What was verified or refused a moment ago, by the SHA-256 of the credential (rules TOK-1 to TOK-3).

The two memories are apart on purpose: whoever sends many bad tokens fills the second one only.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

import msgspec

from callgate.types import Principal

from .refusal import Kind, Refused

ACCEPTED_ENTRIES = 50_000
ACCEPTED_SECONDS = 60.0
REFUSED_ENTRIES = 10_000
REFUSED_SECONDS = 5.0


class Trust(Protocol):
    """The key that verified a token: ``trusted`` turns false when its issuer withdraws it."""

    @property
    def trusted(self) -> bool: ...


class Verified(msgspec.Struct, frozen=True):
    """A token that holds: whose it is, the key that signed it, and when it was issued and ends (epoch seconds)."""

    principal: Principal
    signer: Trust
    issued: float
    expires: float


class Accepted:
    """Verified tokens, least recently used first; at most ``size``, none for longer than a minute."""

    def __init__(self, size: int = ACCEPTED_ENTRIES) -> None:
        self._size = size
        self._entries: OrderedDict[bytes, tuple[Principal, float, Trust, float]] = OrderedDict()
        self._epochs: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, digest: bytes, now: float) -> Principal | None:
        entry = self._entries.get(digest)
        if entry is None:
            return None
        principal, until, signer, issued = entry
        if until <= now or not signer.trusted or (self._epochs and self._is_revoked(principal, issued)):
            del self._entries[digest]
            return None
        self._entries.move_to_end(digest)
        return principal

    def put(self, digest: bytes, verified: Verified, now: float) -> None:
        """Remember a token until the earlier of its ``exp`` and a minute. Raises Refused when it was revoked."""
        principal = verified.principal
        if self._is_revoked(principal, verified.issued):
            raise Refused("not accepted", "the subject's tokens were revoked after this one was issued")
        entries = self._entries
        # Two for one: what has expired unused leaves faster than new tokens come.
        for _ in range(2):
            if entries and next(iter(entries.values()))[1] <= now:
                entries.popitem(last=False)
        until = min(verified.expires, now + ACCEPTED_SECONDS)
        if until <= now:  # it lives by the leeway only: verified anew each time
            return
        entries[digest] = (principal, until, verified.signer, verified.issued)
        entries.move_to_end(digest)
        if len(entries) > self._size:
            entries.popitem(last=False)

    def revoke(self, key: str, now: float) -> None:
        """Tokens of the principal ``key`` that were issued until ``now`` hold no longer."""
        self._epochs[key] = now

    def clear(self) -> None:
        """Forget all tokens: each is verified anew."""
        self._entries.clear()

    def adopt_revocations(self, previous: Accepted) -> None:
        self._epochs.update(previous._epochs)

    def _is_revoked(self, principal: Principal, issued: float) -> bool:
        epoch = self._epochs.get(principal.key)
        return epoch is not None and issued <= epoch


class Refusals:
    """Refused credentials, oldest first; at most ``size``, none for longer than five seconds."""

    def __init__(self, size: int = REFUSED_ENTRIES) -> None:
        self._size = size
        self._entries: OrderedDict[bytes, tuple[float, Kind, str]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, digest: bytes, now: float) -> Refused | None:
        entry = self._entries.get(digest)
        if entry is None:
            return None
        until, kind, reason = entry
        if not now < until <= now + REFUSED_SECONDS:  # past, or the clock was set back
            del self._entries[digest]
            return None
        return Refused(kind, reason)

    def put(self, digest: bytes, refused: Refused, now: float) -> None:
        self._entries[digest] = (now + REFUSED_SECONDS, refused.kind, refused.reason)
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)
