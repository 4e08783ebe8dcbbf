"""What a token claims: strict reading of its JSON, and the checks of RFC 7519, section 4.1."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from callgate.config import Issuer

from .refusal import Refused

# No date of interest is larger, and every integer up to here is exact as a float.
_LATEST = 2.0**53


def read_object(raw: bytes) -> dict[str, Any]:
    """One JSON object, strictly: no duplicate names, NaN, lone surrogates, huge numbers or deep nesting.

    A lenient reader takes one of two ``iss`` members and the next reader the other one. Raises ValueError.
    """
    try:
        msgspec.json.decode(raw)  # the grammar, UTF-8 included
        found = json.loads(raw, object_pairs_hook=_without_duplicates, parse_int=_integer)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if not isinstance(found, dict):
        raise ValueError("not an object")
    return found


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _integer(text: str) -> int:
    if len(text) > 19:
        raise ValueError("a number is too large")
    return int(text)


def check_times(claims: Mapping[str, Any], leeway: float, now: float) -> tuple[float, float]:
    """When the token was issued (minus infinity if it does not say) and when it expires. Raises Refused."""
    if "exp" not in claims:
        raise Refused("not accepted", "exp is missing")
    expires = _date(claims, "exp")
    if expires + leeway <= now:
        raise Refused("expired", f"expired at {expires:.0f}")
    if "nbf" in claims and _date(claims, "nbf") > now + leeway:
        raise Refused("not accepted", "nbf lies in the future")
    issued = _date(claims, "iat") if "iat" in claims else float("-inf")
    if issued > now + leeway:
        raise Refused("not accepted", "iat lies in the future")
    return issued, expires


def _date(claims: Mapping[str, Any], name: str) -> float:
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LATEST:
        raise Refused("not accepted", f"{name} is not a date")
    return float(value)


def check_audience(claims: Mapping[str, Any], accepted: frozenset[str]) -> None:
    """At least one ``aud`` value is ours (rule RS-7). Raises Refused."""
    audience = claims.get("aud")
    given = [audience] if isinstance(audience, str) else audience
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise Refused("not accepted", "aud is missing or not text")
    if accepted.isdisjoint(given):
        raise Refused("not accepted", f"aud is for somebody else: {ascii(given)[:200]}")


def subject_of(claims: Mapping[str, Any], issuer: Issuer) -> str:
    subject = claim_at(claims, issuer.subject_claim)
    if not isinstance(subject, str) or not subject or not subject.isprintable():
        raise Refused("not accepted", f"{issuer.subject_claim} is missing or not printable text")
    return subject


def names_of(claims: Mapping[str, Any], path: str) -> tuple[str, ...]:
    """Roles or groups: a list of text, or text separated by spaces; absent means none.

    Anything else refuses the token: a deny rule may depend on a role that was written in a strange way.
    """
    value = claim_at(claims, path)
    if value is None:
        return ()
    names = value.split() if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) and name.isprintable() for name in names):
        raise Refused("not accepted", f"{path} is not a list of text")
    return tuple(dict.fromkeys(names))


def claim_at(claims: Mapping[str, Any], path: str) -> Any:
    """The claim at a dotted path; names that contain dots themselves (URLs) are found too.

    >>> claim_at({"realm_access": {"roles": ["dev"]}}, "realm_access.roles")
    ['dev']
    >>> claim_at({"https://example.org/roles": "dev"}, "https://example.org/roles")
    'dev'
    """
    if path in claims:
        return claims[path]
    head, dot, rest = path.partition(".")
    while dot:
        inner = claims.get(head)
        if isinstance(inner, dict) and (found := claim_at(inner, rest)) is not None:
            return found
        more, dot, rest = rest.partition(".")
        head = f"{head}.{more}"
    return None
