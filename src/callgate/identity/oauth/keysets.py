"""The keys with which clients sign their assertions: written down, in the client's own description, or behind a URL."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

from callgate.errors import CallgateError, ConfigError
from callgate.identity.jwks import KeySource, Signer, read_keys

from .agents import Registered
from .apps import Application, Client
from .flights import Flights
from .surroundings import Surroundings

#: Key sets of strangers: how many are remembered, for how long, and how soon an unknown key fetches one again.
REMEMBERED, KEPT, AGAIN = 256, 600.0, 30.0
TTL = 600.0
Fetch = Callable[[str], Awaitable[bytes]]


class KeySets:
    """Owns the sources of keys of those that the operator wrote down; strangers' sets are fetched when needed.

    Raises ConfigError for a key of the configuration that is none.
    """

    def __init__(self, around: Surroundings, clock: Callable[[], float]) -> None:
        self._around = around
        self._clock = clock
        self._own: dict[str, KeySource | Signer] = {}
        self._strangers: OrderedDict[str, tuple[float, tuple[Signer, ...]]] = OrderedDict()
        self._flights: Flights[tuple[Signer, ...]] = Flights("client keys")

    def add(self, client: str, subject: str, public_key: str | None, jwks_uri: str | None) -> None:
        """Have the keys of a client of the configuration at hand."""
        fetch = self._around.fetch
        if public_key is not None:
            self._own[client] = Signer(read_public_key(public_key))
        elif jwks_uri is not None:
            self._own[client] = KeySource(subject, lambda: fetch(jwks_uri), ttl=TTL, clock=self._clock)

    async def find(self, client: Client, kid: str | None, algorithm: str) -> list[Signer]:
        """The keys that may have signed an assertion of this client."""
        if isinstance(client, Registered) or client.kind == "configured":
            return await self._written(self._own.get(client.name), kid, algorithm)
        signers = await self._described(client, kid)
        fitting = [each for each in signers if algorithm in each.algorithms and kid in (None, each.kid)]
        # Two keys of one name are no mistake that a stranger may make: each costs a verification.
        return fitting if len(fitting) == 1 else []

    @staticmethod
    async def _written(keys: KeySource | Signer | None, kid: str | None, algorithm: str) -> list[Signer]:
        if keys is None:
            return []
        if isinstance(keys, Signer):
            return [keys] if algorithm in keys.algorithms else []
        keys.start()
        if not keys.find(kid, algorithm):
            await keys.demand()
        return keys.find(kid, algorithm)

    async def _described(self, client: Application, kid: str | None) -> tuple[Signer, ...]:
        if client.jwks is not None:
            return await asyncio.to_thread(_signers, msgspec.json.encode(client.jwks))
        if client.jwks_uri is None:
            return ()
        at, known = self._strangers.get(client.jwks_uri, (float("-inf"), ()))
        age = self._clock() - at
        if not 0 <= age < (KEPT if any(kid in (None, each.kid) for each in known) else AGAIN):
            known = await self._flights.join(client.jwks_uri, self._fetch) or ()
        return known

    async def _fetch(self, uri: str) -> tuple[Signer, ...]:
        try:
            found = await asyncio.to_thread(_signers, await self._around.fetch_public(uri))
        except CallgateError:
            found = ()
        self._strangers[uri] = (self._clock(), found)
        self._strangers.move_to_end(uri)
        if len(self._strangers) > REMEMBERED:
            self._strangers.popitem(last=False)
        return found

    async def aclose(self) -> None:
        own = (each for each in self._own.values() if isinstance(each, KeySource))
        await asyncio.gather(self._flights.aclose(), *(each.aclose() for each in own))


def _signers(raw: bytes) -> tuple[Signer, ...]:
    try:
        return tuple(read_keys(raw, {}).values())
    except ValueError:
        return ()


def read_public_key(pem: str) -> Key:
    """Raises ConfigError for what is no public key that can verify a signature."""
    try:
        key: Any = load_pem_public_key(pem.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigError(
            "A `public_key` is not a public key in PEM.", hint="It begins with BEGIN PUBLIC KEY."
        ) from None
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= 2048:
        return RSAKey.import_key(pem)
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return ECKey.import_key(pem)
    if isinstance(key, ed25519.Ed25519PublicKey):
        return OKPKey.import_key(pem)
    raise ConfigError(
        "A `public_key` is of a kind that is not accepted.", hint="Use P-256, Ed25519, or RSA of at least 2048 bits."
    )
