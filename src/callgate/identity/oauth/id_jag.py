"""Identity assertions (ID-JAG): the organisation's identity provider says that a client may act for a person here.

``draft-ietf-oauth-identity-assertion-authz-grant``, section 4.4; in MCP: enterprise-managed authorization (SEP-990).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from callgate.config import Identity, Provider
from callgate.identity.claims import check_times
from callgate.identity.federation.sources import discovered
from callgate.identity.federation.workloads import check_only_for
from callgate.identity.jwks import KeySource
from callgate.identity.possession import confirmation_of
from callgate.identity.refusal import Refused
from callgate.identity.signatures import Signatures, read_token
from callgate.identity.signin.mapping import person_of
from callgate.identity.signin.person import Person
from callgate.identity.signin.problem import SignInError
from callgate.identity.tokens import asserted_chain

from .apps import Application, Client
from .binding import same
from .grants import Grant, Rules, scopes_in
from .marks import Revocations, Seen
from .problem import TokenError, invalid_client, invalid_grant, invalid_scope, invalid_target
from .request import Form, scopes_of
from .resources import listed, within
from .sessions import scopes_for
from .surroundings import Surroundings

if TYPE_CHECKING:
    from .issuing import Asking

log = logging.getLogger("callgate.identity")

PROFILE = "urn:ietf:params:oauth:grant-profile:id-jag"
_TYPE = "oauth-id-jag+jwt"
#: Longest life of an assertion, and how much clocks may differ (seconds).
LONGEST, LEEWAY = 3600.0, 5.0
MOST_ID = 256
TTL = 600.0


def is_id_jag(header: Mapping[str, Any]) -> bool:
    """Whether a header says that the token is an identity assertion.

    >>> is_id_jag({"typ": "oauth-id-jag+jwt"}), is_id_jag({"typ": "JWT"}), is_id_jag({})
    (True, False, False)
    """
    kind = header.get("typ")
    return isinstance(kind, str) and kind.lower().removeprefix("application/") == _TYPE


class Trusted:
    """One provider whose identity assertions are accepted, and its keys."""

    def __init__(self, name: str, config: Provider, keys: KeySource) -> None:
        self.name = name
        self.config = config
        self.keys = keys
        self.signatures = Signatures(keys, config.algorithms, frozenset({_TYPE}))


class IdentityAssertions:
    """The providers with ``id_jag``. ``seen`` remembers which assertions were used."""

    def __init__(
        self,
        identity: Identity,
        around: Surroundings,
        seen: Seen,
        revocations: Revocations,
        clock: Callable[[], float],
    ) -> None:
        self._seen = seen
        self._revocations = revocations
        self._trusted: dict[str, Trusted] = {}
        for name, each in identity.providers.items():
            if each.id_jag:
                load = discovered(each.issuer, around.fetch, around.fetch_public)
                keys = KeySource(each.issuer, load, ttl=TTL, clock=clock)
                self._trusted[each.issuer] = Trusted(name, each, keys)

    def __bool__(self) -> bool:
        return bool(self._trusted)

    def inherit(self, previous: IdentityAssertions) -> None:
        """Start with the last good keys of providers that are still there."""
        for issuer, each in self._trusted.items():
            if issuer in previous._trusted:
                each.keys.inherit(previous._trusted[issuer].keys)

    async def aclose(self) -> None:
        await asyncio.gather(*(each.keys.aclose() for each in self._trusted.values()))

    async def grant(self, asking: Asking, client: Client, assertion: bytes, rules: Rules) -> Grant:
        """A token of the person through the client that proved who it is. Raises TokenError.

        The assertion is used up only once everything else holds.
        """
        if isinstance(client, Application) and client.public:
            # Section 7.1: whoever says to be a public client could use an assertion that it found.
            raise invalid_client()
        try:
            trusted, claims, expires = await self._examine(assertion, client, asking.confirmation, rules)
            person = person_of(trusted.name, trusted.config, claims)
        except (Refused, SignInError) as refused:
            log.debug("an identity assertion is refused: %s", refused.reason)
            raise _refused(isinstance(refused, Refused) and refused.kind == "expired") from None
        self._check_standing(person, client, float(claims["iat"]))
        path, scopes = _target(claims, client, asking.form, rules), _scopes(claims, client, asking.form, rules)
        await self._use_up(trusted.config, claims["jti"], expires)
        return Grant(
            person.qualified, client.name, path, scopes, (client.subject,),
            min(expires, rules.now + rules.config.token_ttl), roles=person.roles, groups=person.groups,
            evidence=f"{trusted.name}: identity assertion",
            asserted=asserted_chain(claims.get("act"), trusted.config.issuer),
        )  # fmt: skip

    async def _examine(
        self, assertion: bytes, client: Client, confirmation: Mapping[str, str], rules: Rules
    ) -> tuple[Trusted, dict[str, Any], float]:
        """Whose assertion it is, what it says, and until when. Signature first. Raises Refused."""
        header, claims = read_token(assertion)
        name = claims.get("iss")
        trusted = self._trusted.get(name) if isinstance(name, str) else None
        if trusted is None:
            raise Refused("not accepted", f"iss {ascii(name)[:200]} is no provider with `id_jag`")
        # Only this provider's keys are tried, so no provider can sign for another one (rule AST-10).
        await trusted.signatures.signer(assertion, header)
        _, expires = check_times(claims, LEEWAY, rules.now)
        if expires > rules.now + LONGEST + LEEWAY or "iat" not in claims:
            raise Refused("not accepted", "exp is more than an hour away, or iat is missing")
        check_only_for(claims, (rules.issuer,))
        if claims.get("client_id") != client.name:  # rule AST-12
            raise Refused("not accepted", f"client_id {ascii(claims.get('client_id'))[:200]} is another client")
        jti = claims.get("jti")
        if not isinstance(jti, str) or not 0 < len(jti) <= MOST_ID:
            raise Refused("not accepted", "jti is missing, or no text")
        if not same(confirmation_of(claims), confirmation):
            raise Refused("not accepted", "the assertion is bound to a key that was not proved")
        return trusted, claims, expires

    def _check_standing(self, person: Person, client: Client, issued: float) -> None:
        """Somebody who was revoked does not come back with what was signed before."""
        self._revocations.poll()
        if self._revocations.covers([], (person.qualified, client.subject), issued):
            raise _refused()

    async def _use_up(self, provider: Provider, jti: str, expires: float) -> None:
        if provider.id_jag_reuse:
            return
        if not await asyncio.to_thread(self._seen.take, f"id-jag {provider.issuer}", jti, expires + LEEWAY + 1):
            raise _refused()


def _target(claims: Mapping[str, Any], client: Client, form: Form, rules: Rules) -> str:
    """The endpoint that the assertion names, or a narrower one that the client asks for."""
    value = claims.get("resource")
    named = value if isinstance(value, list) else [value]
    (uri,) = named if len(named) == 1 else (None,)
    path = rules.resources.path(uri) if isinstance(uri, str) else None
    if path is None or rules.resources.uri(path) != uri:
        raise invalid_target("The assertion names no resource of this server.")
    wanted = {form[key] for key in ("resource", "audience") if key in form}
    asked = rules.resources.path(wanted.pop()) if len(wanted) == 1 else path
    if wanted or asked is None or not within(asked, path):
        raise invalid_target("The assertion is for another target.")
    audiences = client.audiences if isinstance(client, Application) else client.config.audiences
    if not listed(asked, audiences):
        raise invalid_target("The client may not have tokens for this target.")
    return asked


def _scopes(claims: Mapping[str, Any], client: Client, form: Form, rules: Rules) -> tuple[str, ...]:
    """What the provider allowed and the client may have; less where it asks for less."""
    most = scopes_for(client, rules.config.scopes) if isinstance(client, Application) else client.config.scopes
    allowed = scopes_in({"scope": claims.get("scope", "")})
    had = tuple(scope for scope in most if scope in allowed)
    asked = scopes_of(form["scope"]) if "scope" in form else had
    if not set(asked) <= set(had):
        raise invalid_scope("More scope than the assertion allows, or than the client may have.")
    return asked


def _refused(expired: bool = False) -> TokenError:
    return invalid_grant("The assertion has expired." if expired else "The assertion is not accepted.")
