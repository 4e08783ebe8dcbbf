"""What the endpoints of the token service answer when they refuse (RFC 6749, section 5.2)."""

from __future__ import annotations


class TokenError(Exception):
    """``error`` is a code of the standard, ``description`` a sentence: neither repeats what the client sent."""

    def __init__(self, error: str, description: str, status: int = 400) -> None:
        super().__init__(f"{error}: {description}")
        self.error = error
        self.description = description
        self.status = status


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
