"""Whom and what a rule is for: everything but its condition.

Three rules of reading that the language page states:

* The current actor is the last of the delegation chain. Who comes without a chain acts for itself, so ``agents``
  and ``chain_any`` look at the caller then.
* Actors that only a foreign token names (``asserted``) are seen by deny rules, by no other.
* An anonymous caller is matched by a deny rule like anybody else, but by an allow or ask rule only when
  ``to.subjects`` names ``anonymous`` itself: neither a missing ``to`` nor a wildcard lets strangers in. An ask rule
  that does not name them bars them: nobody can approve what nobody answers for (``with_barriers``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from callgate.types import Actor, Principal

from .language import Rule
from .patterns import Names, ToolGlobs

ANONYMOUS = "anonymous"


class Matcher:
    """A rule made ready for asking."""

    __slots__ = ("_chain", "_rule", "_to", "_tools")

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._tools = ToolGlobs(rule.tools)
        self._to = _names(rule.to, ("subjects", "roles", "groups", "agents", "issuers"))
        self._chain = _names(rule.chain_any, ("subjects", "roles"))

    def tool(self, server: str, tool: str) -> bool:
        return self._tools.match(server, tool)

    def caller(self, who: Principal) -> str:
        """The first clause that does not fit ``who`` (``to``, ``to.roles``, ``chain_any`` …), or ``""``."""
        if self._rule.barrier and who.via != ANONYMOUS:
            return "to"
        if who.via == ANONYMOUS and self._rule.effect != "deny" and not self.welcomes_strangers():
            return "to"
        for field, names in self._to.items():
            if not names.match_any(self._values(field, who)):
                return f"to.{field}"
        if self._chain and not any(self._fits(actor) for actor in self._actors(who)):
            return "chain_any"
        return ""

    def welcomes_strangers(self) -> bool:
        subjects = self._to.get("subjects")
        return subjects is not None and subjects.names(ANONYMOUS)

    def _actors(self, who: Principal) -> tuple[Actor, ...]:
        """What a foreign token says of its actors counts against the caller only (rule DEL-10)."""
        return (*actors(who), *who.asserted) if self._rule.effect == "deny" else actors(who)

    def _values(self, field: str, who: Principal) -> Iterable[str]:
        if field == "agents" and who.asserted and self._rule.effect == "deny":
            return (actors(who)[-1].subject, who.asserted[-1].subject)
        return _values(field, who)

    def _fits(self, actor: Actor) -> bool:
        values = {"subjects": (actor.subject,), "roles": actor.roles}
        return all(names.match_any(values[field]) for field, names in self._chain.items())


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
