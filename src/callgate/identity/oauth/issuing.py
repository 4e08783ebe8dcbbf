"""The token service: from a request with a client in it to a token, and what is to be known of tokens."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from joserfc import jws

from callgate.config import Identity, OAuth
from callgate.errors import ConfigError, nearest
from callgate.identity.cache import Verified
from callgate.identity.refusal import Refused
from callgate.types import Principal

from .agents import Agents, Registered
from .clients import ALGORITHMS, METHODS, Clients, check_agent
from .grants import Grant, Rules, access_claims, by_credentials, by_exchange, check_actor, check_request
from .marks import Revocations, Seen
from .problem import TokenError, invalid_grant, invalid_request
from .request import Form, needed
from .resources import Resources
from .signing import SigningKeys
from .verify import OwnTokens

CREDENTIALS = "client_credentials"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
Recognise = Callable[[bytes], Awaitable[Principal]]


class Issued(msgspec.Struct, frozen=True):
    """A token that was issued: the answer to the client, and what the record says of it."""

    answer: dict[str, Any]
    agent: Registered
    grant: Grant
    claims: dict[str, Any]


class TokenIssuer:
    """One issuer. ``base`` is the public URL of the gateway listener, known once it listens; ``recognise`` says whose
    a token is, our own or one of a configured provider. ``open`` touches the disk.
    """

    def __init__(
        self,
        identity: Identity,
        base: Callable[[], str],
        data_dir: Path,
        fetch: Callable[[str], Awaitable[bytes]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.config = identity.oauth or OAuth()
        self.agents = Agents(identity.agents)
        self._base = base
        self._clock = clock
        folder = data_dir / "oauth"
        self._keys = SigningKeys(folder / "keys", self.config.key_rotation, clock)
        self._revocations = Revocations(folder / "revoked", clock)
        issuers = frozenset(each.issuer for each in identity.jwt)
        self._own = OwnTokens(self._keys, self._revocations, self.agents, issuers)
        _check(identity, self.agents)
        self._clients = Clients(self.agents, Seen(folder / "seen", clock), fetch, clock)
        self.recognise: Recognise = _nobody

    def open(self) -> None:
        """Have the keys and the revocations ready. Touches the disk; raises ConfigError."""
        self._keys.refresh()
        self._revocations.look()

    async def aclose(self) -> None:
        await self._clients.aclose()

    @property
    def issuer(self) -> str:
        return self.config.issuer or self._base()

    @property
    def resources(self) -> Resources:
        return Resources(self._base())

    @property
    def token_endpoint(self) -> str:
        return f"{self._base()}/oauth/token"

    # What everybody may read

    def metadata(self) -> dict[str, Any]:
        """RFC 8414. There is no authorization endpoint: agents have no browser."""
        base = self._base()
        return {
            "issuer": self.issuer,
            "token_endpoint": self.token_endpoint,
            "jwks_uri": f"{base}/oauth/jwks",
            "introspection_endpoint": f"{base}/oauth/introspect",
            "revocation_endpoint": f"{base}/oauth/revoke",
            "scopes_supported": list(self.agents.scopes),
            "response_types_supported": [],
            "grant_types_supported": [CREDENTIALS, EXCHANGE],
            "token_endpoint_auth_methods_supported": list(METHODS),
            "token_endpoint_auth_signing_alg_values_supported": list(ALGORITHMS),
            "introspection_endpoint_auth_methods_supported": list(METHODS),
            "revocation_endpoint_auth_methods_supported": list(METHODS),
        }

    async def jwks(self) -> dict[str, Any]:
        await self._fresh()
        return {"keys": self._keys.published()}

    # What clients ask for

    async def authenticate(self, form: Form, authorization: bytes | None) -> Registered:
        return await self._clients.authenticate(form, authorization, (self.issuer, self.token_endpoint))

    async def issue(self, agent: Registered, form: Form) -> Issued:
        """The token that an authenticated client asks for. Raises TokenError."""
        kind = needed(form, "grant_type")
        if kind == CREDENTIALS:
            grant = by_credentials(agent, form, self._rules())
        elif kind == EXCHANGE:
            grant = await self._exchange(agent, form)
        else:
            raise TokenError("unsupported_grant_type", "This grant is not supported.")
        await self._fresh()
        claims = access_claims(grant, self._rules(), secrets.token_urlsafe(18))
        answer: dict[str, Any] = {
            "access_token": self._sign(claims),
            "token_type": "Bearer",
            "expires_in": claims["exp"] - claims["iat"],
            "scope": claims["scope"],
        }
        if kind == EXCHANGE:
            answer["issued_token_type"] = ACCESS_TOKEN
        return Issued(answer, agent, grant, claims)

    async def introspect(self, agent: Registered, form: Form) -> dict[str, Any]:
        """RFC 7662, for the agents through whom the token came; for everybody else it is inactive."""
        principal = await self._ours(needed(form, "token"))
        if principal is None or not _concerns(agent, principal):
            return {"active": False}
        return {"active": True, "token_type": "Bearer", **principal.claims}

    async def revoke(self, agent: Registered, form: Form) -> Principal | None:
        """RFC 7009: end a token, and all that were exchanged from it; returns whose it was. What is no token of the
        client's is no error.
        """
        principal = await self._ours(needed(form, "token"))
        if principal is None or not _concerns(agent, principal):
            return None
        jti = principal.claims["jti"]
        await asyncio.to_thread(self._revocations.add, f"jti:{jti}", principal.expires + 1)
        return principal

    def revoke_subject(self, subject: str) -> None:
        """End all tokens until now that have the subject, or the agent, in them. Touches the disk."""
        self._revocations.add(f"sub:{subject}", self._clock() + 3600.0 + 1)

    def principal(self, claims: dict[str, Any]) -> Principal:
        """Who a token with these claims is."""
        return self._own.principal(claims)

    async def verify(self, token: bytes, header: dict[str, Any], claims: dict[str, Any]) -> Verified:
        """Whose a token of ours is. Raises Refused."""
        return await self._own.verify(token, header, claims, self._clock())

    def holds(self, who: Principal) -> bool:
        """Whether somebody who came with a token of ours would still be the same."""
        return who.claims["iss"] == self.issuer and who.expires > self._clock() and self._own.holds(who)

    async def _exchange(self, agent: Registered, form: Form) -> Grant:
        check_request(form)
        parent = await self._known(needed(form, "subject_token"), "subject")
        if "actor_token" in form:
            check_actor(agent, await self._known(form["actor_token"], "actor"))
        return by_exchange(agent, parent, form, self._rules())

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

    def _rules(self) -> Rules:
        return Rules(self.config, self.agents, self.resources, self.issuer, self._clock())

    def _sign(self, claims: dict[str, Any]) -> str:
        key = self._keys.signer()
        header = {"alg": "ES256", "typ": "at+jwt", "kid": key.kid}
        return jws.serialize_compact(header, msgspec.json.encode(claims), key.key, algorithms=["ES256"])

    async def _fresh(self) -> None:
        if self._keys.stale():
            await asyncio.to_thread(self._keys.reread)


async def _nobody(authorization: bytes) -> Principal:
    raise Refused("not accepted", "nobody verifies tokens yet")


def _concerns(agent: Registered, principal: Principal) -> bool:
    chain = {each["sub"] for each in principal.claims["delegation_chain"]}
    return agent.subject in chain or principal.claims["client_id"] == agent.name


def _check(identity: Identity, agents: Agents) -> None:
    issuers = [each.issuer for each in identity.jwt]
    if identity.oauth is not None and identity.oauth.issuer in issuers:
        raise ConfigError("The token service has the issuer of an entry of `identity.jwt`.", hint="Give it its own.")
    names = [each.name for each in agents]
    for agent in agents:
        check_agent(agent)
        for known, wanted, key in (
            (names, agent.config.may_delegate_to, "may_delegate_to"),
            (issuers, agent.config.acts_for, "acts_for"),
        ):
            for name in wanted:
                if name not in known:
                    found = nearest(name, known)
                    hint = f"Did you mean `{found}`?" if found else "Name one that is configured."
                    raise ConfigError(
                        f"`{key}` of the agent `{agent.name}` names `{name}`, which is not there.", hint=hint
                    )
