"""All grants of all users: tickets, the way through a browser, and the credentials of servers with ``type: oauth``."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import msgspec

from callgate.config import Server
from callgate.egress import Guard, parse_url
from callgate.errors import CallgateError, Denied, NotFound, UpstreamError
from callgate.identity.s256 import s256
from callgate.identity.secrets.held import Hold
from callgate.identity.upstream.challenge import union
from callgate.identity.upstream.client import Resolve, Sign
from callgate.identity.upstream.credential import Place
from callgate.identity.upstream.credentials import warn_of
from callgate.identity.upstream.discovery import Found, borrows
from callgate.identity.upstream.grants import Client, Given
from callgate.identity.upstream.whose import asked_by, check_through, user_of
from callgate.types import Principal

from .answer import check_answer
from .credential import GrantCredential, NotKnown, with_token
from .pending import Connected, Finished, Leg, Pending, Started, Ticket
from .registering import Registrar
from .vault import Grant, Vault

if TYPE_CHECKING:
    from callgate.identity.upstream.proof import Prover

log = logging.getLogger("callgate.identity")

LIFE = 600.0  # seconds of a ticket, and of the stay at an issuer
OPEN = 10_000  # tickets that are given out again while they are young
OFFLINE = "offline_access"


class Around(msgspec.Struct, frozen=True):
    """What connections need of the house: ``base`` is its public URL, ``hold`` makes places for what is held,
    ``sign`` signs with callgate's own key, ``guard`` says where URLs that strangers name may lead.
    """

    base: Callable[[], str]
    hold: Hold
    sign: Sign
    guard: Guard = Guard()


class Connections:
    """Of one house. ``connected`` is told the name of a server to which somebody has just connected, ``note`` what
    happened to a grant: the verb, the server, the key of the user, and the issuer.
    """

    def __init__(self, around: Around, clock: Callable[[], float] = time.time) -> None:
        self.registrar = Registrar(around.base, around.hold, clock)
        self.vault = Vault(around.hold, clock)
        self.sign = around.sign
        self.guard = around.guard
        self.connected: Callable[[str], None] = lambda server: None
        self.note: Callable[[str, str, str, str], None] = lambda verb, server, user, issuer: None
        self._clock = clock
        self._tickets = around.hold("upstream-ticket", Ticket)
        self._legs = around.hold("upstream-leg", Leg)
        self._servers: dict[str, GrantCredential] = {}
        self._open: OrderedDict[tuple[Any, ...], tuple[str, float]] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    def credential(self, name: str, server: Server, resolve: Resolve) -> GrantCredential:
        """The credential of a server with ``type: oauth``."""
        assert server.url is not None
        warn_of(server.url)
        made = GrantCredential(name, Place(server.url, server.auth, resolve), self, self._clock)
        self._servers[name] = made
        return made

    def gone(self, credential: GrantCredential) -> None:
        if self._servers.get(credential.server) is credential:
            del self._servers[credential.server]

    @property
    def servers(self) -> tuple[str, ...]:
        """The servers to which users connect."""
        return tuple(sorted(self._servers))

    # From a call to a grant.

    async def invite(self, server: str, who: Principal) -> str:
        """A ticket for somebody who wants to connect without a call (a page that lists servers)."""
        credential = self._at(server)
        check_through(who, credential.auth.through)
        return await self.ticket(server, user_of(who), asked_by(who), ())

    async def ticket(self, server: str, user: str, asked_by: tuple[str, ...], scopes: tuple[str, ...]) -> str:
        """A ticket: 256 random bits. Whoever calls again and again gets the same one for a while."""
        now, wanted = self._clock(), (server, user, asked_by, scopes)
        ticket, expires = self._open.get(wanted, ("", 0.0))
        if expires - now > LIFE / 2 and await self._tickets.get(ticket) is not None:
            return ticket
        ticket = secrets.token_urlsafe(32)
        await self._tickets.put(ticket, Ticket(server, user, asked_by, scopes, now + LIFE), user, now + LIFE)
        self._open[wanted] = ticket, now + LIFE
        self._open.move_to_end(wanted)
        if len(self._open) > OPEN:
            self._open.popitem(last=False)
        return ticket

    async def describe(self, ticket: str) -> Pending:
        """What a ticket is for. Raises NotFound (unknown, used, too old) or UpstreamError (no issuer can be found)."""
        held = await self._tickets.get(ticket)
        if held is None:
            raise _unknown()
        return _pending(held, await self._find(held.server))

    async def begin(self, ticket: str, user: str, agreed: Pending | None = None) -> Started:
        """Take the ticket (it works once) for the user with this key. Raises Denied if it is another's, or if something
        else would happen than the user has agreed to.
        """
        held = await self._tickets.get(ticket)
        if held is None:
            raise _unknown()
        if held.user != user:
            raise Denied("This link was made for somebody else.", hint="Make the call again to get one of your own.")
        credential, found = self._at(held.server), await self._find(held.server)
        scopes = _scopes(held, found)
        if agreed is not None and agreed.agreed != _pending(held, found).agreed:
            raise Denied("This server asks for another sign-in now.", hint="Open the link again, and read it again.")
        client = await self._client(credential, found)
        if await self._tickets.take(ticket) is None:
            raise _unknown()
        cookie, state = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        leg = self._leg(credential, found, client, held.user)
        leg = msgspec.structs.replace(leg, cookie=_digest(cookie), scopes=scopes)
        # Else issuers leave out the refresh token (OpenID Connect Core, section 11); operators who ask for it know how.
        offline = {"prompt": "consent"} if OFFLINE in scopes and OFFLINE not in credential.auth.scope else {}
        extra = {**offline, **credential.auth.authorize_params}
        if credential.auth.dpop:
            prover = self._prover()
            leg = msgspec.structs.replace(leg, key=prover.private)
            extra["dpop_jkt"] = prover.thumbprint
        # All that the answer will be compared with is written down before the browser leaves (OC-5).
        await self._legs.put(state, leg, held.user, self._clock() + LIFE)
        at = found.issuer.authorization_endpoint
        return Started(f"{at}{'&' if '?' in at else '?'}{urlencode({**extra, **_request(leg, state)})}", cookie)

    async def finish(self, params: Mapping[str, str], cookie: str) -> Finished:
        """The browser is back with these query parameters and the cookie of ``begin``. Raises NotFound, Denied,
        UpstreamError, with ``server`` and ``user`` where those are known; whatever happens, the state works once.
        """
        state = params.get("state", "")
        leg = await self._legs.change(state, _used) if state.isascii() else None
        if leg is None or leg.used:
            raise _unknown()
        if not hmac.compare_digest(leg.cookie, _digest(cookie)):
            other = Denied(
                "This sign-in was begun in another browser.", hint="Open the link again and stay in one browser."
            )
            raise _blamed(other, leg)
        try:
            credential = self._at(leg.server)
            grant = await self._redeem(credential, leg, check_answer(params, leg))
        except CallgateError as error:
            raise _blamed(error, leg) from None
        for before in await self.vault.of(leg.user):
            if before.server == leg.server and before.name != grant.name:
                await self.vault.drop(before)
        await self.vault.keep(grant)
        if await self._legs.take(state) is None:
            await self.vault.drop(grant)
            await self._revoke([grant])
            raise _blamed(Denied("Your access was taken back meanwhile; you are not connected."), leg)
        credential.forget(leg.user)
        self.note("connected", leg.server, leg.user, leg.issuer)
        self.connected(leg.server)
        return Finished(leg.server, leg.user)

    # Afterwards.

    async def disconnect(self, user: str, server: str) -> bool:
        """Drop the user's grant, and revoke it at its issuer as far as that can be done. Whether there was one."""
        grants = [grant for grant in await self.vault.of(user) if grant.server == server]
        for grant in grants:
            await self.vault.drop(grant)
            self.note("disconnected", server, user, grant.issuer)
        if server in self._servers:
            self._servers[server].forget(user)
        await self._revoke(grants)
        return bool(grants)

    async def connections(self, user: str) -> list[Connected]:
        """The user's grants that are used."""
        found = []
        for grant in await self.vault.of(user):
            credential = self._servers.get(grant.server)
            if credential is not None and (await credential.grant_of(user)) == grant:
                expires = grant.expires if not grant.refresh else float("inf")
                found.append(Connected(grant.server, grant.issuer, grant.scopes or grant.asked, grant.at, expires))
        return sorted(found, key=lambda each: each.server)

    def forget(self, user: str) -> None:
        """The user was revoked: nothing of theirs is used again, from this moment on (SEC-8)."""
        for credential in self._servers.values():
            credential.forget(user)
        task = asyncio.get_running_loop().create_task(self._offboard(user), name="connections of a revoked user")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def document(self) -> dict[str, Any]:
        """callgate's client metadata document, to be served at ``PUBLIC_URL`` + ``DOCUMENT``."""
        return self.registrar.document()

    async def aclose(self) -> None:
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # Inside.

    def _at(self, server: str) -> GrantCredential:
        found = self._servers.get(server)
        if found is None:
            raise NotFound(f"There is no server `{server}` to which users connect any more.")
        return found

    async def _find(self, server: str) -> Found:
        """The issuer of a server, if it is one to which a browser may be sent. Raises UpstreamError."""
        credential = self._at(server)
        try:
            found = await credential.discovery.find()
            if not found.issuer.authorization_endpoint:
                raise UpstreamError("has an issuer at which nobody can sign in with a browser")
            if not found.issuer.pkce and credential.auth.pkce != "assumed":
                raise UpstreamError("has an issuer that does not say that it checks PKCE (S256); it is not used")
            others = [each.auth.issuer or each.discovery.issuer for each in self._servers.values()]
            if not credential.auth.issuer and borrows(found.issuer, others):
                raise UpstreamError(
                    "has an issuer that sends browsers to another issuer",
                    hint="If this is right, name it: `auth.issuer`.",
                )
        except CallgateError as error:
            raise _of(server, error) from None
        return found

    async def _client(self, credential: GrantCredential, found: Found) -> Client:
        try:
            return await self.registrar.client(
                credential.auth, found.issuer, credential.reach, credential.resolve
            )  # a browser that is sent away with another client comes back to nothing
        except CallgateError as error:
            raise _of(credential.server, error) from None

    def _leg(self, credential: GrantCredential, found: Found, client: Client, user: str) -> Leg:
        issuer = found.issuer
        return Leg(
            server=credential.server,
            user=user,
            url=credential.url,
            resource=found.resource,
            issuer=issuer.issuer,
            iss_expected=issuer.iss_expected,
            token_endpoint=issuer.token_endpoint,
            revocation_endpoint=issuer.revocation_endpoint,
            client_id=client.id,
            client_auth=client.way,
            redirect_uri=self.registrar.redirect_uri,
            verifier=secrets.token_urlsafe(48),
        )

    def _prover(self, key: str = "") -> Prover:
        from callgate.identity.upstream.proof import Prover  # brings cryptography

        return Prover(key, self._clock)

    async def _redeem(self, credential: GrantCredential, leg: Leg, code: str) -> Grant:
        """The code becomes a grant, at the issuer that was written down."""
        if credential.url != leg.url:
            raise Denied(f"The server `{leg.server}` is another one now.", hint="Make the call again.")
        client = await self.registrar.known(
            credential.auth, leg.issuer, Client(leg.client_id, leg.client_auth), credential.resolve
        )
        if client is None:
            raise Denied(f"callgate is another client of the server `{leg.server}` now.", hint="Make the call again.")
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": leg.redirect_uri,
            "code_verifier": leg.verifier,
        }
        if leg.resource:
            form["resource"] = leg.resource
        prover = self._prover(leg.key) if leg.key else None
        try:
            answer = await credential.ask(leg.token_endpoint, leg.issuer, client, form, prover)
        except NotKnown as error:
            await self.registrar.drop(leg.issuer, leg.client_id)
            raise _of(leg.server, error) from None
        except CallgateError as error:
            raise _of(leg.server, error) from None
        return self._grant(leg, answer)

    def _grant(self, leg: Leg, answer: Given) -> Grant:
        now = self._clock()
        blank = Grant(
            server=leg.server, url=leg.url, user=leg.user, issuer=leg.issuer, client_id=leg.client_id,
            client_auth=leg.client_auth, resource=leg.resource, token_endpoint=leg.token_endpoint,
            revocation_endpoint=leg.revocation_endpoint, asked=leg.scopes, scopes=leg.scopes, access="", expires=0.0,
            born=now, at=now, refresh=answer.refresh, key=leg.key,
        )  # fmt: skip
        return with_token(blank, answer, now)

    async def _offboard(self, user: str) -> None:
        try:
            grants = await self.vault.of(user)
            await self._tickets.drop_owner(user)
            await self._legs.drop_owner(user)  # before the grants: what comes back now is not kept
            await self.vault.drop_user(user)
            for grant in grants:
                self.note("revoked", grant.server, user, grant.issuer)
            await self._revoke(grants)
        except CallgateError as error:
            log.warning("the grants of a revoked user could not be dropped: %s", error.message)

    async def _revoke(self, grants: list[Grant]) -> None:
        """Tell issuers (RFC 7009), best effort: a grant that nobody has any more is worth little."""
        for grant in grants:
            credential = self._servers.get(grant.server)
            if credential is None or not grant.revocation_endpoint:
                continue
            try:
                await credential.revoke(grant)
            except CallgateError as error:
                log.info("a grant could not be revoked at the issuer of %s: %s", grant.server, error.message)


def _request(leg: Leg, state: str) -> dict[str, str]:
    """The authorization request (OAuth 2.1, RFC 8707)."""
    form = {
        "response_type": "code",
        "client_id": leg.client_id,
        "redirect_uri": leg.redirect_uri,
        "state": state,
        "code_challenge": s256(leg.verifier.encode()),
        "code_challenge_method": "S256",
    }
    if leg.scopes:
        form["scope"] = " ".join(leg.scopes)
    if leg.resource:
        form["resource"] = leg.resource
    return form


def _scopes(held: Ticket, found: Found) -> tuple[str, ...]:
    """What will be asked for."""
    scopes = held.scopes or found.scopes
    return union(scopes, (OFFLINE,)) if scopes and OFFLINE in found.issuer.scopes else scopes


def _pending(held: Ticket, found: Found) -> Pending:
    issuer, scopes = found.issuer, _scopes(held, found)
    at, host = parse_url(issuer.issuer).authority, parse_url(issuer.authorization_endpoint).authority
    return Pending(held.server, held.user, held.asked_by, scopes, at, held.expires, host)


def _used(leg: Leg) -> Leg:
    return msgspec.structs.replace(leg, used=True)


def _digest(cookie: str) -> str:
    return hashlib.sha256(cookie.encode("utf-8", "surrogatepass")).hexdigest()


def _unknown() -> NotFound:
    return NotFound("This link is not known: it was used, or is too old.", hint="Make the call again to get another.")


def _of(server: str, error: CallgateError) -> CallgateError:
    """The error with the name of its server."""
    message = error.message.rstrip(".")
    return error if message.startswith("Server `") else error.again(f"Server `{server}` {message}.", error.data)


def _blamed(error: CallgateError, leg: Leg) -> CallgateError:
    """The error, for the record: ``server`` and ``user`` say on whose way to what it happened."""
    error.server, error.user = leg.server, leg.user  # type: ignore[attr-defined]
    return error
