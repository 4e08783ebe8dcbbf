"""Whom and what a rule is for: everything but its condition.

Three rules of reading that the language page states:

* The current actor is the last of the delegation chain. Who comes without a chain acts for itself, so ``agents``
  and ``chain_any`` look at the caller then.
* Actors that only a foreign token names (``asserted``) are seen by deny rules and rules over results, by no other.
  Those that a token of ours attests decide ``chain_all`` and ``chain_first`` alone.
* An anonymous caller is matched by such rules like anybody else, but by an allow or ask rule only when
  ``to.subjects`` names ``anonymous`` itself: neither a missing ``to`` nor a wildcard lets strangers in. An ask rule
  that does not name them bars them: nobody can approve what nobody answers for (``with_barriers``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from callgate.types import Actor, Front, Principal

from .language import Rule
from .patterns import Names, ToolGlobs

ANONYMOUS = "anonymous"
ANY_FRONT = Front()


class Matcher:
    """A rule made ready for asking."""

    __slots__ = ("_chains", "_claims", "_doors", "_rule", "_tenants", "_to", "_tools")

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._tools = ToolGlobs(rule.tools)
        self._to = _names(rule.to, ("subjects", "roles", "groups", "agents", "issuers"))
        claims = rule.to.claims if rule.to is not None else {}
        self._claims = {name: Names(map(_text, values)) for name, values in claims.items()}
        self._doors = Names(rule.virtual_servers) if rule.virtual_servers else None
        self._tenants = Names(rule.tenants) if rule.tenants else None
        self._chains = tuple(
            (clause, _names(part, ("subjects", "roles")))
            for clause in ("chain_any", "chain_all", "chain_first")
            if (part := getattr(rule, clause)) is not None
        )

    def tool(self, server: str, tool: str) -> bool:
        return self._tools.match(server, tool)

    def caller(self, who: Principal, front: Front = ANY_FRONT) -> str:
        """The first clause that does not fit ``who`` (``to``, ``to.roles``, ``chain_any`` …), or ``""``."""
        if self._rule.barrier and who.via != ANONYMOUS:
            return "to"
        if who.via == ANONYMOUS and not self._rule.restricts and not self.welcomes_strangers():
            return "to"
        if self._doors is not None:
            kind, _, name = front.door.partition(":")
            if kind != "virtual" or not self._doors.match(name):
                return "virtual_servers"
        if self._tenants is not None and not self._tenants.match(who.tenant):
            return "tenants"
        for field, names in self._to.items():
            if not names.match_any(self._values(field, who)):
                return f"to.{field}"
        for claim, names in self._claims.items():
            if not names.match_any(claimed(who, claim)):
                return "to.claims"
        return next((clause for clause, names in self._chains if not self._chain(clause, names, who)), "")

    def welcomes_strangers(self) -> bool:
        subjects = self._to.get("subjects")
        return subjects is not None and subjects.names(ANONYMOUS)

    def _chain(self, clause: str, names: Mapping[str, Names], who: Principal) -> bool:
        if clause == "chain_any":
            return any(_fits(actor, names) for actor in self._actors(who))
        if clause == "chain_all":
            return all(_fits(actor, names) for actor in actors(who))
        return _fits(actors(who)[0], names)

    def _actors(self, who: Principal) -> tuple[Actor, ...]:
        """What a foreign token says of its actors counts against the caller only (rule DEL-10)."""
        return (*actors(who), *who.asserted) if self._rule.restricts else actors(who)

    def _values(self, field: str, who: Principal) -> Iterable[str]:
        if field == "agents" and who.asserted and self._rule.restricts:
            return (actors(who)[-1].subject, who.asserted[-1].subject)
        return _values(field, who)


def with_barriers(rules: Iterable[Rule]) -> Iterator[Rule]:
    """The rules, each ask rule followed by what it means for anonymous callers whom it does not name: a denial."""
    for rule in rules:
        yield rule
        if (barrier := barrier_of(rule)) is not None:
            yield barrier


def barrier_of(rule: Rule) -> Rule | None:
    """The denial, under the same id, that an ask rule is for anonymous callers; ``None`` where there is none."""
    if rule.effect != "ask" or Matcher(rule).welcomes_strangers():
        return None
    why = "it asks for an approval, which an anonymous caller cannot be given"
    return msgspec.structs.replace(rule, effect="deny", barrier=True, reason=why)


def actors(who: Principal) -> tuple[Actor, ...]:
    """The delegation chain, oldest first; without one, the caller alone."""
    return who.chain or (Actor(who.subject, who.issuer, who.roles),)


def claimed(who: Principal, claim: str) -> list[str]:
    """The values of a claim as patterns see them: texts, numbers, `true` and `false`, alone or in a list.

    >>> claimed(Principal("a", "k", claims={"email_verified": True, "teams": ["x", 7, {}]}), "teams")
    ['x', '7']
    """
    value = who.claims.get(claim)
    values = value if isinstance(value, (list, tuple)) else (value,)
    return [_text(each) for each in values if isinstance(each, (str, bool, int))]


def _text(value: str | bool | int) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _fits(actor: Actor, names: Mapping[str, Names]) -> bool:
    values = {"subjects": (actor.subject,), "roles": actor.roles}
    return all(each.match_any(values[field]) for field, each in names.items())


def _names(part: object, fields: Iterable[str]) -> Mapping[str, Names]:
    return {field: Names(patterns) for field in fields if (patterns := getattr(part, field, ()))}


def _values(field: str, who: Principal) -> Iterable[str]:
    if field == "subjects":
        return (who.subject,)
    if field == "agents":
        return (actors(who)[-1].subject,)
    if field == "issuers":
        return (who.issuer,)
    return who.roles if field == "roles" else who.groups
