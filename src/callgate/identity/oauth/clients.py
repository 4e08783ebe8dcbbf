"""Client authentication: a secret (in a header or in the form), an assertion signed by the client (RFC 7523), or for
public clients their id alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Callable, Iterable
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.util import urlsafe_b64decode

from callgate.config import Agent, App
from callgate.errors import ConfigError
from callgate.identity.claims import check_times, read_object
from callgate.identity.refusal import Refused
from callgate.identity.signatures import ConfiguredAlgorithms

from .agents import Agents, Registered
from .apps import Application, Apps, Client, Method
from .keysets import KeySets
from .marks import Seen
from .problem import invalid_client, invalid_request
from .request import Form, basic
from .surroundings import Surroundings

ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
#: What proves who a client is. Public clients have ``none``.
METHODS = ("client_secret_basic", "client_secret_post", "private_key_jwt")
ALGORITHMS = ("ES256", "RS256", "PS256", "EdDSA")
#: Assertions live no longer (seconds), and clocks may differ by so much.
LONGEST, LEEWAY = 600.0, 5.0
MOST_ID = 256
_TYPES = frozenset({"jwt", "client-authentication+jwt"})
_NOBODY = "0" * 64


class Clients:
    """Says which agent or application sends a request."""

    def __init__(
        self, agents: Agents, apps: Apps, seen: Seen, around: Surroundings, clock: Callable[[], float]
    ) -> None:
        self._agents = agents
        self._apps = apps
        self._seen = seen
        self._clock = clock
        self._registry = ConfiguredAlgorithms(algorithms=frozenset(ALGORITHMS), strict_check_header=False)
        self._keys = KeySets(around, clock)
        for agent in agents:
            self._keys.add(agent.name, agent.subject, agent.config.public_key, agent.config.jwks_uri)
        for app in apps:
            self._keys.add(app.name, app.subject, app.public_key, app.jwks_uri)

    async def find(self, id: str) -> Client | None:
        """The client with this id, whatever its standing."""
        return self._agents.find(id) or await self._apps.find(id)

    async def authenticate(self, form: Form, authorization: bytes | None, audiences: Iterable[str]) -> Client:
        """Raises TokenError. A client that proves itself in two ways at once is refused; ``audiences`` are the names
        of ours that an assertion may be for.
        """
        ways = [authorization is not None, "client_secret" in form, "client_assertion" in form]
        if sum(ways) > 1:
            raise invalid_request("Authenticate in one way.")
        if "client_assertion" in form:
            client = await self._asserted(form, frozenset(audiences))
        elif authorization is None and "client_secret" not in form:
            client = await self._named(form)
        else:
            id, secret = basic(authorization) if authorization is not None else _posted(form)
            if form.get("client_id", id) != id:
                raise invalid_client()
            way: Method = "client_secret_post" if authorization is None else "client_secret_basic"
            client = await self._by_secret(id, secret, way)
        if not client.active:
            raise invalid_client()
        return client

    async def _named(self, form: Form) -> Application:
        """A public client says who it is, and nothing more. An agent never is one."""
        app = await self._apps.find(form["client_id"]) if "client_id" in form else None
        if app is None or not app.public or self._agents.find(app.name) is not None:
            raise invalid_client()
        return app

    async def _by_secret(self, id: str, secret: str, way: Method) -> Client:
        client = await self.find(id)
        expected = None
        if isinstance(client, Registered):
            expected = client.config.secret_sha256
        elif client is not None and way in client.methods:
            expected = client.secret_sha256
        digest = hashlib.sha256(secret.encode()).hexdigest()
        fits = hmac.compare_digest(digest, (expected or _NOBODY).lower())
        if client is None or expected is None or not fits:
            raise invalid_client()
        return client

    async def _asserted(self, form: Form, audiences: frozenset[str]) -> Client:
        if form.get("client_assertion_type") != ASSERTION:
            raise invalid_request("The `client_assertion_type` is not known.")
        try:
            return await self._examine(form["client_assertion"].encode(), form.get("client_id"), audiences)
        except (Refused, JoseError, ValueError):
            raise invalid_client() from None

    async def _examine(self, assertion: bytes, named: str | None, audiences: frozenset[str]) -> Client:
        """The signature first; the assertion is used up only once everything else holds."""
        head, body, _ = assertion.split(b".")
        header, claims = read_object(urlsafe_b64decode(head)), read_object(urlsafe_b64decode(body))
        id = claims.get("iss")
        client = await self.find(id) if isinstance(id, str) else None
        if client is None or claims.get("sub") != id or named not in (None, id):
            raise invalid_client()
        await self._check_signature(client, assertion, header)
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
        if not await asyncio.to_thread(self._seen.take, client.name, jti, expires + LEEWAY + 1):
            raise invalid_client()
        return client

    async def _check_signature(self, client: Client, assertion: bytes, header: dict[str, Any]) -> None:
        algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
        if algorithm not in ALGORITHMS or "crit" in header or "b64" in header:
            raise invalid_client()
        if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in _TYPES:
            raise invalid_client()
        if isinstance(client, Application) and "private_key_jwt" not in client.methods:
            raise invalid_client()
        for signer in await self._keys.find(client, kid if isinstance(kid, str) else None, str(algorithm)):
            try:
                jws.deserialize_compact(assertion, signer.key, registry=self._registry)
            except (JoseError, ValueError):
                continue
            return
        raise invalid_client()

    async def aclose(self) -> None:
        await self._keys.aclose()


def _posted(form: Form) -> tuple[str, str]:
    if "client_id" not in form or "client_secret" not in form:
        raise invalid_client()
    return form["client_id"], form["client_secret"]


def check_proof(what: str, name: str, config: Agent | App) -> None:
    """Raises ConfigError for a client that proves itself in several ways."""
    ways = (config.secret_sha256, config.public_key, config.jwks_uri)
    if sum(way is not None for way in ways) > 1:
        raise ConfigError(
            f"The {what} `{name}` has more than one way to prove itself.",
            hint="Keep one of `secret_sha256`, `public_key` and `jwks_uri`.",
        )
