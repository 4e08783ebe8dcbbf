"""Client authentication: a secret (in a header or in the form), or an assertion signed by the client (RFC 7523)."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey
from joserfc.util import urlsafe_b64decode

from callgate.config import Agent
from callgate.errors import ConfigError
from callgate.identity.claims import check_times, read_object
from callgate.identity.jwks import KeySource, Signer
from callgate.identity.refusal import Refused
from callgate.identity.tokens import ConfiguredAlgorithms

from .agents import Agents, Registered
from .marks import Seen
from .problem import invalid_client, invalid_request
from .request import Form, basic

ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
METHODS = ("client_secret_basic", "client_secret_post", "private_key_jwt")
ALGORITHMS = ("ES256", "RS256", "PS256", "EdDSA")
#: Assertions live no longer (seconds), and clocks may differ by so much.
LONGEST, LEEWAY = 600.0, 5.0
MOST_ID = 256
_TYPES = frozenset({"jwt", "client-authentication+jwt"})
_NOBODY = "0" * 64
Fetch = Callable[[str], Awaitable[bytes]]


class Clients:
    """Says which agent sends a request. ``audiences`` are the names of ours that an assertion may be for."""

    def __init__(self, agents: Agents, seen: Seen, fetch: Fetch, clock: Callable[[], float]) -> None:
        self._agents = agents
        self._seen = seen
        self._clock = clock
        self._registry = ConfiguredAlgorithms(algorithms=frozenset(ALGORITHMS), strict_check_header=False)
        self._keys: dict[str, KeySource | Signer] = {}
        for agent in agents:
            if agent.config.public_key is not None:
                self._keys[agent.name] = Signer(read_public_key(agent.config.public_key))
            elif agent.config.jwks_uri is not None:
                self._keys[agent.name] = _source(agent, agent.config.jwks_uri, fetch, clock)

    async def authenticate(self, form: Form, authorization: bytes | None, audiences: Iterable[str]) -> Registered:
        """Raises TokenError. A client that proves itself in two ways at once is refused."""
        ways = [authorization is not None, "client_secret" in form, "client_assertion" in form]
        if sum(ways) > 1:
            raise invalid_request("Authenticate in one way.")
        if "client_assertion" in form:
            agent = await self._asserted(form, frozenset(audiences))
        else:
            id, secret = basic(authorization) if authorization is not None else _posted(form)
            if form.get("client_id", id) != id:
                raise invalid_client()
            agent = self._by_secret(id, secret)
        if not agent.active:
            raise invalid_client()
        return agent

    def _by_secret(self, id: str, secret: str) -> Registered:
        agent = self._agents.find(id)
        expected = agent.config.secret_sha256 if agent is not None else None
        digest = hashlib.sha256(secret.encode()).hexdigest()
        fits = hmac.compare_digest(digest, (expected or _NOBODY).lower())
        if agent is None or expected is None or not fits:
            raise invalid_client()
        return agent

    async def _asserted(self, form: Form, audiences: frozenset[str]) -> Registered:
        if form.get("client_assertion_type") != ASSERTION:
            raise invalid_request("The `client_assertion_type` is not known.")
        try:
            return await self._examine(form["client_assertion"].encode(), form.get("client_id"), audiences)
        except (Refused, JoseError, ValueError):
            raise invalid_client() from None

    async def _examine(self, assertion: bytes, named: str | None, audiences: frozenset[str]) -> Registered:
        """The signature first; the assertion is used up only once everything else holds."""
        head, body, _ = assertion.split(b".")
        header, claims = read_object(urlsafe_b64decode(head)), read_object(urlsafe_b64decode(body))
        id = claims.get("iss")
        agent = self._agents.find(id) if isinstance(id, str) else None
        if agent is None or claims.get("sub") != id or named not in (None, id):
            raise invalid_client()
        await self._check_signature(agent, assertion, header)
        now = self._clock()
        _, expires = check_times(claims, LEEWAY, now)
        given = claims.get("aud")
        # For us alone: another server that an assertion is for as well could use it here.
        given = given[0] if isinstance(given, list) and len(given) == 1 else given
        if not isinstance(given, str) or given not in audiences:
            raise invalid_client()
        jti = claims.get("jti")
        if expires > now + LONGEST + LEEWAY or not isinstance(jti, str) or not 0 < len(jti) <= MOST_ID:
            raise invalid_client()
        if not await asyncio.to_thread(self._seen.take, agent.name, jti, expires + LEEWAY + 1):
            raise invalid_client()
        return agent

    async def _check_signature(self, agent: Registered, assertion: bytes, header: dict[str, Any]) -> None:
        algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
        if algorithm not in ALGORITHMS or "crit" in header or "b64" in header:
            raise invalid_client()
        if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in _TYPES:
            raise invalid_client()
        for signer in await self._signers(agent, kid if isinstance(kid, str) else None, str(algorithm)):
            try:
                jws.deserialize_compact(assertion, signer.key, registry=self._registry)
            except (JoseError, ValueError):
                continue
            return
        raise invalid_client()

    async def _signers(self, agent: Registered, kid: str | None, algorithm: str) -> list[Signer]:
        keys = self._keys.get(agent.name)
        if keys is None:
            raise invalid_client()
        if isinstance(keys, Signer):
            return [keys] if algorithm in keys.algorithms else []
        keys.start()
        if not keys.find(kid, algorithm):
            await keys.demand()
        return keys.find(kid, algorithm)

    async def aclose(self) -> None:
        await asyncio.gather(*(each.aclose() for each in self._keys.values() if isinstance(each, KeySource)))


def _source(agent: Registered, uri: str, fetch: Fetch, clock: Callable[[], float]) -> KeySource:
    return KeySource(agent.subject, lambda: fetch(uri), ttl=600.0, clock=clock)


def _posted(form: Form) -> tuple[str, str]:
    if "client_id" not in form or "client_secret" not in form:
        raise invalid_client()
    return form["client_id"], form["client_secret"]


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


def check_agent(agent: Registered) -> None:
    """Raises ConfigError for an agent that proves itself in several ways."""
    config: Agent = agent.config
    ways = (config.secret_sha256, config.public_key, config.jwks_uri)
    if sum(way is not None for way in ways) > 1:
        raise ConfigError(
            f"The agent `{agent.name}` has more than one way to prove itself.",
            hint="Keep one of `secret_sha256`, `public_key` and `jwks_uri`.",
        )
