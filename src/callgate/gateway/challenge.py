"""The way from a refusal to a token: what a 401 says, and which endpoint a token is for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from callgate.errors import Unauthenticated
from callgate.identity import Refused, Resources, protected_resource
from callgate.types import Principal

if TYPE_CHECKING:
    from typing import Any

    from callgate.gateway.house import House

REALM = 'Bearer realm="callgate"'
WELL_KNOWN = "/.well-known/oauth-protected-resource"


def path_of(door: str) -> str:
    """The path of the MCP endpoint behind a door.

    >>> path_of(""), path_of("virtual:coder"), path_of("server:git")
    ('/mcp', '/mcp/coder', '/servers/git/mcp')
    """
    kind, _, name = door.partition(":")
    if not kind:
        return "/mcp"
    return f"/mcp/{name}" if kind == "virtual" else f"/servers/{name}/mcp"


def issuers(house: House) -> list[str]:
    """Whose tokens are accepted; empty where there are no tokens at all."""
    found = [each.issuer for each in house.settings.identity.jwt]
    own = house.recogniser.own
    return found if own is None else [*found, own.issuer]


def scopes(house: House) -> tuple[str, ...]:
    own = house.recogniser.own
    return () if own is None else own.agents.scopes


def metadata(house: House, path: str) -> dict[str, Any]:
    """The protected-resource document of the endpoint at ``path`` (``/`` for the gateway as a whole)."""
    return protected_resource(Resources(house.public_url).uri(path), issuers(house), scopes(house))


def challenge(error: Unauthenticated, door: str, house: House) -> str:
    """The ``WWW-Authenticate`` of a 401 (rules RS-2 and RS-3)."""
    if not issuers(house):
        return REALM
    parts = [REALM]
    if not isinstance(error, Refused) or error.kind != "missing":
        parts.append('error="invalid_token"')
    parts.append(f'resource_metadata="{house.public_url}{WELL_KNOWN}{path_of(door)}"')
    if wanted := scopes(house):
        parts.append(f'scope="{" ".join(wanted)}"')
    return ", ".join(parts)


def check_audience(who: Principal, door: str, house: House) -> None:
    """Raise Refused for a token that is for another endpoint (rule RS-7)."""
    if not Resources(house.public_url).accepts(who.audience, path_of(door)):
        raise Refused("not accepted", "the token is for another endpoint")
