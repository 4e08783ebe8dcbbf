"""The signing keys of one issuer: fetched, kept fresh, and kept through outages (rules TOK-2 and TOK-4).

The only modules that import ``joserfc`` (and with it ``cryptography``) are this one and ``tokens``; they
are loaded when the configuration names an issuer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry, Key
from joserfc.jws import JWSRegistry
from joserfc.util import base64_to_int

log = logging.getLogger("callgate.identity")

# Signatures only, and only asymmetric ones: a published key set cannot hold a shared secret.
ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519", "Ed448",
)  # fmt: skip
FETCH_DEADLINE = 10.0
DEMAND_INTERVAL = 30.0
MOST_KEYS = 100
#: Larger keys take milliseconds to verify with, of the event loop, and strangers publish keys too.
_RSA_BITS, _EXPONENT_BITS = range(2048, 8193), 32
_CURVES = {"EC": ("P-256", "P-384", "P-521"), "OKP": ("Ed25519", "Ed448")}


class Signer:
    """One public key. ``trusted`` turns false when the issuer no longer publishes it, and then stays so."""

    __slots__ = ("algorithms", "key", "kid", "trusted")

    def __init__(self, key: Key) -> None:
        self.key = key
        self.kid = key.kid
        self.algorithms = frozenset(name for name in ALGORITHMS if _fits(key, name))
        self.trusted = True


def _fits(key: Key, algorithm: str) -> bool:
    try:
        JWSRegistry.algorithms[algorithm].check_key(key)
    except JoseError:
        return False
    return True


class KeySource:
    """Owns the keys of one issuer and the tasks that fetch them. ``load`` brings the JWKS document."""

    def __init__(
        self, issuer: str, load: Callable[[], Awaitable[bytes]], *, ttl: float, clock: Callable[[], float]
    ) -> None:
        self._issuer = issuer
        self._load = load
        self._ttl = ttl
        self._clock = clock
        self._signers: dict[bytes, Signer] = {}
        self._failures = 0
        self._demanded = float("-inf")
        self._keeper: asyncio.Task[None] | None = None
        self._flight: asyncio.Task[None] | None = None
        self._closed = False

    def find(self, kid: str | None, algorithm: str) -> list[Signer]:
        """The keys that may have signed. A token without ``kid`` is accepted when there is exactly one candidate."""
        found = [
            signer
            for signer in self._signers.values()
            if algorithm in signer.algorithms and (kid is None or signer.kid == kid)
        ]
        return found if kid is not None or len(found) == 1 else []

    @property
    def is_empty(self) -> bool:
        return not self._signers

    def inherit(self, previous: KeySource) -> None:
        """Start with the last good keys of a source that this one replaces."""
        self._signers = dict(previous._signers)

    def start(self) -> None:
        """Fetch now and then every ``ttl`` seconds, in a task that ``aclose`` ends."""
        if self._keeper is None and not self._closed:
            self._keeper = asyncio.create_task(self._keep_fresh(), name=f"jwks {self._issuer}")

    async def demand(self) -> None:
        """Fetch because a key is missing: at most once in 30 s, and together with a fetch that is under way."""
        if self._flight is None:
            if 0 <= self._clock() - self._demanded < DEMAND_INTERVAL:
                return
            self._demanded = self._clock()
        await self._refresh()

    async def aclose(self) -> None:
        self._closed = True
        tasks = [task for task in (self._keeper, self._flight) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep_fresh(self) -> None:
        while True:
            await self._refresh()
            await asyncio.sleep(self._pause())

    def _pause(self) -> float:
        """The ttl, or while the provider is away 1, 2, 4 … 30 s if that is sooner."""
        return min(self._ttl, 2.0 ** min(self._failures - 1, 5), DEMAND_INTERVAL) if self._failures else self._ttl

    async def _refresh(self) -> None:
        if self._closed:
            return
        if self._flight is None:
            self._flight = asyncio.create_task(self._fetch(), name=f"jwks fetch {self._issuer}")
        # wait() rather than await: one caller that gives up must not cancel the fetch of all the others.
        await asyncio.wait([self._flight])

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(FETCH_DEADLINE):
                raw = await self._load()
            # Parsing a large set takes milliseconds, which the event loop does not have.
            fresh = await asyncio.to_thread(read_keys, raw, dict(self._signers))
        except Exception as error:  # whatever happened, the last good keys stay in use (TOK-4)
            self._failures += 1
            log.warning("keys of %s could not be fetched, attempt %d: %r", self._issuer, self._failures, error)
        else:
            self._failures = 0
            self._replace(fresh)
        finally:
            self._flight = None

    def _replace(self, fresh: dict[bytes, Signer]) -> None:
        for identity in self._signers.keys() - fresh.keys():
            self._signers[identity].trusted = False
        self._signers = fresh


def read_keys(raw: bytes, kept: Mapping[bytes, Signer]) -> dict[bytes, Signer]:
    """The usable keys of a JWKS document by their own JSON; a key that was there before stays the same object.

    Keys that cannot verify a signature are skipped, as RFC 7517 section 5 says. A document that is no key set
    raises ValueError; an empty set is an answer and withdraws every key.
    """
    try:
        document = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, RecursionError):
        raise ValueError("the answer is not JSON") from None
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list) or len(entries) > MOST_KEYS:
        raise ValueError(f"the answer is not a key set of at most {MOST_KEYS} keys")
    found: dict[bytes, Signer] = {}
    for entry in entries:
        if isinstance(entry, dict) and entry.get("use") == "enc":
            continue  # nothing is wrong with it: Keycloak publishes one beside its others
        identity = msgspec.json.encode(entry, order="deterministic")
        try:
            found[identity] = kept.get(identity) or Signer(_public_key(entry))
        except (JoseError, UnsupportedAlgorithm, ValueError, TypeError, KeyError) as error:
            log.warning("a published key is skipped: %s", error)
    return found


def _public_key(entry: Any) -> Key:
    """Check what ``joserfc`` would only warn of, then import. Raises ValueError or JoseError."""
    if not isinstance(entry, dict):
        raise ValueError("it is not an object")
    kind = entry.get("kty")
    if kind == "RSA":
        if base64_to_int(entry["n"]).bit_length() not in _RSA_BITS:
            raise ValueError("an RSA key below 2048 bits, or above 8192")
        if base64_to_int(entry["e"]).bit_length() > _EXPONENT_BITS:
            raise ValueError("an RSA key whose exponent is larger than anybody's")
    elif kind not in _CURVES or entry.get("crv") not in _CURVES[kind]:
        raise ValueError(f"key type {ascii(kind)[:40]} or its curve is not for signatures")
    if "d" in entry:
        raise ValueError("it contains its private part, so anybody may sign with it")
    if entry.get("use", "sig") != "sig":
        raise ValueError("it is not for signatures")
    return JWKRegistry.import_key(entry)
