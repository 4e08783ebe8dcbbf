"""The clients of the configuration: the applications, and what must agree among all that it names."""

from __future__ import annotations

from collections.abc import Callable

from callgate.config import Identity, OAuth
from callgate.errors import ConfigError, nearest

from .agents import Agents
from .app_checks import check_apps
from .apps import OWN_APPS, Apps
from .clients import check_proof
from .documents import Documents
from .registration import Registrations
from .surroundings import Surroundings


def apps_of(identity: Identity, around: Surroundings, clock: Callable[[], float]) -> Apps:
    """The applications; without identity providers nobody can sign in, so there are none but those written down."""
    oauth = identity.oauth or OAuth()
    hosts = oauth.client_documents if identity.providers else ()
    documents = Documents(hosts, around, clock) if hosts else None
    registrations = Registrations(around.hold, clock) if oauth.registration and identity.providers else None
    own = OWN_APPS if identity.providers else {}
    return Apps({**own, **oauth.apps}, documents, registrations)


def issuers_of(identity: Identity) -> list[str]:
    """Whose users there are."""
    return [*(each.issuer for each in identity.jwt), *(each.issuer for each in identity.providers.values())]


def check_clients(identity: Identity, agents: Agents) -> None:
    """Raises ConfigError for what names nobody, or could be two."""
    issuers = issuers_of(identity)
    if identity.oauth is not None and identity.oauth.issuer in issuers:
        raise ConfigError(
            "The token service has the issuer of an entry of `identity.jwt` or `identity.providers`.",
            hint="Give it its own.",
        )
    names = [each.name for each in agents]
    check_apps(identity.oauth or OAuth(), names)
    for agent in agents:
        check_proof("agent", agent.name, agent.config)
        for known, wanted, key in (
            (names, agent.config.may_delegate_to, "may_delegate_to"),
            (issuers, agent.config.acts_for, "acts_for"),
        ):
            for name in wanted:
                if name not in known:
                    found = nearest(name, known)
                    hint = f"Did you mean `{found}`?" if found else "Name one that is configured."
                    raise ConfigError(
                        f"`{key}` of the agent `{agent.name}` names `{name}`, which is not there.", hint=hint
                    )
