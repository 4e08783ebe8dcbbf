"""Whose grant a call uses: that of its user, and who may use it for the user (rules SEC-5 and SEC-9)."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from callgate.errors import Denied
from callgate.identity.keys import principal_key
from callgate.identity.oauth.agents import PREFIX
from callgate.types import Principal

APP = "client:"


def user_of(who: Principal) -> str:
    """The key of the user, whoever acts for them: a principal's own key is another one for each app and agent."""
    return principal_key(who.issuer, who.subject, who.tenant)


def agents_of(who: Principal) -> tuple[str, ...]:
    """The agents between the user and this call, oldest first; an application of ours is none. Whoever only somebody
    else's token names counts too, whatever its name is: they can only take rights away.
    """
    ours = (each.subject for each in who.chain if not each.subject.startswith(APP))
    return (*ours, *(each.subject for each in who.asserted))


def asked_by(who: Principal) -> tuple[str, ...]:
    """Apps and agents, for people to read."""
    return tuple(each.subject.removeprefix(APP) for each in who.chain)


def check_through(who: Principal, globs: Iterable[str]) -> None:
    """Raise Denied where an agent acts for the user that may not use the user's grant."""
    for agent in agents_of(who):
        name = agent.removeprefix(PREFIX)
        if not any(fnmatchcase(name, glob) or fnmatchcase(agent, glob) for glob in globs):
            raise Denied(
                "is not called with the user's own access through this agent",
                hint="The operator of callgate lists the agents that may do so in `auth.through`.",
                data={"kind": "identity"},
            )
