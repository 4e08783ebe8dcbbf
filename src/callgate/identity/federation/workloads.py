"""Workloads: tokens and certificates of other issuers, and the agents that they stand for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import msgspec

from callgate.config import Federation, Identity
from callgate.identity.claims import check_times
from callgate.identity.jwks import KeySource
from callgate.identity.oauth.agents import Registered
from callgate.identity.refusal import Refused
from callgate.identity.signatures import Signatures, read_token

from .bundles import Authorities, FollowedKeys
from .matching import Attested, Matcher
from .sources import ApiServer, Fetch, Load, loader
from .spiffe import ALGORITHMS, jwt_keys, trust_domain_of
from .workload_api import WorkloadApi
from .x509 import named_by, verified_by

log = logging.getLogger("callgate.identity")

MOST_BYTES = 16 * 1024
MOST_SUBJECT = 2048
TTL = 600.0
#: How much clocks may differ (seconds).
LEEWAY = 5.0
_TYPES = frozenset({"jwt", "jose"})
#: What only an ID token of a person's sign-in has (OpenID Connect Core 1.0), a claim that wants a key proved, and one
#: that says that somebody else comes in the workload's name (RFC 8693, section 4.1).
_OTHERS = ("nonce", "at_hash", "c_hash", "cnf", "act")


class Proven(msgspec.Struct, frozen=True):
    """The agent that a workload is, for as long as what proved it holds (seconds since the epoch)."""

    agent: Registered
    workload: Attested
    expires: float

    @property
    def evidence(self) -> str:
        """What the record says of it."""
        return f"{self.workload.issuer}: {self.workload.subject}"


class TrustedIssuer:
    """One entry of ``identity.federation``, and its keys. ``authorities`` only where it is a SPIFFE trust domain."""

    def __init__(
        self, name: str, config: Federation, fetch: Fetch, elsewhere: Fetch, clock: Callable[[], float]
    ) -> None:
        self.name = name
        self.config = config
        self._clock = clock
        self._server: ApiServer | None = None
        if config.ca_file is not None or config.token_file is not None:
            self._server = ApiServer(config.jwks_uri or config.issuer, config.ca_file, config.token_file)
            fetch = elsewhere = self._server.fetch
        api = WorkloadApi(config.workload_api) if config.workload_api is not None else None
        load = loader(config, fetch, elsewhere)
        self.keys = _keys(config, api, load, clock)
        self.authorities: Authorities | None = None
        algorithms = frozenset(config.algorithms)
        if config.trust_domain is not None:
            self.authorities = Authorities(config.trust_domain, api or load)
            algorithms &= ALGORITHMS
        self._signatures = Signatures(self.keys, algorithms, _TYPES)

    async def verify(
        self, token: bytes, header: dict[str, Any], claims: dict[str, Any], audiences: Collection[str]
    ) -> tuple[Attested, float]:
        """What the issuer says with this token, and until when. Signature first. Raises Refused."""
        await self._signatures.signer(token, header)
        now = self._clock()
        _, expires = check_times(claims, LEEWAY, now)
        if expires > now + self.config.longest + LEEWAY:
            raise Refused("not accepted", f"exp is more than {self.config.longest:.0f} s away")
        check_only_for(claims, self.config.audience or audiences)
        if self.config.issuer and claims.get("iss") != self.config.issuer:
            raise Refused("not accepted", "iss is not that of the trust domain")
        if found := [name for name in _OTHERS if name in claims]:
            raise Refused("not accepted", f"{found[0]} says that the token is something else")
        return Attested(self.name, _subject(claims), claims), expires

    async def aclose(self) -> None:
        await self.keys.aclose()
        if self.authorities is not None:
            await self.authorities.aclose()
        if self._server is not None:
            await self._server.aclose()


class Workloads:
    """All issuers of workload identities. ``fetch`` brings what the operator named, ``elsewhere`` what an issuer named.

    Raises ConfigError.
    """

    def __init__(
        self,
        identity: Identity,
        agents: Iterable[Registered],
        fetch: Fetch,
        elsewhere: Fetch,
        clock: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._issuers = [
            TrustedIssuer(name, each, fetch, elsewhere, clock) for name, each in identity.federation.items()
        ]
        self._by_issuer = {each.config.issuer: each for each in self._issuers if each.config.trust_domain is None}
        self._by_domain = {each.config.trust_domain: each for each in self._issuers if each.config.trust_domain}
        self._matcher = Matcher(agents)

    def __bool__(self) -> bool:
        return bool(self._issuers)

    @property
    def spiffe(self) -> bool:
        """Whether there is a SPIFFE trust domain among the issuers."""
        return bool(self._by_domain)

    def knows(self, claims: dict[str, Any]) -> bool:
        """Whether a token with these claims, not yet verified, can be one of a workload."""
        return self._issuer(claims) is not None

    async def prove(self, token: bytes, audiences: Collection[str]) -> Proven:
        """The agent that somebody is who comes with this token. ``audiences`` are the names of ours. Raises Refused."""
        if len(token) > MOST_BYTES:
            raise Refused("not accepted", f"longer than {MOST_BYTES} bytes")
        header, claims = read_token(token)
        issuer = self._issuer(claims)
        if issuer is None or claims.get("iss") in audiences:  # our own tokens are not proofs of who somebody is
            raise Refused("not accepted", f"iss {ascii(claims.get('iss'))[:200]} is no issuer of workloads")
        # Only this issuer's keys are tried, so no issuer can sign for another one (rule AST-10).
        workload, expires = await issuer.verify(token, header, claims, audiences)
        return Proven(self._matcher.agent(workload), workload, expires)

    async def prove_by_certificate(self, chain: Sequence[bytes]) -> Proven:
        """The agent that a client is which connected with this certificate (DER or PEM; then its intermediates).

        That the client has the private key was proved by TLS. Raises Refused.
        """
        id = named_by(chain)
        issuer = self._by_domain.get(trust_domain_of(id) or "")
        if issuer is None or issuer.authorities is None:
            raise Refused("not accepted", f"{ascii(id)[:200]} is of no trust domain of the configuration")
        expires = verified_by(chain, await issuer.authorities.current(), self._clock())
        workload = Attested(issuer.name, id)
        return Proven(self._matcher.agent(workload), workload, expires)

    def inherit(self, previous: Workloads) -> None:
        """Start with the last good keys of issuers that stayed what they were."""
        before = {each.name: each for each in previous._issuers}
        for each in self._issuers:
            old = before.get(each.name)
            if old is not None and old.config == each.config:
                each.keys.inherit(old.keys)

    async def aclose(self) -> None:
        await asyncio.gather(*(each.aclose() for each in self._issuers))

    def _issuer(self, claims: dict[str, Any]) -> TrustedIssuer | None:
        """A trust domain is known by the SPIFFE id, so nothing else can be said with its keys."""
        name = claims.get("iss")
        found = self._by_issuer.get(name) if isinstance(name, str) else None
        return found or self._by_domain.get(trust_domain_of(claims.get("sub")) or "")


def check_only_for(claims: dict[str, Any], accepted: Collection[str]) -> None:
    """Every ``aud`` is a name of ours: another one that a token is for as well could use it here. Raises Refused."""
    audience = claims.get("aud")
    given = [audience] if isinstance(audience, str) else audience
    if not isinstance(given, list) or not given or not all(isinstance(one, str) for one in given):
        raise Refused("not accepted", "aud is missing or not text")
    if not set(given) <= set(accepted):
        raise Refused("not accepted", f"aud is for somebody else too: {ascii(given)[:200]}")


def _subject(claims: dict[str, Any]) -> str:
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= MOST_SUBJECT:
        raise Refused("not accepted", "sub is missing, or no text")
    if not subject.isascii() or not subject.isprintable():
        raise Refused("not accepted", f"sub has letters that may look like others: {ascii(subject)[:200]}")
    return subject


def _keys(config: Federation, api: WorkloadApi | None, load: Load, clock: Callable[[], float]) -> KeySource:
    domain = config.trust_domain
    if domain is None:
        return KeySource(config.issuer, load, ttl=TTL, clock=clock)
    if api is not None:
        return FollowedKeys(domain, api, clock)

    async def bundle() -> bytes:
        return jwt_keys(await load(), marked=True)

    return KeySource(domain, bundle, ttl=TTL, clock=clock)
