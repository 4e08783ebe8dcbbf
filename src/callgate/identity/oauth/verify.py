"""The gateway's own tokens, when they come back: is it ours, does it hold, and who is calling through whom."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

import msgspec
from joserfc import jws
from joserfc.errors import JoseError

from callgate.identity.cache import Verified
from callgate.identity.claims import check_times
from callgate.identity.keys import principal_key
from callgate.identity.possession import confirmation_of
from callgate.identity.refusal import Refused
from callgate.identity.signatures import ConfiguredAlgorithms
from callgate.types import Actor, Principal

from .agents import Agents
from .apps import REGISTERED, Apps
from .marks import Revocations
from .signing import SigningKey, SigningKeys

#: An unknown key id has the files read again, at most this often (seconds).
AGAIN = 1.0
#: Claims that no condition of a policy sees: what others assert may only add denials.
_CHAINS = frozenset({"act", "asserted"})
_REGISTRY = ConfiguredAlgorithms(algorithms=frozenset({"ES256"}), strict_check_header=False)


class Standing:
    """Whether a token that was verified still holds: its key is published, and nothing it depends on was revoked.

    The cache of verified tokens asks on every call (rule TOK-2); a comparison of two numbers answers.
    """

    __slots__ = ("_generation", "_ids", "_issued", "_key", "_revocations", "_subjects", "_valid")

    def __init__(
        self, key: SigningKey, revocations: Revocations, ids: list[str], subjects: list[str], issued: float
    ) -> None:
        self._key = key
        self._revocations = revocations
        self._ids = ids
        self._subjects = subjects
        self._issued = issued
        self._generation = -1
        self._valid = True

    @property
    def trusted(self) -> bool:
        generation = self._revocations.poll()
        if generation != self._generation:
            self._generation = generation
            self._valid = not self._revocations.covers(self._ids, self._subjects, self._issued)
        return self._valid and self._key.trusted


class OwnTokens:
    """Verifies what ``TokenIssuer`` signed. ``agents``, ``apps`` and ``issuers`` are those of now."""

    def __init__(
        self, keys: SigningKeys, revocations: Revocations, agents: Agents, apps: Apps, issuers: Collection[str]
    ) -> None:
        self._keys = keys
        self._revocations = revocations
        self._agents = agents
        self._apps = apps
        self._issuers = issuers

    async def verify(self, token: bytes, header: dict[str, Any], claims: dict[str, Any], now: float) -> Verified:
        """Raises Refused. Signature first; then the times, then everybody in the chain."""
        key = await self._key(header)
        try:
            jws.deserialize_compact(token, key.key, registry=_REGISTRY)
        except (JoseError, ValueError):
            raise Refused("not accepted", "the signature does not hold") from None
        issued, expires = check_times(claims, 0.0, now)
        subjects = [each["sub"] for each in claims["delegation_chain"]]
        ids = [claims["jti"], *claims.get("parents", ())]
        standing = Standing(key, self._revocations, ids, [claims["sub"], *subjects], issued)
        if not standing.trusted:
            raise Refused("not accepted", "the token was revoked")
        principal = self.principal(claims)
        await self._check_registration(subjects)
        return Verified(principal, standing, issued, expires)

    async def _check_registration(self, subjects: list[str]) -> None:
        """An application that registered itself may be forgotten by now. The disk knows: not the way of every call."""
        for name in (each.removeprefix("client:") for each in subjects if Apps.claims(each)):
            if name.startswith(REGISTERED) and await self._apps.find(name) is None:
                raise Refused("not accepted", "the application is not registered any more")

    async def _key(self, header: dict[str, Any]) -> SigningKey:
        if header.get("alg") != "ES256" or header.get("typ") != "at+jwt":
            raise Refused("not accepted", "not one of our access tokens")
        if "crit" in header or "b64" in header:
            raise Refused("not accepted", "the header asks for extensions")
        key = self._keys.find(header.get("kid"))
        if key is None and self._keys.stale(AGAIN):  # another process may have made it
            await asyncio.to_thread(self._keys.reread)
            key = self._keys.find(header.get("kid"))
        if key is None:
            raise Refused("not accepted", "kid is not known")
        return key

    def principal(self, claims: dict[str, Any]) -> Principal:
        """Raises Refused when somebody of the chain is suspended or gone, or the user's provider is."""
        issuer, subjects = claims["iss"], [each["sub"] for each in claims["delegation_chain"]]
        chain = tuple(self._actor(each, issuer) for each in subjects)
        own = self._agents.of(claims["sub"])
        user_issuer, _, user = claims["sub"].partition("#")
        if own is None and user_issuer not in self._issuers:
            raise Refused("not accepted", f"{ascii(user_issuer)[:200]} is not configured any more")
        # The user's own sessions and tasks are not those of the agents that act for the user, nor the other way round.
        whole = msgspec.json.encode([claims["sub"], *subjects]).decode()
        direct = own is not None and len(chain) == 1
        key = principal_key(issuer, own.subject if own is not None and direct else whole)
        if own is None and all(map(Apps.claims, subjects)):
            # Nobody acts for the person: it is who signs in at the provider, with whatever application.
            key = principal_key(user_issuer, user)
        return Principal(
            subject=own.subject if own is not None else user,
            key=key,
            issuer=issuer if own is not None else user_issuer,
            roles=own.config.roles if own is not None else tuple(claims.get("roles", ())),
            groups=tuple(claims.get("groups", ())),
            claims={name: value for name, value in claims.items() if name not in _CHAINS},
            chain=() if direct else chain,
            via="jwt",
            expires=float(claims["exp"]),
            audience=claims["aud"],
            asserted=tuple(Actor(each["sub"], each["iss"]) for each in claims.get("asserted", ())),
            confirmation=confirmation_of(claims),
        )

    def holds(self, who: Principal) -> bool:
        """Whether a token of ours that was verified before would make the same principal now."""
        claims = who.claims
        try:
            current = self.principal(dict(claims))
        except Refused:
            return False
        subjects = [claims["sub"], *(each["sub"] for each in claims["delegation_chain"])]
        self._revocations.poll()
        revoked = self._revocations.covers([claims["jti"], *claims.get("parents", ())], subjects, claims["iat"])
        return (current.roles, current.chain) == (who.roles, who.chain) and not revoked

    def _actor(self, subject: str, issuer: str) -> Actor:
        if Apps.claims(subject):
            if not self._apps.holds(subject):
                raise Refused("not accepted", f"{ascii(subject)[:200]} is suspended, or not accepted any more")
            return Actor(subject, issuer)
        actor = self._agents.actor(subject, issuer)
        if actor is None:
            raise Refused("not accepted", f"{ascii(subject)[:80]} is suspended, or no agent any more")
        return actor
