"""Tokens (JWT) of configured issuers: which issuer, which key, does the signature hold, do the claims."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from joserfc import jws
from joserfc.errors import JoseError, UnsupportedAlgorithmError
from joserfc.jws import JWSRegistry
from joserfc.util import urlsafe_b64decode

from callgate.config import Issuer
from callgate.errors import ConfigError, nearest
from callgate.types import Actor, Principal

from .cache import Verified
from .claims import check_audience, check_times, names_of, read_object, subject_of
from .jwks import ALGORITHMS, KeySource, Signer
from .keys import principal_key
from .refusal import Refused

if TYPE_CHECKING:
    from .oauth.issuing import TokenIssuer

log = logging.getLogger("callgate.identity")

Fetch = Callable[[str], Awaitable[bytes]]

# RFC 8725, section 3.11: other types (logout tokens, DPoP proofs, assertions) are not for the bearer.
_TYPES = frozenset({"jwt", "at+jwt", "jose"})


# Claims that only our own tokens may bring to a rule.
_CHAINS = frozenset({"act", "delegation_chain"})
MOST_ACTORS = 16


class ConfiguredAlgorithms(JWSRegistry):
    """The algorithms of the configuration and no others (rule TOK-5)."""

    # The token as a whole is bounded already; providers put certificate chains into the header.
    max_header_length = 16 * 1024
    max_signature_length = 4096

    def get_alg(self, name: str) -> Any:
        # Unlike the original this does not warn of EdDSA: the configuration chose it.
        if name not in (self.allowed or ()):
            raise UnsupportedAlgorithmError(name)
        return self.algorithms[name]


class TrustedIssuer:
    """One issuer of the configuration and its keys."""

    def __init__(self, config: Issuer, load: Callable[[], Awaitable[bytes]], clock: Callable[[], float]) -> None:
        self.config = config
        self.keys = KeySource(config.issuer, load, ttl=config.jwks_ttl, clock=clock)
        self._clock = clock
        self._audience = _audience(config)
        self._registry = ConfiguredAlgorithms(algorithms=frozenset(config.algorithms), strict_check_header=False)

    async def verify(self, token: bytes, header: dict[str, Any], claims: dict[str, Any]) -> Verified:
        """Signature first: nothing is said about the claims of a token that somebody made up."""
        algorithm, kid = self._read_header(header)
        signer = self._signer(token, await self._candidates(kid, algorithm))
        now = self._clock()
        issued, expires = check_times(claims, self.config.leeway, now)
        check_audience(claims, self._audience)
        if claims.get("cnf") is not None:
            # RFC 7800: whoever presents it has to prove a key, which no check here does yet.
            raise Refused("not accepted", "cnf binds the token to a key that the caller did not prove")
        return Verified(self._principal(claims, expires), signer, issued, expires)

    def _read_header(self, header: dict[str, Any]) -> tuple[str, str | None]:
        algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
        if not isinstance(algorithm, str) or algorithm not in self.config.algorithms:
            raise Refused("not accepted", f"alg {ascii(algorithm)[:40]} is not configured")
        if kid is not None and not isinstance(kid, str):
            raise Refused("not accepted", "kid is not text")
        if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in _TYPES:
            raise Refused("not accepted", f"typ {ascii(kind)[:40]} is not an access token")
        if "crit" in header or "b64" in header:
            raise Refused("not accepted", "the header asks for extensions")
        return algorithm, kid

    async def _candidates(self, kid: str | None, algorithm: str) -> list[Signer]:
        self.keys.start()
        found = self.keys.find(kid, algorithm)
        if not found:
            await self.keys.demand()
            found = self.keys.find(kid, algorithm)
        if not found:
            reason = "the issuer's keys could not be fetched yet" if self.keys.is_empty else "kid is not known"
            raise Refused("not accepted", reason)
        return found

    def _signer(self, token: bytes, candidates: Iterable[Signer]) -> Signer:
        for signer in candidates:
            try:
                jws.deserialize_compact(token, signer.key, registry=self._registry)
            except (JoseError, ValueError):
                continue
            return signer
        raise Refused("not accepted", "the signature does not hold")

    def _principal(self, claims: dict[str, Any], expires: float) -> Principal:
        subject = subject_of(claims, self.config)
        return Principal(
            subject=subject,
            key=principal_key(self.config.issuer, subject),
            issuer=self.config.issuer,
            roles=names_of(claims, self.config.roles_claim),
            groups=names_of(claims, self.config.groups_claim),
            # A foreign `act` says who acted, attested by nobody we know: it may only add denials (DEL-10, DEL-11).
            claims={name: value for name, value in claims.items() if name not in _CHAINS},
            via="jwt",
            expires=expires + self.config.leeway,
            asserted=asserted_chain(claims.get("act"), self.config.issuer),
        )


class Tokens:
    """All issuers of the configuration. Raises ConfigError for settings that cannot be meant."""

    def __init__(
        self,
        issuers: Iterable[Issuer],
        fetch: Fetch,
        clock: Callable[[], float],
        base: Path,
        own: TokenIssuer | None = None,
    ) -> None:
        self._own = own
        self._issuers: dict[str, TrustedIssuer] = {}
        for config in issuers:
            if config.issuer in self._issuers:
                raise ConfigError(
                    f"The issuer `{config.issuer}` is configured twice.", hint="List its audiences in one entry."
                )
            _check(config, base)
            self._issuers[config.issuer] = TrustedIssuer(config, _loader(config, fetch, base), clock)

    async def verify(self, token: bytes) -> Verified:
        """Raises Refused. The payload is read once; what was read is what was signed."""
        try:
            head, body, _ = token.split(b".")
            header = read_object(urlsafe_b64decode(head))
            claims = read_object(urlsafe_b64decode(body))
        except ValueError as error:
            raise Refused("not accepted", f"not a readable token: {ascii(str(error))[:80]}") from None
        name = claims.get("iss")
        if self._own is not None and name == self._own.issuer:
            return await self._own.verify(token, header, claims)
        issuer = self._issuers.get(name) if isinstance(name, str) else None
        if issuer is None:
            raise Refused("not accepted", f"iss {ascii(name)[:200]} is not configured")
        # Only this issuer's keys are tried, so no issuer can sign for another one (rule AST-10).
        verified = await issuer.verify(token, header, claims)
        if self._own is not None and self._own.agents.claims(verified.principal.subject):
            raise Refused("not accepted", "the subject has the name of an agent of ours")
        return verified

    def start(self) -> None:
        for issuer in self._issuers.values():
            issuer.keys.start()

    def inherit(self, previous: Tokens) -> None:
        """Take over the last good keys of issuers whose keys still come from the same place."""
        for name, issuer in self._issuers.items():
            before = previous._issuers.get(name)
            if before is not None and _origin(before.config) == _origin(issuer.config):
                issuer.keys.inherit(before.keys)

    async def aclose(self) -> None:
        await asyncio.gather(*(issuer.keys.aclose() for issuer in self._issuers.values()))


def asserted_chain(act: object, issuer: str) -> tuple[Actor, ...]:
    """The actors that a nested ``act`` names, oldest first.

    >>> [actor.subject for actor in asserted_chain({"sub": "b", "act": {"sub": "a"}}, "https://idp")]
    ['a', 'b']
    """
    found: list[Actor] = []
    while isinstance(act, dict) and len(found) < MOST_ACTORS:
        subject, from_ = act.get("sub"), act.get("iss", issuer)
        if isinstance(subject, str) and isinstance(from_, str):
            found.append(Actor(subject, from_))
        act = act.get("act")
    return tuple(reversed(found))


def _audience(config: Issuer) -> frozenset[str]:
    return frozenset([config.audience] if isinstance(config.audience, str) else config.audience)


def _origin(config: Issuer) -> tuple[str | None, str | None]:
    return config.jwks_uri, config.jwks_file


def _loader(config: Issuer, fetch: Fetch, base: Path) -> Callable[[], Awaitable[bytes]]:
    if config.jwks_file is not None:
        path = base / config.jwks_file
        return lambda: asyncio.to_thread(path.read_bytes)
    uri = config.jwks_uri or ""
    return lambda: fetch(uri)


def _check(config: Issuer, base: Path) -> None:
    name = config.issuer
    if (config.jwks_uri is None) == (config.jwks_file is None):
        raise ConfigError(f"The issuer `{name}` needs either `jwks_uri` or `jwks_file`.", hint="Give exactly one.")
    if not all(_audience(config)) or not _audience(config):
        raise ConfigError(
            f"The issuer `{name}` needs an audience.", hint="Name the `aud` that tokens for callgate carry."
        )
    for algorithm in config.algorithms:
        if algorithm not in ALGORITHMS:
            known = nearest(algorithm, ALGORITHMS) or ", ".join(ALGORITHMS)
            raise ConfigError(f"`{algorithm}` is not an accepted signature algorithm.", hint=f"Did you mean {known}?")
    if config.jwks_file is not None and not (base / config.jwks_file).is_file():
        raise ConfigError(f"The key file `{config.jwks_file}` does not exist.", hint="Check the path of `jwks_file`.")
    if config.jwks_uri is not None:
        _check_uri(config.jwks_uri)


def _check_uri(uri: str) -> None:
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"`{uri}` is not an address of keys.", hint="jwks_uri starts with https://")
    if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        log.warning("keys are fetched from %s without encryption: whoever sits between can forge tokens", uri)
