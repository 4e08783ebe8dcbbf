"""The token service: from a request with a client in it to a token, and what is to be known of tokens."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec
from joserfc import jws

from callgate.config import Identity, OAuth
from callgate.identity.cache import Verified
from callgate.identity.certificate import Certificate
from callgate.identity.federation.workloads import Workloads
from callgate.identity.possession import JKT
from callgate.identity.refusal import Refused
from callgate.types import Principal

from .agents import Agents, Registered
from .apps import Application, Client
from .assertions import Assertions, speaks_for_itself
from .binding import check_actor_held, check_parent, check_required
from .certified import certified_agent
from .clients import ALGORITHMS, METHODS, Clients
from .configured import apps_of, check_clients, issuers_of
from .devices import Devices
from .grant_types import CODE, CREDENTIALS, DEVICE, EXCHANGE, REFRESH
from .grants import Grant, Rules, access_claims, by_credentials, by_exchange, check_actor, check_request
from .id_jag import IdentityAssertions
from .marks import Revocations, Seen
from .problem import TokenError, invalid_client, invalid_grant, invalid_request
from .proving import Proving
from .request import Form, needed
from .resources import Resources
from .sessions import Standing, known_scopes
from .signed_in import SignedIn
from .signing import SigningKeys
from .surroundings import Surroundings
from .verify import OwnTokens

ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
Recognise = Callable[[bytes], Awaitable[Principal]]


class Asking(msgspec.Struct, frozen=True):
    """A request for a token: the client that proved who it is (``None`` where the grant itself will say so), and the
    confirmation (RFC 7800) that the token is to carry: ``{"jkt": …}`` or ``{"x5t#S256": …}``.
    """

    client: Client | None
    form: Form
    confirmation: Mapping[str, str] = msgspec.field(default_factory=dict)


Handler = Callable[[Asking], Awaitable[Grant]]


class Issued(msgspec.Struct, frozen=True):
    """A token that was issued: the answer to the client, and what the record says of it. ``kind`` is the grant type."""

    answer: dict[str, Any]
    grant: Grant
    claims: dict[str, Any]
    kind: str = ""


class Ended(msgspec.Struct, frozen=True):
    """What a revocation has ended: whose it was, for which endpoint, its id, and the principal it stood for."""

    subject: str
    issuer: str
    audience: str
    id: str
    principal: Principal | None = None


class TokenIssuer:
    """One issuer. ``recognise`` says whose a token is, our own or one of a configured provider. ``open`` touches the
    disk.
    """

    def __init__(self, identity: Identity, around: Surroundings, clock: Callable[[], float] = time.time) -> None:
        self.config = identity.oauth or OAuth()
        self.agents = Agents(identity.agents)
        self.apps = apps_of(identity, around, clock)
        self._base = around.base
        self._clock = clock
        folder = around.data_dir / "oauth"
        self._keys = SigningKeys(folder / "keys", self.config.key_rotation, clock)
        self._revocations = Revocations(folder / "revoked", clock)
        issuers = frozenset(issuers_of(identity))
        self._own = OwnTokens(self._keys, self._revocations, self.agents, self.apps, issuers)
        check_clients(identity, self.agents)
        seen = Seen(folder / "seen", clock)
        self.clients = Clients(self.agents, self.apps, seen, around, clock)
        self.workloads = Workloads(identity, self.agents, around.fetch, around.fetch_public, clock)
        jags = IdentityAssertions(identity, around, seen, self._revocations, clock)
        self._assertions = Assertions(self.workloads, jags, self._names, self.rules)
        self.proving = Proving(identity, around, clock)
        self.recognise: Recognise = _nobody
        #: When each agent was last given a token here (seconds since the epoch).
        self.last_issued: dict[str, float] = {}
        #: What each grant type does; what is here is what the metadata lists.
        self.grants: dict[str, Handler] = {CREDENTIALS: self._credentials, EXCHANGE: self._exchange}
        self.grants |= self._assertions.grants
        #: What comes of people signing in; ``None`` where nobody can.
        self.people: SignedIn | None = None
        self.devices: Devices | None = None
        if identity.providers:
            self.people = SignedIn(around, self.apps, Standing(identity, self._revocations), self.rules, clock)
            self.grants |= {CODE: self.people.by_code, REFRESH: self.people.by_refresh}
            self.devices = Devices(around.hold, self.people, clock)
            self.grants[DEVICE] = self.devices.by_device

    def open(self) -> None:
        """Have the keys and the revocations ready. Touches the disk; raises ConfigError."""
        self._keys.refresh()
        self._revocations.look()
        self.proving.open()

    async def aclose(self) -> None:
        await self.clients.aclose()
        await self._assertions.aclose()
        if self.apps.documents is not None:
            await self.apps.documents.aclose()

    @property
    def issuer(self) -> str:
        return self.config.issuer or self._base()

    @property
    def revocations(self) -> Revocations:
        """What was revoked, here and in every other process over the data directory."""
        return self._revocations

    @property
    def resources(self) -> Resources:
        return Resources(self._base())

    @property
    def token_endpoint(self) -> str:
        return f"{self._base()}/oauth/token"

    # What everybody may read

    def metadata(self) -> dict[str, Any]:
        """RFC 8414, with what is switched on: without identity providers there is no authorization endpoint."""
        base = self._base()
        proved = [*METHODS, *self._assertions.methods, *self.proving.methods(self.workloads.spiffe)]
        methods = ["none", *proved] if self.people is not None else proved
        document = {
            "issuer": self.issuer,
            "token_endpoint": self.token_endpoint,
            "jwks_uri": f"{base}/oauth/jwks",
            "introspection_endpoint": f"{base}/oauth/introspect",
            "revocation_endpoint": f"{base}/oauth/revoke",
            "scopes_supported": list(self.scopes),
            "response_types_supported": [],
            "grant_types_supported": list(self.grants),
            "token_endpoint_auth_methods_supported": methods,
            "token_endpoint_auth_signing_alg_values_supported": list(ALGORITHMS),
            "introspection_endpoint_auth_methods_supported": proved,
            "revocation_endpoint_auth_methods_supported": methods,
            **self.proving.metadata(),
            **self._assertions.metadata(),
        }
        return document if self.people is None else document | self._of_people(base)

    def _of_people(self, base: str) -> dict[str, Any]:
        """The part of the metadata about signing in."""
        register = {"registration_endpoint": f"{base}/oauth/register"} if self.apps.registrations is not None else {}
        return {
            "authorization_endpoint": f"{base}/oauth/authorize",
            "device_authorization_endpoint": f"{base}/oauth/device_authorization",
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "code_challenge_methods_supported": ["S256"],
            "client_id_metadata_document_supported": self.apps.documents is not None,
            "authorization_response_iss_parameter_supported": True,
            "prompt_values_supported": ["none", "login", "consent"],
            **register,
        }

    @property
    def scopes(self) -> tuple[str, ...]:
        """All scopes that tokens may have, of agents and of people."""
        return tuple(sorted({*self.agents.scopes, *known_scopes(self.config.scopes)}))

    @property
    def first_scopes(self) -> tuple[str, ...]:
        """The scopes that a client without a token is told of. Where people can sign in it is one of theirs that asks:
        scopes that only agents have would lead to a refusal.
        """
        return self.agents.scopes if self.people is None else tuple(sorted(known_scopes(self.config.scopes)))

    async def jwks(self) -> dict[str, Any]:
        await self._fresh()
        return {"keys": self._keys.published()}

    # What clients ask for

    speaks_for_itself = staticmethod(speaks_for_itself)

    async def authenticate(
        self, form: Form, authorization: bytes | None, certificate: Certificate | None = None
    ) -> Client:
        if authorization is None and self._assertions.proves_client(form):
            return await self._assertions.client(form)
        agent = await certified_agent(certificate, form, authorization, self.workloads)
        return agent or await self.clients.authenticate(form, authorization, self._names())

    def _names(self) -> tuple[str, str]:
        """What assertions for us name as their audience."""
        return self.issuer, self.token_endpoint

    def inherit(self, previous: TokenIssuer) -> None:
        """Take over what the service that this one replaces knows: last good keys, when agents came."""
        self.last_issued.update(previous.last_issued)
        self._assertions.inherit(previous._assertions)

    async def issue(
        self, client: Client | None, form: Form, confirmation: Mapping[str, str] = MappingProxyType({})
    ) -> Issued:
        """The token that a client asks for (see ``Asking``). Raises TokenError."""
        check_required(self.config, client, confirmation)
        asking = Asking(client, form, confirmation)
        kind = needed(asking.form, "grant_type")
        handler = self.grants.get(kind)
        if handler is None:
            raise TokenError("unsupported_grant_type", "This grant is not supported.")
        if client is not None and kind not in client.grants:
            raise TokenError("unauthorized_client", "The client may not use this grant.")
        grant = await handler(asking)
        await self._fresh()
        claims = access_claims(grant, self.rules(), secrets.token_urlsafe(18))
        if self.agents.find(grant.client) is not None:
            self.last_issued[grant.client] = self._clock()
        if asking.confirmation:
            claims["cnf"] = dict(asking.confirmation)
        answer: dict[str, Any] = {
            "access_token": self._sign(claims),
            "token_type": "DPoP" if "jkt" in asking.confirmation else "Bearer",
            "expires_in": claims["exp"] - claims["iat"],
            "scope": claims["scope"],
        }
        return Issued({**answer, **grant.answer}, grant, claims, kind)

    async def introspect(self, client: Client, form: Form) -> dict[str, Any]:
        """RFC 7662, for those through whom the token came; for everybody else it is inactive."""
        if isinstance(client, Application) and client.public:
            raise invalid_client()  # who proves nothing learns nothing of a token that was found somewhere
        token = needed(form, "token")
        if self.people is not None and (found := await self.people.find(token, client)) is not None:
            return {"active": True, "token_type": "refresh_token", **found.told, "client_id": client.name}
        principal = await self._ours(token)
        if principal is None or not _concerns(client, principal):
            return {"active": False}
        kind = "DPoP" if JKT in principal.confirmation else "Bearer"
        return {"active": True, "token_type": kind, **principal.claims}

    async def revoke(self, client: Client, form: Form) -> Ended | None:
        """RFC 7009: end a token, and all that were exchanged from it; with a refresh token all of its sign-in. Returns
        what has ended. What is no token of the client's is no error.
        """
        token = needed(form, "token")
        if self.people is not None and (session := await self.people.end(token, client)) is not None:
            return Ended(session.who.subject, session.who.issuer, "", session.family)
        principal = await self._ours(token)
        if principal is None or not _concerns(client, principal):
            return None
        jti = principal.claims["jti"]
        await asyncio.to_thread(self._revocations.add, f"jti:{jti}", principal.expires + 1)
        return Ended(principal.subject, principal.issuer, principal.audience, jti, principal)

    def principal(self, claims: dict[str, Any]) -> Principal:
        """Who a token with these claims is."""
        return self._own.principal(claims)

    async def verify(self, token: bytes, header: dict[str, Any], claims: dict[str, Any]) -> Verified:
        """Whose a token of ours is. Raises Refused."""
        return await self._own.verify(token, header, claims, self._clock())

    def holds(self, who: Principal) -> bool:
        """Whether somebody who came with a token of ours would still be the same."""
        return who.claims["iss"] == self.issuer and who.expires > self._clock() and self._own.holds(who)

    async def _credentials(self, asking: Asking) -> Grant:
        return by_credentials(known_agent(asking.client), asking.form, self.rules())

    async def _exchange(self, asking: Asking) -> Grant:
        agent, form = known_agent(asking.client), asking.form
        check_request(form)
        parent = await self._known(needed(form, "subject_token"), "subject")
        if "actor_token" in form:
            actor = await self._known(form["actor_token"], "actor")
            check_actor(agent, actor)
            check_actor_held(actor, asking.confirmation)
        check_parent(parent, asking.confirmation)
        grant = by_exchange(agent, parent, form, self.rules())
        return msgspec.structs.replace(grant, answer={"issued_token_type": ACCESS_TOKEN})

    async def _known(self, token: str, what: str) -> Principal:
        try:
            principal = await self.recognise(b"Bearer " + token.encode())
        except Refused as refused:
            expired = "has expired" if refused.kind == "expired" else "is not accepted"
            raise invalid_grant(f"The {what} token {expired}.") from None
        if principal.via != "jwt":
            raise invalid_request(f"The {what} token is not a token.")
        return principal

    async def _ours(self, token: str) -> Principal | None:
        try:
            principal = await self.recognise(b"Bearer " + token.encode())
        except Refused:
            return None
        return principal if principal.audience else None

    def rules(self) -> Rules:
        """What the rules of issue look at, as of now."""
        return Rules(self.config, self.agents, self.resources, self.issuer, self._clock())

    def _sign(self, claims: dict[str, Any]) -> str:
        key = self._keys.signer()
        header = {"alg": "ES256", "typ": "at+jwt", "kid": key.kid}
        return jws.serialize_compact(header, msgspec.json.encode(claims), key.key, algorithms=["ES256"])

    async def _fresh(self) -> None:
        if self._keys.stale():
            await asyncio.to_thread(self._keys.reread)


def known_agent(client: Client | None) -> Registered:
    """The agent that asks, for grants that are for agents only. Raises TokenError."""
    if not isinstance(client, Registered):
        raise invalid_client()
    return client


async def _nobody(authorization: bytes) -> Principal:
    raise Refused("not accepted", "nobody verifies tokens yet")


def _concerns(agent: Client, principal: Principal) -> bool:
    chain = {each["sub"] for each in principal.claims["delegation_chain"]}
    return agent.subject in chain or principal.claims["client_id"] == agent.name
