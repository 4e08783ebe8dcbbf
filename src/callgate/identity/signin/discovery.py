"""What a provider says of itself: its discovery document (OpenID Connect Discovery 1.0)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from callgate.errors import CallgateError
from callgate.identity.openid import Undiscovered, document_url, endpoint_in, read_document

log = logging.getLogger("callgate.identity")

FRESH = 3600.0  # seconds that a document is used before it is asked for again
AGAIN = 5.0  # seconds until a provider is asked again that did not answer
DEADLINE = 10.0


class Metadata(msgspec.Struct, frozen=True):
    """The part of the document that callgate uses. ``sends_iss``: every answer names its issuer (RFC 9207).
    ``lets_choose``: it can be asked to let the person choose an account.
    """

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str = ""
    end_session_endpoint: str = ""
    sends_iss: bool = False
    lets_choose: bool = True


class Discovery:
    """The document of one issuer: fetched when it is needed, once for all who wait, and kept through outages."""

    def __init__(
        self, issuer: str, fetch: Callable[[str], Awaitable[bytes]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.issuer = issuer
        self._fetch = fetch
        self._clock = clock
        self._found: Metadata | None = None
        self._due = float("-inf")
        self._why = ""
        self._flight: asyncio.Task[None] | None = None

    async def metadata(self) -> Metadata:
        """Raises Undiscovered."""
        if self._clock() >= self._due:
            if self._flight is None:
                self._flight = asyncio.create_task(self._refresh(), name=f"discovery {self.issuer}")
            if self._found is None:
                # wait() rather than await: one who gives up must not end it for the others.
                await asyncio.wait([self._flight])
        if self._found is None:
            raise Undiscovered(self._why)
        return self._found

    async def aclose(self) -> None:
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.gather(self._flight, return_exceptions=True)

    async def _refresh(self) -> None:
        try:
            async with asyncio.timeout(DEADLINE):
                raw = await self._fetch(document_url(self.issuer))
            self._found = read_metadata(raw, self.issuer)
            self._due = self._clock() + FRESH
        except (Undiscovered, CallgateError, OSError, TimeoutError) as error:
            # What was good an hour ago is better than nobody getting in.
            self._why = getattr(error, "message", "") or str(error) or type(error).__name__
            self._due = self._clock() + AGAIN
            log.warning("the discovery document of %s cannot be used: %s", self.issuer, self._why)
        finally:
            self._flight = None


def read_metadata(raw: bytes, issuer: str) -> Metadata:
    """Raises Undiscovered: also when the document is another issuer's (rule OC-2) or does not do PKCE with S256."""
    said = read_document(raw, issuer)
    methods = said.get("code_challenge_methods_supported")
    # Entra ID does PKCE and does not say so; who says what it does has to name S256.
    if methods is not None and (not isinstance(methods, list) or "S256" not in methods):
        raise Undiscovered("the provider does not do PKCE with S256")
    return Metadata(
        issuer,
        endpoint_in(said, "authorization_endpoint", issuer),
        endpoint_in(said, "token_endpoint", issuer),
        endpoint_in(said, "jwks_uri", issuer),
        endpoint_in(said, "userinfo_endpoint", issuer) if said.get("userinfo_endpoint") is not None else "",
        endpoint_in(said, "end_session_endpoint", issuer) if said.get("end_session_endpoint") is not None else "",
        said.get("authorization_response_iss_parameter_supported") is True,
        _offers(said.get("prompt_values_supported"), "select_account"),
    )


def _offers(values: Any, prompt: str) -> bool:
    """Whether a prompt may be asked for. Most providers do not say what they know; who says it means it."""
    return prompt in values if isinstance(values, list) else True
