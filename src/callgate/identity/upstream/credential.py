"""The credential of one server: for each request the header lines that show whose it is."""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from callgate.config import Provider, UpstreamAuth
from callgate.egress import Guard, Response, encode_headers, parse_url
from callgate.errors import CallgateError, ConsentNeeded, Denied, UpstreamError, UpstreamTimeout
from callgate.types import Occasion, Principal

from .assertion import SELF, about_caller, dated, of_call
from .challenge import challenge
from .client import client_assertion, configured, signer
from .discovery import Discovery, Found, Issuer
from .enterprise import Vouching
from .grants import Token, granted, parameters, with_client
from .kept import Kept, Key
from .reach import Reach
from .whose import agents_of, check_through, user_of

if TYPE_CHECKING:
    from .proof import Prover

REFUSED = 60.0  # seconds in which a workload's token that an issuer refused is not shown to it again


class Means(Protocol):
    """What a credential needs of the house."""

    @property
    def issuer(self) -> str:
        """What callgate calls itself."""

    @property
    def guard(self) -> Guard:
        """Where URLs that strangers name may lead."""

    async def sign(self, claims: Mapping[str, Any]) -> str:
        """A compact JWT with callgate's current key."""

    def presented(self, who: Principal) -> str | None:
        """The token by which this principal was recognised."""

    def provider(self, name: str) -> Provider:
        """The identity provider of this name. Raises ConfigError."""

    async def id_token(self, user: str, provider: str) -> str | None:
        """What this identity provider issued for the user with this key when they signed in."""


class Place(msgspec.Struct, frozen=True):
    """A server: its URL, how identity is shown to it, and what follows a reference to a secret."""

    url: str
    auth: UpstreamAuth
    resolve: Callable[[str], Awaitable[str]]


class Credential:
    """Of one server, for all its callers. What it keeps ends with the configuration that it was made for."""

    def __init__(self, place: Place, means: Means, clock: Callable[[], float] = time.time) -> None:
        self._place = place
        self._url = place.url
        self._auth = auth = place.auth
        self._means = means
        self._clock = clock
        self.kept = Kept(clock)
        self._reach = Reach((place.url, auth.token_endpoint, auth.issuer), means.guard)
        self._discovery = Discovery(place.url, auth, self._reach, clock)
        self._vouching: Vouching | None = None
        self._retired: set[asyncio.Future[None]] = set()
        self._prover: Prover | None = None
        self._refused: dict[str, tuple[float, CallgateError]] = {}
        # One person's ID token in a file, a workload, a client of its own: then everybody is callgate.
        self.names_callers = auth.type in ("assertion", "exchange", "on_behalf_of") or (
            auth.type == "enterprise" and auth.assertion_file is None
        )

    async def lines(self, occasion: Occasion) -> bytes:
        """The header lines for one request: of a caller, or of callgate itself. Raises Denied or UpstreamError."""
        auth, who = self._auth, occasion.who
        if auth.type == "assertion":
            audience = auth.audience or parse_url(self._url).origin
            return self._line(await self._assertion(who, occasion.call, audience), occasion)
        if who is None and auth.type == "enterprise" and self.names_callers:
            return b""  # nobody vouches for callgate itself
        key = self._key(who)
        token = self.kept.get(key)
        if token is None:
            try:
                async with asyncio.timeout_at(occasion.deadline if occasion.deadline < math.inf else None):
                    token = await self.kept.fetch(key, lambda: self._ask(who))
            except TimeoutError:
                raise UpstreamTimeout("got no token of its issuer in time") from None
        return self._line(token.value, occasion)

    async def refused(self, occasion: Occasion, lines: bytes, response: Response) -> bool:
        """The server answered 401 or 403 to these lines: whether it is worth asking once more with others."""
        if self._auth.type == "assertion" or response.status != 401:
            return False
        if self._prover is not None and self._prover.heard(occasion.url, response):
            return True
        if self._auth.token_endpoint is None:
            self._discovery.told(challenge(response))
        if not lines:
            raise ConsentNeeded("shows nothing to callgate itself, only to its users")
        return self.kept.refused(self._key(occasion.who), shown_in(lines))

    def heard(self, occasion: Occasion, response: Response) -> None:
        """The server took the request; it may have named the nonce for the next one."""
        if self._prover is not None:
            self._prover.heard(occasion.url, response)

    @property
    def hears(self) -> bool:
        return self._auth.dpop

    def forget(self, principal: str) -> None:
        self.kept.forget(principal)
        if self._vouching is not None:
            self._vouching.kept.forget(principal)

    def forget_all(self) -> None:
        """Who may come in has changed, and perhaps the provider that vouches for them."""
        self.kept.clear()
        if (vouching := self._vouching) is not None:
            vouching.kept.clear()
            self._vouching = None
            self._retired.add(task := asyncio.ensure_future(vouching.aclose()))
            task.add_done_callback(self._retired.discard)

    async def aclose(self) -> None:
        await self.kept.aclose()
        if self._vouching is not None:
            await self._vouching.aclose()
        await asyncio.gather(*self._retired)
        await self._reach.aclose()

    def _line(self, token: str, occasion: Occasion) -> bytes:
        return header_lines(token, self._auth.header, self._prover if self._auth.dpop else None, occasion)

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
        if self._auth.type == "enterprise":
            return user_of(who), agents_of(who)
        claim, txn = _text(who.claims.get(self._auth.subject_claim or "")), _text(who.claims.get("txn"))
        return who.key, (who.roles, who.chain, claim, txn)

    async def _assertion(self, who: Principal | None, call: int, audience: str) -> str:
        now = self._clock()
        claims = {"sub": SELF} if who is None else about_caller(who, self._auth, now)
        expires = now + self._auth.lifetime if who is None else min(now + self._auth.lifetime, who.expires)
        return await self._means.sign(dated(of_call(claims, call), self._means.issuer, audience, now, expires))

    # At the issuer.

    async def _found(self) -> Found:
        auth = self._auth
        if auth.token_endpoint is None:
            return await self._discovery.find()
        # The issuer of a server is where its assertions are for; nothing of it has to be found.
        return Found(self._url, auth.scope, Issuer(auth.issuer or auth.token_endpoint, auth.token_endpoint))

    async def _ask(self, who: Principal | None) -> Token:
        if self._auth.dpop and self._prover is None:
            from .proof import Prover  # brings cryptography

            self._prover = Prover(clock=self._clock)
        if self._auth.type == "workload":
            return await self._once(await self._read_file())
        if self._auth.type == "enterprise":
            return await self._vouched(who)
        subject = "" if who is None or not self.names_callers else await self._subject_token(who)
        try:
            token = await self._post(subject, await self._found())
        except Denied as refusal:
            if subject:
                raise
            raise _of_itself(refusal) from None
        return token if who is None or not subject else Token(token.value, min(token.expires, who.expires))

    async def _post(self, subject: str, found: Found) -> Token:
        """One token request. ``subject``: what is exchanged, or asserted."""
        auth, now = self._auth, self._clock()
        form = parameters(auth, found.resource, subject, self._own_token)
        if found.scopes and "scope" not in form:
            form["scope"] = " ".join(found.scopes)
        client = await configured(auth, self._place.resolve)
        sign = signer(auth, self._place.resolve, self._means.sign)
        proof = await client_assertion(client, found.issuer.issuer, auth.lifetime, sign, now)
        form, headers = with_client(client, form, proof)
        try:
            response = await self._reach.post(found.issuer.token_endpoint, form, headers, self._prover)
        except CallgateError as error:
            raise UpstreamError(f"gets no token: its token endpoint {error.message}") from None
        return granted(response.status, response.body, now, "dpop" if auth.dpop else "bearer")

    async def _once(self, token: str) -> Token:
        """A workload's token is shown once: where it was refused, no other way is tried, and it is not tried again."""
        digest = hashlib.sha256(token.encode()).hexdigest()
        until, error = self._refused.get(digest, (0.0, None))
        if error is not None and self._clock() < until:
            raise error.again(error.message, error.data)
        try:
            return await self._post(token, await self._found())
        except Denied as refusal:
            raise self._remembered(digest, _of_itself(refusal)) from None
        except UpstreamError as error:
            raise self._remembered(digest, error) from None

    def _remembered(self, digest: str, error: CallgateError) -> CallgateError:
        self._refused = {digest: (self._clock() + REFUSED, error)}
        return error

    async def _vouched(self, who: Principal | None) -> Token:
        """Both legs of enterprise-managed authorization."""
        if who is not None and self.names_callers:
            check_through(who, self._auth.through)
        found, key, vouching = await self._found(), self._key(who), self._voucher()
        while True:
            assertion, used = await vouching.assertion(key, lambda: self._id_token(who), found)
            try:
                return await self._post(assertion, found)
            except Denied as refusal:
                vouching.kept.drop(key)
                # Some issuers take an assertion once: a used one is worth another, a fresh one was refused for good.
                if not used or (refusal.data or {}).get("error") != "invalid_grant":
                    raise

    def _voucher(self) -> Vouching:
        if self._vouching is None:
            provider = self._means.provider(self._auth.provider or "")
            reach = Reach((provider.issuer,), self._means.guard)
            self._vouching = Vouching(provider, reach, self._place.resolve, self._means.sign, self._clock)
        return self._vouching

    async def _id_token(self, who: Principal | None) -> str:
        if who is None or not self.names_callers:
            return await self._read_file()
        if self._own_token:
            return await self._subject_token(who)
        token = await self._means.id_token(user_of(who), self._auth.provider or "")
        if token is None:
            raise Denied(
                "needs the user's sign-in at the identity provider, which callgate has not got",
                hint="Sign in to callgate with a browser.",
                data={"kind": "identity"},
            )
        return token

    async def _read_file(self) -> str:
        return (await self._place.resolve(f"file:{self._auth.assertion_file}")).strip()

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


def header_lines(token: str, name: str | None, prover: Prover | None, occasion: Occasion) -> bytes:
    """The lines that show a token, which stands at the end of the first one."""
    if prover is not None:
        proof = prover.proof(occasion.method, occasion.url, token)
        return encode_headers({"authorization": f"DPoP {token}", "dpop": proof})
    if name and name.lower() != "authorization":
        return encode_headers({name: token})
    return encode_headers({"authorization": f"Bearer {token}"})


def shown_in(lines: bytes) -> str:
    """The token that these lines show."""
    return lines.partition(b"\r\n")[0].rpartition(b" ")[2].decode("ascii")


def _of_itself(refusal: Denied) -> UpstreamError:
    code = (refusal.data or {}).get("error")
    return UpstreamError(f"gets no token for callgate itself: its issuer answered `{code}`")


def _text(claim: Any) -> str | None:
    """A claim as far as an assertion repeats it."""
    return claim if isinstance(claim, str) else None
