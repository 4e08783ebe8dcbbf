"""What the endpoints of the token service answer when they refuse (RFC 6749, section 5.2)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

NOTHING: Mapping[str, str] = MappingProxyType({})


class TokenError(Exception):
    """``error`` is a code of the standard, ``description`` a sentence: neither repeats what the client sent. ``told``
    is what the audit record says besides, ``headers`` what the client gets besides.
    """

    headers: Mapping[str, str] = NOTHING

    def __init__(self, error: str, description: str, status: int = 400, told: Mapping[str, str] = NOTHING) -> None:
        super().__init__(f"{error}: {description}")
        self.error = error
        self.description = description
        self.status = status
        self.told = told


def invalid_client() -> TokenError:
    """One sentence for all failures: which check failed would help only an attacker."""
    return TokenError("invalid_client", "The client could not be authenticated.", 401)


def invalid_request(why: str) -> TokenError:
    return TokenError("invalid_request", why)


def invalid_grant(why: str) -> TokenError:
    return TokenError("invalid_grant", why)


def invalid_scope(why: str) -> TokenError:
    return TokenError("invalid_scope", why)


def invalid_target(why: str) -> TokenError:
    return TokenError("invalid_target", why)
