"""The way from a refusal to a token: what a 401 says, and which endpoint a token is for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from callgate.errors import Unauthenticated
from callgate.identity import PROOF_ALGORITHMS, Refused, Resources, protected_resource
from callgate.types import Principal

if TYPE_CHECKING:
    from typing import Any

    from callgate.config import Identity
    from callgate.gateway.house import House

REALM = 'Bearer realm="callgate"'
_PROOF_ERRORS = {"missing": "", "proof": "invalid_dpop_proof", "nonce": "use_dpop_nonce"}
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
    """Whose tokens are accepted; empty where there are no tokens at all. Clients try the first one: ours, where people
    can sign in.
    """
    found = [each.issuer for each in house.settings.identity.jwt]
    own = house.recogniser.own
    if own is None:
        return found
    return [*found, own.issuer] if own.people is None else [own.issuer, *found]


def scopes(house: House) -> tuple[str, ...]:
    """What a client should ask for at first; what single tools need besides is in the 403 of a call."""
    own = house.recogniser.own
    return () if own is None else house.scopes.first(own.first_scopes)


def metadata(house: House, path: str) -> dict[str, Any]:
    """The protected-resource document of the endpoint at ``path`` (``/`` for the gateway as a whole)."""
    document = protected_resource(Resources(house.public_url).uri(path), issuers(house), scopes(house))
    return {**document, **_bindings(house.settings.identity)}


def _bindings(identity: Identity) -> dict[str, Any]:
    """What tokens may or must be bound to (RFC 9728, section 2)."""
    told: dict[str, Any] = {"dpop_signing_alg_values_supported": list(PROOF_ALGORITHMS)}
    if identity.client_certificates is not None:
        told["tls_client_certificate_bound_access_tokens"] = True
    elif identity.oauth is not None and identity.oauth.dpop == "required":
        told["dpop_bound_access_tokens_required"] = True
    return told


def refusal(error: Unauthenticated, door: str, house: House) -> dict[str, str]:
    """The headers of a 401: the challenge, and the nonce that a proof needs."""
    headers = {"www-authenticate": challenge(error, door, house)}
    if isinstance(error, Refused) and error.nonce:
        headers["dpop-nonce"] = error.nonce
    return headers


def challenge(error: Unauthenticated, door: str, house: House) -> str:
    """The ``WWW-Authenticate`` of a 401 (rules RS-2 and RS-3), with what bound tokens need (RFC 9449, section 7.1).

    Bearer stands first, where clients look that read one challenge only.
    """
    if not issuers(house):
        return REALM
    kind = error.kind if isinstance(error, Refused) else "not accepted"
    parts = [REALM]
    if kind not in ("missing", "proof", "nonce"):
        parts.append('error="invalid_token"')
    parts.append(f'resource_metadata="{house.public_url}{WELL_KNOWN}{path_of(door)}"')
    if wanted := scopes(house):
        parts.append(f'scope="{" ".join(wanted)}"')
    algorithms = f'algs="{" ".join(PROOF_ALGORITHMS)}"'
    wrong = _PROOF_ERRORS.get(kind, "invalid_token")
    parts.append(f'DPoP error="{wrong}", {algorithms}' if wrong else f"DPoP {algorithms}")
    return ", ".join(parts)


def check_audience(who: Principal, door: str, house: House) -> None:
    """Raise Refused for a token that is for another endpoint (rule RS-7)."""
    if not Resources(house.public_url).accepts(who.audience, path_of(door)):
        raise Refused("not accepted", "the token is for another endpoint")
