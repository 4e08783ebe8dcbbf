"""What the house lends to the credentials that servers are shown: its name, its keys, its secrets."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from callgate.config import Egress, Server, Settings
from callgate.egress import Guard, HttpPool
from callgate.identity import (
    Brought,
    Circle,
    ConnectAround,
    Connections,
    Credential,
    Credentials,
    GrantCredential,
    Keys,
    People,
    Recogniser,
    Revocations,
    Surroundings,
    exchanges_callers,
    signs,
    vouched_for,
)
from callgate.types import Principal
from callgate.upstream import References

if TYPE_CHECKING:
    from callgate.gateway.house import House

#: Largest document (bytes) behind a URL that a stranger named.
STRANGERS = 256 * 1024
#: How grants of users end that no page ends, in the words of the audit log.
_ENDS = {
    "revoked": "the user was revoked: the grant was dropped",
    "ended": "the grant was dropped: its issuer takes it no more",
}


def ways_out(egress: Egress) -> tuple[HttpPool, HttpPool]:
    """Two pools: one for URLs that the operator wrote, one for those that strangers name. What a stranger's URL
    leads to is small.
    """
    written = HttpPool(guard=Guard.allowing(egress.allow_private, only_redirects=True))
    guard = Guard.allowing(egress.allow_private)
    return written, HttpPool(guard=guard, max_body=STRANGERS, max_connections=8, connect_timeout=5.0)


def credentials(house: House) -> Credentials:
    """The credentials of this house's servers. What callgate signs has the issuer of its token service."""

    def issuer() -> str:
        oauth = house.settings.identity.oauth
        return (oauth.issuer if oauth is not None else None) or house.public_url

    async def id_token(user: str, provider: str) -> str | None:
        found = await house.people.provider_tokens(user)
        if found is None or found.provider != provider or found.expires <= time.time():
            return None  # some providers give no new one with a refresh
        return found.id_token

    keys = Keys(house.loaded.data_dir, house.settings.identity.oauth)
    guard = Guard.allowing(house.loaded.settings.egress.allow_private)
    return Credentials(Circle(issuer, keys, lambda: house.settings.identity.providers, id_token, guard))


def connections(house: House) -> Connections:
    """The grants of this house's users at its servers."""

    def note(verb: str, server: str, user: str, issuer: str) -> None:
        if (said := _ENDS.get(verb)) is not None:  # the other steps are taken on pages, which record them
            house.journal.put(house.consents.record(Principal("?", user), server, "ok", said))

    guard = Guard.allowing(house.loaded.settings.egress.allow_private)
    made = Connections(ConnectAround(lambda: house.public_url, house.secrets.hold, house.credentials.sign, guard))
    made.note = note
    return made


def maker(house: House) -> Callable[[str, Server, References], Credential | GrantCredential | None]:
    """Makes the credential of one server, which follows its references where the server's own are followed."""

    def make(name: str, server: Server, references: References) -> Credential | GrantCredential | None:
        async def follow(reference: str) -> str:
            return (await references.all({"": reference}, fresh=True))[""]

        if server.auth.type == "oauth":
            return house.connections.credential(name, server, follow)
        return house.credentials.of(server, follow)

    return make


def surroundings(house: House) -> Surroundings:
    """What the token service needs of this house."""

    async def fetch(url: str) -> bytes:
        return await house.egress.fetch(url)

    async def get_public(url: str) -> Brought:
        found = await house.public_egress.get(url, limit=STRANGERS, redirects=0, timeout=5.0)
        return Brought(found.body, found.headers)

    async def fetch_public(url: str) -> bytes:
        return (await get_public(url)).body

    async def resolve(reference: str) -> str:
        return await house.secrets.resolve(reference, True)

    hold = house.secrets.hold
    return Surroundings(lambda: house.public_url, house.loaded.data_dir, fetch, fetch_public, hold, resolve, get_public)


def people(house: House) -> People:
    """The people who sign in at this house with a browser."""

    def keep() -> bool:
        return vouched_for(house.settings)

    async def sign(claims: Mapping[str, Any]) -> str:
        return await house.credentials.sign(claims)

    return People(house.settings.identity, surroundings(house), sign, keep)


def join(recogniser: Recogniser, house: House, settings: Settings) -> Recogniser:
    """Have the recogniser keep what is to be exchanged, and tell of who was revoked."""

    def revoked(principal: str) -> None:
        house.upstreams.revoked(principal)
        house.credentials.forget(principal)
        house.connections.forget(principal)
        house.people.forget(principal)
        house.personal.forget(principal)

    recogniser.presented = house.credentials.tokens if exchanges_callers(settings) else None
    recogniser.revoked = revoked
    if recogniser.revocations is None and settings.identity.jwt:
        recogniser.revocations = Revocations(house.loaded.data_dir / "oauth" / "revoked", time.time)
        recogniser.revocations.look()
    return recogniser


async def jwks(house: House) -> dict[str, Any] | None:
    """The public keys of what servers are shown, for gateways without a token service; ``None`` where none are used."""
    return await house.credentials.jwks() if signs(house.settings) else None
