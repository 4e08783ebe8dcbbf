"""What a token of ours must say for a call: scopes by tool, and the challenge to a client whose token lacks one.

Scopes bound what was asked for, policy says who may do what: a call needs both (rules RS-4, RS-5). Tokens of other
issuers, keys and anonymous callers have no scopes that we gave, so policy alone judges them. Lists obey policy only: a
client that does not see a tool cannot ask for the scope that it needs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from callgate.config import Identity, OAuth
from callgate.errors import ConfigError, InsufficientScope, nearest
from callgate.gateway.challenge import WELL_KNOWN, path_of
from callgate.policy import Bounded, ToolIndex, tool_flaw
from callgate.types import Call, Tool, Verdict

if TYPE_CHECKING:
    from callgate.gateway.house import House

#: RFC 6749, section 3.3.
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,128}")
#: Answers that are remembered, of tokens' scopes and tools together.
REMEMBERED = 4_096
#: Says something to the token service and nothing about a call (rule RS-6).
OFFLINE = "offline_access"


class ScopeRules:
    """The rules of one configuration. Raises ConfigError for what cannot be meant."""

    def __init__(self, identity: Identity) -> None:
        oauth = identity.oauth or OAuth()
        needs = oauth.required_scopes
        self.any = bool(needs)
        self._broader = oauth.scope_includes
        if self.any or self._broader:
            _check(identity, oauth, self.covered)
        self._index = ToolIndex([glob] for glob in needs)
        self._needs = tuple(needs.values())
        everywhere = set(needs.get("*/*", ()))
        self._special = {scope for several in needs.values() for scope in several} - everywhere
        self._lacking: Bounded[tuple[str, str, str], tuple[str, ...]] = Bounded(REMEMBERED)

    def covered(self, scopes: Iterable[str]) -> frozenset[str]:
        """Everything that these scopes stand for: themselves, and what they include at any depth (rule RS-5)."""
        found: set[str] = set()
        waiting = list(scopes)
        while waiting:
            scope = waiting.pop()
            if scope not in found:
                found.add(scope)
                waiting.extend(self._broader.get(scope, ()))
        return frozenset(found)

    def required(self, tool: Tool) -> tuple[str, ...]:
        """The scopes of all globs that match."""
        mask = self._index.mask(tool.server, tool.name)
        found = (scope for at, several in enumerate(self._needs) if mask >> at & 1 for scope in several)
        return tuple(dict.fromkeys(found))

    def lacking(self, scope: str, tool: Tool) -> tuple[str, ...]:
        """Nothing when a token with this ``scope`` claim is enough for the tool; else all scopes to ask for: those that
        it has, for the new token replaces it, and those that the tool needs.
        """
        key = (scope, tool.server, tool.name)
        known = self._lacking.get(key)
        if known is None:
            held, required = scope.split(), self.required(tool)
            enough = self.covered(held).issuperset(required)
            known = () if enough else tuple(dict.fromkeys(each for each in (*held, *required) if each != OFFLINE))
            self._lacking.put(key, known)
        return known

    def first(self, scopes: Iterable[str]) -> tuple[str, ...]:
        """Those that a client should begin with: not those that only some tools need, nor broader ones. The rest is
        asked for when a call needs it.
        """
        return tuple(scope for scope in scopes if not self._special & self.covered([scope]))


def check_scopes(call: Call, house: House) -> None:
    """Raise InsufficientScope when a call came with a token of ours that does not have the scopes for it."""
    rules, who = house.scopes, call.principal
    wanted = rules.lacking(str(who.claims.get("scope", "")), call.tool) if rules.any and who.audience else ()
    if wanted:
        raise _insufficient(call, wanted, house)


def wanting(call: Call, verdict: Verdict, house: House) -> InsufficientScope:
    """The refusal of a call that a rule would allow with other scopes: those of the token, and those (rule POL-4)."""
    held = str(call.principal.claims.get("scope", "")).split()
    wanted = dict.fromkeys(each for each in (*held, *verdict.scopes) if each != OFFLINE)
    error = _insufficient(call, tuple(wanted), house)
    error.verdict = verdict
    return error


def _insufficient(call: Call, wanted: tuple[str, ...], house: House) -> InsufficientScope:
    said = " ".join(wanted)
    error = InsufficientScope(
        "The token does not have all scopes that this call needs.",
        hint=f"Get one with the scopes `{said}`.",
        data={"kind": "scope", "scope": said},
    )
    error.challenge = _challenge(call.principal.claims, said, call.front.door, house)
    return error


def enough(call: Call, house: House) -> bool:
    """Whether scopes do not stand in the way of what was permitted before."""
    try:
        check_scopes(call, house)
    except InsufficientScope:
        return False
    return True


def _challenge(claims: Mapping[str, object], scope: str, door: str, house: House) -> str:
    """The ``WWW-Authenticate`` of the 403, with all scopes in one challenge (RFC 6750, section 3; RFC 9449, 7.1)."""
    confirmed = claims.get("cnf")
    scheme = "DPoP" if isinstance(confirmed, Mapping) and "jkt" in confirmed else "Bearer"
    return (
        f'{scheme} realm="callgate", error="insufficient_scope", scope="{scope}", '
        f'resource_metadata="{house.public_url}{WELL_KNOWN}{path_of(door)}"'
    )


def _check(identity: Identity, oauth: OAuth, covered: Callable[[Iterable[str]], frozenset[str]]) -> None:
    """Every scope that is needed must be one that somebody can get: a mistyped one would close the tool for all."""
    rules = {**oauth.required_scopes, **oauth.scope_includes}
    for scope in {*oauth.scope_includes, *(each for several in rules.values() for each in several)}:
        if not _SCOPE.fullmatch(scope):
            raise ConfigError(f"`{scope}` is not a scope.", hint="A scope has no spaces, quotes or backslashes.")
    for glob, several in oauth.required_scopes.items():
        if wrong := tool_flaw(glob):
            raise ConfigError(f"`{glob}` in `oauth.required_scopes` is no glob over `server/tool`: {wrong}.")
        if not several:
            raise ConfigError(f"`{glob}` in `oauth.required_scopes` names no scope.")
    known = _given(identity, oauth)
    reachable = covered(known)
    for scope in (*oauth.scope_includes, *(each for several in oauth.required_scopes.values() for each in several)):
        if scope not in reachable:
            near = nearest(scope, reachable)
            hint = f"Did you mean `{near}`?" if near else "Name it in `oauth.scopes`, or among the scopes of an agent."
            raise ConfigError(f"Nobody can have the scope `{scope}` of `identity.oauth`.", hint=hint)


def _given(identity: Identity, oauth: OAuth) -> set[str]:
    """The scopes that tokens may have."""
    owned = [each.scopes for each in identity.agents.values()] + [each.scopes or () for each in oauth.apps.values()]
    return {*oauth.scopes, *(scope for scopes in owned for scope in scopes)}
