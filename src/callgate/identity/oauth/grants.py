"""What a token may say: the rules of issue (DEL-1 to DEL-8), as pure functions."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from callgate.config import OAuth
from callgate.types import Actor, Principal

from .agents import Agents, Registered
from .apps import Apps
from .problem import invalid_grant, invalid_request, invalid_scope, invalid_target
from .request import Form, scopes_of
from .resources import EVERYTHING, Resources, listed, within

Consent = Literal["", "may_act", "agent", "operator"]


class Grant(msgspec.Struct, frozen=True):
    """A token to be: for ``subject``, through the application and the agents of ``chain`` (subjects, oldest first; the
    last one gets it).

    ``parents`` are the ids of what it ends with: the tokens that it was exchanged from, and the family of the sign-in.
    ``consent`` says who allowed the delegation.
    ``asserted`` are the actors that a foreign token named: an exchange must not make them forgotten (rule DEL-10).
    ``answer`` is what the client gets besides the token, such as a refresh token; ``evidence`` is what the record says
    of the assertion that the token was issued for.
    """

    subject: str
    client: str
    path: str
    scopes: tuple[str, ...]
    chain: tuple[str, ...]
    expires: float
    txn: str = ""
    parents: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    consent: Consent = ""
    asserted: tuple[Actor, ...] = ()
    answer: Mapping[str, str] = msgspec.field(default_factory=dict)
    evidence: str = ""


class Rules(msgspec.Struct, frozen=True):
    """What the rules look at besides the request."""

    config: OAuth
    agents: Agents
    resources: Resources
    issuer: str
    now: float


def by_credentials(agent: Registered, form: Form, rules: Rules) -> Grant:
    """Client credentials: the agent for itself."""
    path = _target(form, agent, EVERYTHING, rules)
    expires = rules.now + rules.config.token_ttl
    scopes = _scopes(form, agent, None)
    return Grant(agent.subject, agent.name, path, scopes, (agent.subject,), expires)


def by_exchange(agent: Registered, parent: Principal, form: Form, rules: Rules) -> Grant:
    """Token exchange: the agent for the subject of ``parent``, through whomever that token came."""
    claims = parent.claims
    own = bool(parent.audience)
    came = tuple(each["sub"] for each in claims["delegation_chain"]) if own else ()
    consent = _consent(agent, parent, came, rules)
    if agent.subject in came and not rules.config.repeat_actors:
        raise invalid_grant("The agent is in the delegation chain already.")
    if sum(not Apps.claims(each) for each in came) + 1 > rules.config.max_depth:
        raise invalid_grant("The delegation chain would be too long.")
    above = _parent_path(parent, rules)
    path = _target(form, agent, above, rules)
    if not within(path, above):
        raise invalid_target("The subject token is for another target.")
    expires = min(float(claims["exp"]), rules.now + rules.config.token_ttl)
    if expires <= rules.now:
        raise invalid_grant("The subject token has expired.")
    before = claims.get("parents", ()) if own else ()  # what a foreign token calls so is nothing to us
    ids = tuple(each for each in (*before, claims.get("jti")) if isinstance(each, str))
    txn = claims.get("txn") if own else None
    return Grant(
        _subject(parent), agent.name, path, _scopes(form, agent, parent), (*came, agent.subject), expires,
        txn or (ids[-1] if ids else ""), ids if own else (), parent.roles, parent.groups, consent,
        parent.asserted,
    )  # fmt: skip


def check_actor(agent: Registered, actor: Principal) -> None:
    """An actor token counts only where it is the client's own (rule DEL-1)."""
    if not actor.audience or (actor.subject, actor.claims.get("client_id")) != (agent.subject, agent.name):
        raise invalid_grant("The actor token is not one of this client.")


def _consent(agent: Registered, parent: Principal, came: tuple[str, ...], rules: Rules) -> Consent:
    """Who allowed it (rule DEL-2): the subject's token, the agent that has the token now, or the operator."""
    may_act = parent.claims.get("may_act")
    if may_act is not None:
        # Whoever says who may act has said who may not.
        if _names(may_act, agent, rules.issuer):
            return "may_act"
        raise invalid_grant("The subject token lets somebody else act.")
    current = rules.agents.of(came[-1]) if came else None
    if current is not None and agent.name in current.config.may_delegate_to:
        return "agent"
    # An application delegates nothing: with one alone in the chain the token is as good as the person's own.
    if all(map(Apps.claims, came)) and parent.issuer in agent.config.acts_for:
        return "operator"
    raise invalid_grant(
        "Nobody allowed this delegation: neither the subject (`may_act`), nor who has the token now "
        "(`may_delegate_to`), nor the operator (`acts_for`)."
    )


def _names(may_act: object, agent: Registered, issuer: str) -> bool:
    """Without our ``iss`` a name is one of the provider's own: only ``agent:NAME`` cannot be mistaken then."""
    if not isinstance(may_act, Mapping) or may_act.get("iss", issuer) != issuer:
        return False
    named = {may_act[key] for key in ("sub", "client_id") if isinstance(may_act.get(key), str)}
    return bool(named) and named <= ({agent.subject, agent.name} if "iss" in may_act else {agent.subject})


def _subject(parent: Principal) -> str:
    """Whose token it is: ours keep their subject, a foreign one is told with its issuer."""
    if parent.audience:
        return str(parent.claims["sub"])
    if "#" in parent.issuer:
        raise invalid_grant("Subjects of this issuer cannot be named.")
    return f"{parent.issuer}#{parent.subject}"


def _parent_path(parent: Principal, rules: Rules) -> str:
    """The endpoint of the parent. What another issuer signed for callgate is for the endpoint of everything."""
    path = rules.resources.path(parent.audience) if parent.audience else EVERYTHING
    if path is None:
        raise invalid_target("The subject token is for another target.")
    return path


def _target(form: Form, agent: Registered, default: str, rules: Rules) -> str:
    """The one endpoint that the token is for; within the client's registration (rule DEL-4)."""
    named = {form[key] for key in ("resource", "audience") if key in form}
    if len(named) > 1:
        raise invalid_target("Ask for one target.")
    path = rules.resources.path(named.pop()) if named else default
    if path is None or not listed(path, agent.config.audiences):
        how = "" if named else " Name another one with `resource`."
        raise invalid_target(f"The client may not have tokens for this target.{how}")
    return path


def _scopes(form: Form, agent: Registered, parent: Principal | None) -> tuple[str, ...]:
    """What was asked for, or all there is: within the client's registration and the parent (rule DEL-3)."""
    most = agent.config.scopes
    if parent is not None:
        had = scopes_in(parent.claims)
        most = tuple(scope for scope in most if scope in had)
    asked = scopes_of(form["scope"]) if "scope" in form else most
    if not set(asked) <= set(most):
        raise invalid_scope("More scope than the client may have, or than the subject token has.")
    return asked


def scopes_in(claims: Mapping[str, Any]) -> tuple[str, ...]:
    """The scopes of a token: ``scope`` is text (RFC 9068); some providers write a list, or ``scp``."""
    value = claims.get("scope", claims.get("scp", ""))
    words = value.split() if isinstance(value, str) else value
    return tuple(word for word in words if isinstance(word, str)) if isinstance(words, list) else ()


def access_claims(grant: Grant, rules: Rules, jti: str) -> dict[str, Any]:
    """The claims of the token (RFC 9068). ``act`` is for others; policy reads ``delegation_chain`` only (DEL-11)."""
    claims: dict[str, Any] = {
        "iss": rules.issuer,
        "sub": grant.subject,
        "aud": rules.resources.uri(grant.path),
        "client_id": grant.client,
        "iat": int(rules.now),
        "exp": int(grant.expires),
        "jti": jti,
        "txn": grant.txn or hashlib.sha256(jti.encode()).hexdigest()[:24],
        "scope": " ".join(grant.scopes),
        "delegation_chain": [{"sub": each, "iss": rules.issuer, "profile": _profile(each)} for each in grant.chain],
    }
    act: dict[str, Any] = {}
    # Who signs in with an application acts: the application is the client, not an actor.
    for each in (each for each in grant.chain if each != grant.subject and not Apps.claims(each)):
        act = {"sub": each, "iss": rules.issuer, "sub_profile": "ai_agent", **({"act": act} if act else {})}
    asserted = [{"sub": each.subject, "iss": each.issuer} for each in grant.asserted]
    more = {"act": act, "parents": grant.parents, "roles": grant.roles, "groups": grant.groups, "asserted": asserted}
    claims |= {name: value for name, value in more.items() if value}
    if claims["exp"] <= claims["iat"]:
        raise invalid_grant("The subject token has expired.")
    return claims


def _profile(subject: str) -> str:
    return "client" if Apps.claims(subject) else "ai_agent"


def check_request(form: Form) -> None:
    """The parts of an exchange request that have one answer each (RFC 8693, section 2.1)."""
    kind = "urn:ietf:params:oauth:token-type:"
    if form.get("subject_token_type") not in (f"{kind}access_token", f"{kind}jwt"):
        raise invalid_request("The `subject_token_type` is not accepted.")
    if form.get("requested_token_type", f"{kind}access_token") not in (f"{kind}access_token", f"{kind}jwt"):
        raise invalid_request("The `requested_token_type` is not issued here.")
    if ("actor_token" in form) != ("actor_token_type" in form):
        raise invalid_request("`actor_token` and `actor_token_type` go together.")
    if form.get("actor_token_type", f"{kind}jwt") not in (f"{kind}access_token", f"{kind}jwt"):
        raise invalid_request("The `actor_token_type` is not accepted.")
