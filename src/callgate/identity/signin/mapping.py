"""From what a provider says of somebody to a person: subject, roles, groups, and who may come in at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from callgate.config import Issuer, Provider
from callgate.identity.claims import claim_at, names_of, subject_of
from callgate.identity.oauth.apps import is_ours
from callgate.identity.refusal import Refused

from .fingerprint import fingerprint
from .person import Person
from .problem import not_admitted

#: Claims of the protocol, which say nothing of the person; and chains, which only our own tokens may bring to a rule.
_PROTOCOL = frozenset(
    {
        "iss", "aud", "azp", "exp", "iat", "nbf", "jti", "nonce", "at_hash", "c_hash", "s_hash", "sid", "typ",
        "act", "delegation_chain", "_claim_names", "_claim_sources",
    }
)  # fmt: skip
_CUT = "[SIZE_LIMIT_EXCEEDED]"
MOST_NAME = 200


def has_all(claims: Mapping[str, Any], config: Provider) -> bool:
    """Whether the claims say everything that the mapping looks at, so that nobody needs to be asked for more."""
    wanted = (config.subject_claim, config.roles_claim, config.groups_claim, *config.required_claims)
    return all(claim_at(claims, name) is not None for name in wanted if name)


def person_of(name: str, config: Provider, claims: Mapping[str, Any]) -> Person:
    """The person whom verified claims describe. Raises Refused for claims that are not as they must be, SignInError
    for somebody who may not come in.
    """
    _check_complete(claims, config)
    _check_required(claims, config)
    subject = subject_of(claims, Issuer(config.issuer, config.client_id, subject_claim=config.subject_claim))
    if is_ours(subject):
        raise Refused("not accepted", "the subject has a name that only callgate gives")
    roles, groups = _names(claims, config.roles_claim), _names(claims, config.groups_claim)
    return Person(
        issuer=config.issuer,
        subject=subject,
        provider=name,
        name=_display(claims, subject),
        roles=_mapped(roles, groups, config.role_map),
        groups=groups,
        claims={claim: value for claim, value in claims.items() if claim not in _PROTOCOL},
        fingerprint=fingerprint(config),
    )


def _names(claims: Mapping[str, Any], path: str) -> tuple[str, ...]:
    return names_of(claims, path) if path else ()


def _mapped(
    roles: tuple[str, ...], groups: tuple[str, ...], role_map: Mapping[str, tuple[str, ...]]
) -> tuple[str, ...]:
    if not role_map:
        return roles
    return tuple(dict.fromkeys(role for each in (*roles, *groups) for role in role_map.get(each, ())))


def _check_complete(claims: Mapping[str, Any], config: Provider) -> None:
    """Where there are too many groups, Entra ID leaves them out and PingOne says so in their place: a rule that denies
    one of them would not see it.
    """
    named = {config.roles_claim, config.groups_claim}
    left_out = claims.get("_claim_names")
    cut = any(_CUT in str(claim_at(claims, name)) for name in named if name)
    if cut or (isinstance(left_out, Mapping) and named & left_out.keys()):
        raise Refused("not accepted", "the provider left out roles or groups because they are too many (overage)")


def _check_required(claims: Mapping[str, Any], config: Provider) -> None:
    named = {config.subject_claim, *config.required_claims}
    if "email" in named and claims.get("email_verified") not in (True, "true"):
        raise not_admitted(
            "The identity provider does not vouch for your e-mail address.", "email_verified is not true"
        )
    for claim, wanted in config.required_claims.items():
        if _as_text(claim_at(claims, claim)) != wanted:
            raise not_admitted("This account may not sign in here.", f"the claim {claim} is not as required")


def _as_text(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int) else None


def _display(claims: Mapping[str, Any], subject: str) -> str:
    """What pages call the person; nothing is decided by it."""
    for claim in ("name", "preferred_username", "email"):
        value = claims.get(claim)
        if isinstance(value, str) and value.strip():
            return value.strip()[:MOST_NAME]
    return subject[:MOST_NAME]
