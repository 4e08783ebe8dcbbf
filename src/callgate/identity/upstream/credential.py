"""The credential of one server: for each call the header lines that show whose call it is."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol
from urllib.parse import urlencode

import msgspec

from callgate.config.model import UpstreamAuth
from callgate.egress import HttpPool, encode_headers, parse_url
from callgate.errors import CallgateError, Denied, UpstreamError, UpstreamTimeout
from callgate.types import Principal

from .assertion import SELF, about_caller, dated, of_call
from .grants import Token, granted, parameters, with_client
from .kept import Kept, Key

PATIENCE = 10.0  # seconds for one answer of a token endpoint
MOST_BYTES = 256 * 1024  # of such an answer
CONNECTIONS = 16


class Means(Protocol):
    """What a credential needs of the house."""

    @property
    def issuer(self) -> str:
        """What callgate calls itself."""

    async def sign(self, claims: Mapping[str, Any]) -> str:
        """A compact JWT with callgate's current key."""

    def presented(self, who: Principal) -> str | None:
        """The token by which this principal was recognised."""


class Place(msgspec.Struct, frozen=True):
    """A server: its URL, how identity is shown to it, and what follows a reference to a secret."""

    url: str
    auth: UpstreamAuth
    resolve: Callable[[str], Awaitable[str]]


class Credential:
    """Of one server, for all its callers. What it keeps ends with the configuration that it was made for."""

    def __init__(self, place: Place, means: Means, clock: Callable[[], float] = time.time) -> None:
        self._url = place.url
        self._auth = auth = place.auth
        self._resolve = place.resolve
        self._means = means
        self._clock = clock
        self._audience = auth.audience
        self._name = (auth.header or "").lower()
        self.kept = Kept(clock)
        self._pool: HttpPool | None = None
        self.names_callers = auth.type != "client_credentials"

    async def lines(self, who: Principal | None, call: int, deadline: float) -> bytes:
        """The header line for one request: of a caller, or of callgate itself. Raises Denied or UpstreamError.

        ``call`` is the id of the call (0: none), ``deadline`` on the loop's clock.
        """
        auth = self._auth
        if auth.type == "assertion":
            return self._line(await self._assertion(who, call, self._audience or parse_url(self._url).origin))
        key = self._key(who)
        token = self.kept.get(key)
        if token is None:
            try:
                async with asyncio.timeout_at(deadline if deadline < math.inf else None):
                    token = await self.kept.fetch(key, lambda: self._ask(who))
            except TimeoutError:
                raise UpstreamTimeout("got no token of its issuer in time") from None
        return self._line(token.value)

    def refused(self, who: Principal | None, line: bytes) -> bool:
        """The server answered 401 to this line: whether it is worth asking once more with another one."""
        if self._auth.type == "assertion":
            return False
        value = line.rstrip(b"\r\n").rpartition(b" ")[2].decode("ascii")
        return self.kept.refused(self._key(who), value)

    def forget(self, principal: str) -> None:
        self.kept.forget(principal)

    async def aclose(self) -> None:
        await self.kept.aclose()
        if self._pool is not None:
            await self._pool.aclose()

    def _line(self, token: str) -> bytes:
        if self._name and self._name != "authorization":
            return encode_headers({self._name: token})
        return encode_headers({"authorization": f"Bearer {token}"})

    @property
    def _own_token(self) -> bool:
        """Whether the caller's own token is exchanged."""
        return (self._auth.subject_token or ("caller" if self._auth.type == "on_behalf_of" else "")) == "caller"

    def _key(self, who: Principal | None) -> Key:
        """Whose token it is. What the issuer is told about a caller is part of it: the same person through an agent,
        or with other roles, is somebody else.
        """
        if who is None or not self.names_callers:
            return "", ""
        if self._own_token:
            return who.key, who.proof
        claim, txn = _text(who.claims.get(self._auth.subject_claim or "")), _text(who.claims.get("txn"))
        return who.key, (who.roles, who.chain, claim, txn)

    async def _assertion(self, who: Principal | None, call: int, audience: str) -> str:
        now = self._clock()
        claims = {"sub": SELF} if who is None else about_caller(who, self._auth, now)
        expires = now + self._auth.lifetime if who is None else min(now + self._auth.lifetime, who.expires)
        return await self._means.sign(dated(of_call(claims, call), self._means.issuer, audience, now, expires))

    # At the issuer.

    async def _ask(self, who: Principal | None) -> Token:
        auth = self._auth
        subject = "" if who is None or not self.names_callers else await self._subject_token(who)
        form = parameters(auth, self._url, subject, self._own_token)
        # Followed for each request: a secret that was changed counts at once (SEC-3).
        secret = await self._resolve(auth.client_secret) if auth.client_secret else ""
        assertion = "" if auth.client_secret or auth.client_auth == "none" else await self._client_assertion()
        form, headers = with_client(auth, form, secret, assertion)
        try:
            token = await self._post(urlencode(form).encode("ascii"), headers)
        except Denied as refusal:
            if subject:
                raise
            code = (refusal.data or {}).get("error")
            raise UpstreamError(f"gets no token for callgate itself: its issuer answered `{code}`") from None
        return token if who is None or not subject else Token(token.value, min(token.expires, who.expires))

    async def _subject_token(self, who: Principal) -> str:
        if not self._own_token:
            return await self._assertion(who, 0, self._auth.issuer or self._auth.token_endpoint or "")
        # By the token's own `iss`: callgate's tokens name the user's issuer too, and must not go there.
        if who.via != "jwt" or who.claims.get("iss") not in self._auth.subject_issuers:
            raise Denied(
                "is called with the caller's own sign-in, which this caller has not got from an issuer that it accepts",
                hint="Sign in at the identity provider and send its token.",
                data={"kind": "identity"},
            )
        token = self._means.presented(who)
        if token is None:
            raise Denied(
                "needs the token of the caller, which is not at hand any more",
                hint="Send the call once more.",
                data={"kind": "identity"},
            )
        return token

    async def _client_assertion(self) -> str:
        """``private_key_jwt`` (RFC 7523, section 2.2)."""
        now, client = self._clock(), self._auth.client_id or ""
        audience = self._auth.issuer or self._auth.token_endpoint or ""
        return await self._means.sign(dated({"sub": client}, client, audience, now, now + self._auth.lifetime))

    async def _post(self, body: bytes, headers: dict[str, str]) -> Token:
        """One request on connections of this server's own: an endpoint that hangs holds up nobody else."""
        if self._pool is None:
            self._pool = HttpPool(max_connections=CONNECTIONS, max_body=MOST_BYTES, connect_timeout=5.0)
        deadline = asyncio.get_running_loop().time() + PATIENCE
        origin = self._pool.origin(self._auth.token_endpoint or "")
        fixed = {
            "content-type": "application/x-www-form-urlencoded",
            "accept": "application/json",
            "content-length": str(len(body)),
            "user-agent": "callgate",
        }
        head = origin.start_line("POST") + encode_headers({**fixed, **headers})
        try:
            response = await origin.request(head + b"\r\n" + body, deadline)
        except CallgateError as error:
            raise UpstreamError(f"gets no token: its token endpoint {error.message}") from None
        return granted(response.status, response.body, self._clock())


def _text(claim: Any) -> str | None:
    """A claim as far as an assertion repeats it."""
    return claim if isinstance(claim, str) else None
