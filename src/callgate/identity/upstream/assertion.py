"""What callgate says of a caller to a server, or to a server's issuer: the claims of a signed assertion."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from callgate.audit import show_id
from callgate.config import UpstreamAuth
from callgate.errors import Denied
from callgate.types import Actor, Principal

#: Who callgate itself is, where nobody calls: the link that lists.
SELF = "callgate"


def subject(who: Principal, claim: str | None) -> str:
    """How the caller is named: ``ISSUER#SUBJECT``, so that two issuers' people are never one, or a claim.

    Raises Denied when the caller's token does not have the claim, or when the name would be that of somebody else.
    """
    if claim is None and who.issuer:
        return f"{who.issuer}#{who.subject}"
    value = who.subject if claim is None else who.claims.get(claim)
    if value == SELF or (claim is None and "#" in who.subject):
        raise Denied(
            "cannot be shown who calls: the caller's name would be read as that of another",
            hint="Give the key another subject, without `#`.",
            data={"kind": "identity"},
        )
    if not isinstance(value, str) or not value:
        raise Denied(
            f"needs the claim `{claim}` of the caller, whose credential does not have it",
            hint="Sign in with a token that carries it.",
            data={"kind": "identity"},
        )
    return value


def about_caller(who: Principal, auth: UpstreamAuth, now: float) -> dict[str, Any]:
    """Who calls, for whom and through whom. Raises Denied."""
    if who.expires <= now:
        raise Denied("is only called while the caller's credential is valid", data={"kind": "identity"})
    claims: dict[str, Any] = {"sub": subject(who, auth.subject_claim)}
    if who.roles:
        claims["roles"] = list(who.roles)
    if who.chain:
        claims["act"] = _nested(who.chain)
        claims["delegation_chain"] = [_actor(each) for each in who.chain]
    if isinstance(txn := who.claims.get("txn"), str):
        claims["txn"] = txn
    return claims


def dated(claims: Mapping[str, Any], issuer: str, audience: str, now: float, expires: float) -> dict[str, Any]:
    """The claims of one assertion, which is used once."""
    return {
        "iss": issuer,
        "aud": audience,
        **claims,
        "iat": int(now),
        "exp": int(expires),
        "jti": secrets.token_urlsafe(16),
    }


def of_call(claims: Mapping[str, Any], call: int) -> dict[str, Any]:
    """The claims with the id under which the call stands in the audit log."""
    return {**claims, "callgate_call": show_id(call)} if call else dict(claims)


def _actor(actor: Actor) -> dict[str, str]:
    return {"sub": actor.subject, "iss": actor.issuer} if actor.issuer else {"sub": actor.subject}


def _nested(chain: tuple[Actor, ...]) -> dict[str, Any]:
    """RFC 8693, section 4.1: the current actor outside, those before it inside."""
    act: dict[str, Any] = {}
    for actor in chain:
        act = {**_actor(actor), "act": act} if act else dict(_actor(actor))
    return act
