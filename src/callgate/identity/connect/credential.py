"""The credential of a server to which users connect: for each request the access token of the user's own grant."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

import msgspec

from callgate.config import UpstreamAuth
from callgate.egress import Guard, Response
from callgate.errors import CallgateError, ConsentNeeded, Denied, UpstreamError, UpstreamTimeout
from callgate.identity.upstream.challenge import Challenge, challenge, union
from callgate.identity.upstream.client import Sign, client_assertion, signer
from callgate.identity.upstream.credential import Place, header_lines, shown_in
from callgate.identity.upstream.discovery import Discovery
from callgate.identity.upstream.grants import Client, Given, Token, given, with_client
from callgate.identity.upstream.kept import MARGIN, Kept
from callgate.identity.upstream.reach import Reach, object_in
from callgate.identity.upstream.whose import agents_of, asked_by, check_through, user_of
from callgate.types import Occasion, Principal

from .registering import Registrar
from .vault import LEASE, PREVIOUS, Grant, Vault

if TYPE_CHECKING:
    from callgate.identity.upstream.proof import Prover

KEPT = 60.0  # seconds until the vault is looked into again: another process may have dropped a grant
YOUNG = 5.0  # an access token that is refused at this age is not refreshed: the next one would be no better
FOREVER = 365 * 86400.0  # of tokens whose issuer does not say how long they live; servers refuse them one day
POLL = 0.1  # seconds between two looks at a grant that another process refreshes
MOST_KEYS = 10_000


class Home(Protocol):
    """What the credential of one server needs of all of them."""

    vault: Vault
    registrar: Registrar
    sign: Sign
    guard: Guard
    note: Callable[[str, str, str, str], None]

    async def ticket(self, server: str, user: str, asked_by: tuple[str, ...], scopes: tuple[str, ...]) -> str: ...

    def gone(self, credential: GrantCredential) -> None: ...


class GrantCredential:
    """Of one server, for all its users."""

    names_callers = True

    def __init__(self, server: str, place: Place, home: Home, clock: Callable[[], float]) -> None:
        self.server = server
        self.url = place.url
        self.auth: UpstreamAuth = place.auth
        self.resolve: Callable[[str], Awaitable[str]] = place.resolve
        self._home = home
        self._clock = clock
        self.kept = Kept(clock)
        self.reach = Reach((place.url, self.auth.issuer), home.guard)
        self.discovery = Discovery(place.url, self.auth, self.reach, clock)
        self._provers: OrderedDict[str, Prover] = OrderedDict()
        self._refreshing: set[asyncio.Task[Grant | None]] = set()

    # What an endpoint asks of a credential.

    @property
    def hears(self) -> bool:
        return self.auth.dpop

    async def lines(self, occasion: Occasion) -> bytes:
        """The header lines for one request; none for callgate itself, to which nobody gave anything. Raises
        ConsentNeeded, Denied or UpstreamError.
        """
        who = occasion.who
        if who is None:
            return b""
        check_through(who, self.auth.through)
        user = user_of(who)
        key = user, agents_of(who)
        token = self.kept.get(key)
        if token is None or (self.auth.dpop and user not in self._provers):
            try:
                async with asyncio.timeout_at(occasion.deadline if occasion.deadline < math.inf else None):
                    token = await self.kept.fetch(key, lambda: self._obtain(user, who))
            except TimeoutError:
                raise UpstreamTimeout("got no token of its issuer in time") from None
        prover = self._provers.get(user)
        if self.auth.dpop and prover is None:
            raise UpstreamError("is called for too many users at once")  # a bound token is nothing without its key
        return header_lines(token.value, self.auth.header, prover, occasion)

    async def refused(self, occasion: Occasion, lines: bytes, response: Response) -> bool:
        """The server answered 401 or 403: whether it is worth asking once more. Raises ConsentNeeded or Denied."""
        try:
            async with asyncio.timeout_at(occasion.deadline if occasion.deadline < math.inf else None):
                return await self._refused(occasion, lines, response)
        except TimeoutError:
            raise UpstreamTimeout("got no token of its issuer in time") from None

    async def _refused(self, occasion: Occasion, lines: bytes, response: Response) -> bool:
        who, said = occasion.who, challenge(response)
        if response.status == 401:
            self.discovery.told(said)
        if who is None:
            if response.status == 401:
                raise ConsentNeeded("shows nothing to callgate itself, only to its users")
            return False
        user = user_of(who)
        prover = self._provers.get(user)
        if response.status == 401 and prover is not None and prover.heard(occasion.url, response):
            return True
        if response.status == 403:
            return await self._short(user, who, said)
        return await self._stale(user, who, shown_in(lines))

    def heard(self, occasion: Occasion, response: Response) -> None:
        """The server took the request; it may have named the nonce for the next one."""
        if occasion.who is not None and (prover := self._provers.get(user_of(occasion.who))) is not None:
            prover.heard(occasion.url, response)

    def forget(self, user: str) -> None:
        self.kept.forget(user)
        self._provers.pop(user, None)

    async def aclose(self) -> None:
        self._home.gone(self)
        await self.kept.aclose()
        await asyncio.gather(*self._refreshing, return_exceptions=True)
        await self.reach.aclose()

    # The grant.

    async def grant_of(self, user: str) -> Grant | None:
        """The user's grant, if it is one for this server as it is configured now."""
        return await self._home.vault.find(user, self._fits)

    def _fits(self, grant: Grant) -> bool:
        auth = self.auth
        return (
            (grant.server, grant.url) == (self.server, self.url)
            and auth.issuer in (None, grant.issuer)
            and auth.client_id in (None, grant.client_id)
            and bool(grant.key) == auth.dpop
        )

    async def _obtain(self, user: str, who: Principal) -> Token:
        grant = await self.grant_of(user)
        now = self._clock()
        if grant is not None and grant.expires - now <= min(MARGIN, (grant.expires - grant.born) / 10):
            grant = await self.renew(grant)
        if grant is None:
            raise await self.needed(user, who, ())
        if grant.key:
            self._prove(user, grant.key)
        return Token(grant.access, min(grant.expires, self._clock() + KEPT))

    def _prove(self, user: str, key: str) -> Prover:
        """What proves possession of this key, which the user may have replaced in another process."""
        found = self._provers.get(user)
        if found is None or found.sealed != key:
            from callgate.identity.upstream.proof import Prover  # brings cryptography

            found = self._provers[user] = Prover(key, self._clock)
        self._provers.move_to_end(user)
        if len(self._provers) > MOST_KEYS:
            self._provers.popitem(last=False)
        return found

    async def needed(self, user: str, who: Principal, scopes: tuple[str, ...]) -> ConsentNeeded:
        """What to raise for a user who has to connect, with a ticket for that."""
        error = ConsentNeeded(
            "needs more access than you gave it" if scopes else "is one to which you are not connected",
            hint="Connect to it with a browser, then make the call again.",
            data={"kind": "consent"},
        )
        error.server = self.server
        error.ticket = await self._home.ticket(self.server, user, asked_by(who), scopes)
        return error

    async def _stale(self, user: str, who: Principal, access: str) -> bool:
        """The server does not take a token (401): one refresh, unless that cannot help."""
        self.kept.drop((user, agents_of(who)))
        grant = await self.grant_of(user)
        if grant is None:
            raise await self.needed(user, who, ())
        if grant.access != access:
            return True  # somebody else has seen to it
        try:
            issuer = (await self.discovery.find()).issuer.issuer
        except UpstreamError:
            issuer = grant.issuer  # it says nothing better
        if issuer != grant.issuer:
            await self._home.vault.drop(grant)  # the server trusts another issuer now
        elif self._clock() - grant.born >= YOUNG and await self.renew(grant) is not None:
            return True
        raise await self.needed(user, who, ())

    async def _short(self, user: str, who: Principal, said: Challenge) -> bool:
        """The server wants more scopes (403): the user is asked for all of them at once, but not twice (OC-10)."""
        if said.error != "insufficient_scope":
            return False
        grant = await self.grant_of(user)
        if grant is None:
            return False
        more = union(grant.asked, said.scopes)
        if more == grant.asked:
            raise Denied(
                "wants scopes that its issuer did not give for this user",
                hint="Disconnect from the server, connect again and allow all of them, or ask who runs it.",
                data={"kind": "identity", "error": "insufficient_scope"},
            )
        raise await self.needed(user, who, more)

    # At the issuer.

    async def renew(self, grant: Grant) -> Grant | None:
        """The grant with a fresh access token; ``None`` where the user has to connect again (it is dropped then)."""
        until = self._clock() + LEASE
        while self._clock() < until:
            current, mine = await self._home.vault.lease(grant)
            if current is None or current.access != grant.access:
                return current
            if mine:
                # In a task of its own: whoever gives up now would lose what the issuer gives meanwhile.
                task = asyncio.create_task(self._refresh(current), name="refresh of a grant")
                self._refreshing.add(task)
                task.add_done_callback(self._refreshing.discard)
                return await asyncio.shield(task)
            if not current.refresh:
                return None
            await asyncio.sleep(POLL)
        raise UpstreamTimeout("got no token of its issuer in time")

    async def _refresh(self, grant: Grant) -> Grant | None:
        vault = self._home.vault
        try:
            answer = await self._refreshed(grant, grant.refresh)
            if answer is None and grant.previous and grant.previous_until > self._clock():
                answer = await self._refreshed(grant, grant.previous)
        except BaseException:
            await vault.release(grant)
            raise
        if answer is None:
            await vault.drop(grant)
            self._home.note("ended", grant.server, grant.user, grant.issuer)
            return None
        rotated = answer.refresh not in ("", grant.refresh)
        fresh = msgspec.structs.replace(
            with_token(grant, answer, self._clock()),
            refresh=answer.refresh or grant.refresh,
            previous=grant.refresh if rotated else "",
            previous_until=self._clock() + PREVIOUS if rotated else 0.0,
            lease="",
            lease_until=0.0,
        )
        # Written before it is used: the old refresh token may be worth nothing now.
        current = await vault.renewed(grant, fresh)
        if current is None:  # the user disconnected, or was revoked, while the issuer made it
            with contextlib.suppress(CallgateError):
                await self.revoke(fresh)
        return current

    async def _refreshed(self, grant: Grant, token: str) -> Given | None:
        """One refresh request; ``None`` where the issuer takes this token no more."""
        client = Client(grant.client_id, grant.client_auth)
        known = await self._home.registrar.known(self.auth, grant.issuer, client, self.resolve)
        if known is None:
            return None
        form = {"grant_type": "refresh_token", "refresh_token": token}
        if grant.resource:
            form["resource"] = grant.resource
        prover = self._prove(grant.user, grant.key) if grant.key else None
        try:
            return await self.ask(grant.token_endpoint, grant.issuer, known, form, prover)
        except NotKnown:
            await self._home.registrar.drop(grant.issuer, grant.client_id)
            return None
        except Denied:
            return None

    async def revoke(self, grant: Grant) -> None:
        """Tell the issuer that the grant is not wanted any more (RFC 7009)."""
        client = Client(grant.client_id, grant.client_auth)
        known = await self._home.registrar.known(self.auth, grant.issuer, client, self.resolve)
        if known is None:
            return
        token, hint = (grant.refresh, "refresh_token") if grant.refresh else (grant.access, "access_token")
        sign = signer(self.auth, self.resolve, self._home.sign)
        proof = await client_assertion(known, grant.issuer, self.auth.lifetime, sign, self._clock())
        form, headers = with_client(known, {"token": token, "token_type_hint": hint}, proof)
        await self.reach.post(self.reach.check(grant.revocation_endpoint, "a revocation endpoint"), form, headers)

    async def ask(
        self, endpoint: str, issuer: str, client: Client, form: dict[str, str], prover: Prover | None
    ) -> Given:
        """One token request. Raises Denied (this grant is not worth anything), NotKnown or UpstreamError."""
        sign = signer(self.auth, self.resolve, self._home.sign)
        proof = await client_assertion(client, issuer, self.auth.lifetime, sign, self._clock())
        form, headers = with_client(client, form, proof)
        try:
            response = await self.reach.post(self.reach.check(endpoint, "a token endpoint"), form, headers, prover)
        except CallgateError as error:
            raise UpstreamError(f"gets no token: its token endpoint {error.message}") from None
        if response.status in (400, 401) and object_in(response.body).get("error") == "invalid_client":
            raise NotKnown("gets no token: its issuer answered `invalid_client`")
        return given(response.status, response.body, self._clock(), "dpop" if self.auth.dpop else "bearer")


class NotKnown(UpstreamError):
    """The issuer does not know callgate as a client."""


def with_token(grant: Grant, answer: Given, now: float) -> Grant:
    """The grant with the token of an answer."""
    expires = answer.token.expires if answer.timed else now + FOREVER
    scopes = grant.scopes if answer.scopes is None else answer.scopes
    return msgspec.structs.replace(grant, access=answer.token.value, expires=expires, born=now, scopes=scopes)
