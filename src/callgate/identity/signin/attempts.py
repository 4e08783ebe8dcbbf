"""Attempts to sign in: what is remembered from the way to the provider until the browser comes back."""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable

import msgspec

from callgate.identity.s256 import s256
from callgate.identity.secrets.held import Held

from .cookies import digest
from .problem import expired

#: Seconds that somebody may take at the provider.
PATIENCE = 600.0
_OWNER = "sign-in"


class Attempt(msgspec.Struct, frozen=True):
    """One attempt. The issuer is written down before the browser leaves, so that another provider's answer is
    recognised as such (rule OC-5). ``browser`` is a digest of the cookie of the browser that began; ``fingerprint``
    names the settings of the provider.
    """

    provider: str
    issuer: str
    fingerprint: str
    nonce: str
    verifier: str
    browser: str
    back: str = ""

    @property
    def challenge(self) -> str:
        """The challenge of PKCE, S256 (RFC 7636)."""
        return s256(self.verifier.encode())


class Attempts:
    """Attempts by their ``state``; each comes back once, and only to the browser that began it."""

    def __init__(self, held: Held[Attempt], clock: Callable[[], float] = time.time) -> None:
        self._held = held
        self._clock = clock

    async def begin(self, provider: str, issuer: str, fingerprint: str, browser: str, back: str) -> tuple[str, Attempt]:
        """A new ``state`` and its attempt."""
        state = secrets.token_urlsafe(32)
        attempt = Attempt(
            provider, issuer, fingerprint, secrets.token_urlsafe(32), secrets.token_urlsafe(48), digest(browser), back
        )
        await self._held.put(state, attempt, _OWNER, self._clock() + PATIENCE)
        return state, attempt

    async def finish(self, state: str, browser: str) -> Attempt:
        """The attempt, which is over then. Who brings the state in another browser ends nothing. Raises SignInError."""
        mine = digest(browser)

        def spend(attempt: Attempt) -> Attempt | None:
            return None if hmac.compare_digest(attempt.browser, mine) else attempt

        attempt = await self._held.change(state, spend) if state and browser else None
        if attempt is None or not hmac.compare_digest(attempt.browser, mine):
            raise expired()
        return attempt
