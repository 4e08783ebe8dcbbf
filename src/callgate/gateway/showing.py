"""What the house lends to the credentials that servers are shown: its name, its keys, its secrets."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from callgate.config import Server, Settings
from callgate.identity import Credential, Credentials, Keys, Recogniser, exchanges_callers, signs
from callgate.upstream import References

if TYPE_CHECKING:
    from callgate.gateway.house import House


def credentials(house: House) -> Credentials:
    """The credentials of this house's servers. What callgate signs has the issuer of its token service."""

    def issuer() -> str:
        oauth = house.settings.identity.oauth
        return (oauth.issuer if oauth is not None else None) or house.public_url

    return Credentials(issuer, Keys(house.loaded.data_dir, house.settings.identity.oauth))


def maker(house: House) -> Callable[[Server, References], Credential | None]:
    """Makes the credential of one server, which follows its references where the server's own are followed."""

    def make(server: Server, references: References) -> Credential | None:
        async def follow(reference: str) -> str:
            return (await references.all({"": reference}, fresh=True))[""]

        return house.credentials.of(server, follow)

    return make


def join(recogniser: Recogniser, house: House, settings: Settings) -> Recogniser:
    """Have the recogniser keep what is to be exchanged, and tell of who was revoked."""

    def revoked(principal: str) -> None:
        house.upstreams.revoked(principal)
        house.credentials.forget(principal)

    recogniser.presented = house.credentials.tokens if exchanges_callers(settings) else None
    recogniser.revoked = revoked
    return recogniser


async def jwks(house: House) -> dict[str, Any] | None:
    """The public keys of what servers are shown, for gateways without a token service; ``None`` where none are used."""
    return await house.credentials.jwks() if signs(house.settings) else None
