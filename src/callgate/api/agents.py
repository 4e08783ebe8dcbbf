"""The agents of the token service, and revocation: what agents, people and applications hold ends at once."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from callgate.api.reader import Reader
from callgate.api.shapes import Agents, AgentShown, PersonRevoked, Revoked, WorkloadShown
from callgate.audit import Record, new_id
from callgate.config import Agent
from callgate.errors import CallgateError, NotFound, Overloaded, UsageError, nearest
from callgate.identity import proofs
from callgate.types import Front

if TYPE_CHECKING:
    from callgate.gateway import House


def agents(house: House, reader: Reader) -> Agents:
    """For readers of everything."""
    reader.only_if_everything()
    return Agents([_shown(house, name, each) for name, each in house.settings.identity.agents.items()])


def agent(house: House, reader: Reader, name: str) -> AgentShown:
    reader.only_if_everything()
    return _shown(house, name, _find(house, name))


async def revoke_agent(house: House, reader: Reader, name: str, reason: str) -> Revoked:
    """End all tokens until now with the agent in their chain. It may get new ones: suspending it is for the
    configuration to say.
    """
    reader.only_if_admin()
    _find(house, name)
    own = house.recogniser.own
    if own is None:
        raise UsageError("There is no token service, so agents hold no tokens.", hint="Its key is `identity.oauth`.")
    return await _revoke(house, reader, own.issuer, f"agent:{name}", reason)


async def revoke_person(house: House, reader: Reader, asked: PersonRevoked) -> Revoked:
    """End everything until now that somebody, or an agent or application in the person's name, holds: tokens, refresh
    tokens, browser sessions, connections to servers.
    """
    reader.only_if_admin()
    identity = house.settings.identity
    known = [each.issuer for each in identity.jwt] + [each.issuer for each in identity.providers.values()]
    if asked.issuer not in known:
        close = nearest(asked.issuer, known)
        hint = f"Did you mean `{close}`?" if close else "Issuers: those of `identity.jwt` and `identity.providers`."
        raise NotFound("There is no such issuer.", hint=hint)
    if not asked.subject:
        raise UsageError("The subject is empty.", hint="It is the `subject` of the person's calls in the audit log.")
    return await _revoke(house, reader, asked.issuer, asked.subject, asked.reason)


async def _revoke(house: House, reader: Reader, issuer: str, subject: str, reason: str) -> Revoked:
    if house.strict and house.journal.full:
        raise Overloaded("The audit log cannot take more records.", hint="See `problems` of the status.")
    now = datetime.now(UTC)
    told: dict[str, Any] = {"issuer": issuer, "subject": subject} | ({"why": reason} if reason else {})
    entry = Record(new_id(), reader.who, Front(), "admin/revoke", "", "", told, "ok")
    try:
        await house.recogniser.offboard(issuer, subject)
    except OSError as error:
        failed = f"the revocation could not be written ({error.strerror})"
        house.journal.put(msgspec.structs.replace(entry, outcome="failed", reason=failed))
        hint = "It counts until the gateway is restarted. Make room on the disk, and revoke again."
        raise CallgateError(f"{failed.capitalize()}.", hint=hint) from None
    await house.journal.keep(entry)
    return Revoked(subject, issuer, now.strftime("%Y-%m-%dT%H:%M:%SZ"))


def _find(house: House, name: str) -> Agent:
    known = house.settings.identity.agents
    found = known.get(name)
    if found is None:
        close = nearest(name, known)
        raise NotFound(f"There is no agent {name[:64]!r}.", hint=f"Did you mean `{close}`?" if close else "")
    return found


def _shown(house: House, name: str, config: Agent) -> AgentShown:
    own = house.recogniser.own
    seen = own.last_issued.get(name) if own is not None else None
    return AgentShown(
        name=name,
        subject=f"agent:{name}",
        owner=config.owner,
        status=config.status,
        roles=config.roles,
        proofs=proofs(config),
        workloads=[WorkloadShown(each.issuer, each.subject, each.claims) for each in config.workloads],
        audiences=config.audiences,
        scopes=config.scopes,
        acts_for=config.acts_for,
        may_delegate_to=config.may_delegate_to,
        last_token=datetime.fromtimestamp(seen, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if seen is not None else "",
    )
