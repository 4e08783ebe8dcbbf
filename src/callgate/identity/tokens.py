"""Tokens (JWT) of configured issuers: which issuer, which key, does the signature hold, do the claims."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from callgate.config import Issuer
from callgate.errors import ConfigError, nearest
from callgate.types import Actor, Principal

from .cache import Verified
from .claims import check_audience, check_times, names_of, subject_of
from .jwks import ALGORITHMS, KeySource
from .keys import RESERVED, principal_key
from .oauth.apps import is_ours
from .possession import confirmation_of
from .refusal import Refused
from .signatures import Signatures, read_token

if TYPE_CHECKING:
    from .oauth.issuing import TokenIssuer

log = logging.getLogger("callgate.identity")

Fetch = Callable[[str], Awaitable[bytes]]

# RFC 8725, section 3.11: other types (logout tokens, DPoP proofs, assertions) are not for the bearer.
_TYPES = frozenset({"jwt", "at+jwt", "jose"})


# Claims that only our own tokens may bring to a rule.
_CHAINS = frozenset({"act", "delegation_chain"})
MOST_ACTORS = 16


class TrustedIssuer:
    """One issuer of the configuration and its keys."""

    def __init__(self, config: Issuer, load: Callable[[], Awaitable[bytes]], clock: Callable[[], float]) -> None:
        self.config = config
        self.keys = KeySource(config.issuer, load, ttl=config.jwks_ttl, clock=clock)
        self._clock = clock
        self._audience = _audience(config)
        self._signatures = Signatures(self.keys, config.algorithms, _TYPES)

    async def verify(self, token: bytes, header: dict[str, Any], claims: dict[str, Any]) -> Verified:
        """Signature first: nothing is said about the claims of a token that somebody made up."""
        signer = await self._signatures.signer(token, header)
        now = self._clock()
        issued, expires = check_times(claims, self.config.leeway, now)
        check_audience(claims, self._audience)
        return Verified(self._principal(claims, expires), signer, issued, expires)

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
            confirmation=confirmation_of(claims),
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
        header, claims = read_token(token)
        name = claims.get("iss")
        if self._own is not None and name == self._own.issuer:
            return await self._own.verify(token, header, claims)
        issuer = self._issuers.get(name) if isinstance(name, str) else None
        if issuer is None:
            raise Refused("not accepted", f"iss {ascii(name)[:200]} is not configured")
        # Only this issuer's keys are tried, so no issuer can sign for another one (rule AST-10).
        verified = await issuer.verify(token, header, claims)
        subject = verified.principal.subject
        if subject in RESERVED or (self._own is not None and is_ours(subject)):
            raise Refused("not accepted", "the subject has a name that only callgate gives")
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
