"""Every operation of the admin API, once: routes and the OpenAPI document are both made of this table."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from callgate.api import agents, catalog, secrets, servers, shapes, usage
from callgate.api.calls import Log
from callgate.api.explain import explain
from callgate.api.openapi import document
from callgate.api.reader import Reader

if TYPE_CHECKING:
    from callgate.gateway import House


class Question(msgspec.Struct):
    """One request, recognised and taken apart. ``body`` is what ``Operation.takes`` says, or ``None``."""

    house: House
    log: Log
    reader: Reader
    urls: shapes.Urls
    started: float
    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Any = None


class Query(msgspec.Struct, frozen=True):
    """One query parameter."""

    name: str
    says: str


class Operation(msgspec.Struct, frozen=True):
    """One operation; ``name`` is its ``operationId``, ``gives`` and ``takes`` are shapes (``dict``: any object)."""

    method: str
    path: str
    name: str
    says: str
    gives: type
    answer: Callable[[Question], Awaitable[Any]]
    takes: type | None = None
    query: tuple[Query, ...] = ()
    refusals: tuple[int, ...] = ()


async def _status(asked: Question) -> shapes.Status:
    return servers.status(asked.house, asked.reader, asked.urls, asked.started)


async def _servers(asked: Question) -> shapes.Servers:
    return servers.servers(asked.house, asked.reader)


async def _tools(asked: Question) -> shapes.Tools:
    return servers.tools(asked.house, asked.reader, asked.query)


async def _calls(asked: Question) -> shapes.Calls:
    return await asked.log.find(asked.reader, asked.query)


async def _call(asked: Question) -> shapes.CallShown:
    return await asked.log.show(asked.reader, asked.path["id"])


async def _why(asked: Question) -> shapes.Why:
    return await asked.log.why(asked.reader, asked.path["id"])


async def _explain(asked: Question) -> shapes.Explained:
    return await explain(asked.house, asked.reader, asked.body)


async def _secrets(asked: Question) -> shapes.Secrets:
    return await secrets.secrets(asked.house, asked.reader)


async def _usage(asked: Question) -> usage.Usage:
    return await usage.usage(asked.house, asked.reader, asked.query)


async def _quotas(asked: Question) -> usage.QuotasShown:
    return usage.quotas(asked.house, asked.reader)


async def _agents(asked: Question) -> shapes.Agents:
    return agents.agents(asked.house, asked.reader)


async def _agent(asked: Question) -> shapes.AgentShown:
    return agents.agent(asked.house, asked.reader, asked.path["name"])


async def _revoke_agent(asked: Question) -> shapes.Revoked:
    return await agents.revoke_agent(asked.house, asked.reader, asked.path["name"], asked.body.reason)


async def _revoke_person(asked: Question) -> shapes.Revoked:
    return await agents.revoke_person(asked.house, asked.reader, asked.body)


async def _pending(asked: Question) -> shapes.CatalogPending:
    return catalog.pending(asked.house, asked.reader, asked.query)


async def _diff(asked: Question) -> shapes.CatalogDiff:
    return catalog.diff(asked.house, asked.reader, asked.query)


async def _approve(asked: Question) -> shapes.CatalogDecided:
    return await catalog.decide(asked.house, asked.reader, asked.body, approve=True)


async def _reject(asked: Question) -> shapes.CatalogDecided:
    return await catalog.decide(asked.house, asked.reader, asked.body, approve=False)


async def _openapi(asked: Question) -> dict[str, Any]:
    return document(OPERATIONS)


_FILTERS = (
    Query("subject", "Exactly this caller."),
    Query("server", "Exactly this server."),
    Query("tool", "A glob over `server/tool`, or over the tool's name when it has no slash."),
    Query("outcome", "Of ok, tool_error, denied, refused, failed, timeout, cancelled, gap; several with commas."),
    Query("since", "An age (`10m`, `2h`, `7d`) or a time (ISO 8601, UTC)."),
    Query("until", "As `since`: not younger than this."),
    Query("before_id", "A call id: only older calls. For the next page."),
    Query("after_id", "A call id: only what was written after it, in that order. `0` means from the beginning."),
    Query("limit", "At most so many, 1 to 10000; 100 if not given."),
    Query("tenant", "Your own tenant; another one is refused."),
)

OPERATIONS: tuple[Operation, ...] = (
    Operation("GET", "/api/v1/status", "getStatus", "How the gateway is doing.", shapes.Status, _status),
    Operation("GET", "/api/v1/servers", "listServers", "The upstream servers, their state.", shapes.Servers, _servers),
    Operation(
        "GET", "/api/v1/tools", "listTools", "The tools that you may see.", shapes.Tools, _tools,
        query=(
            Query("server", "Only the tools of this server."),
            Query("door", "Only what this door shows: `virtual:NAME` or `server:NAME`."),
        ),
        refusals=(400, 404),
    ),
    Operation(
        "GET", "/api/v1/calls", "listCalls", "Search the audit log, newest first.", shapes.Calls, _calls,
        query=_FILTERS, refusals=(400, 403, 503),
    ),
    Operation(
        "GET", "/api/v1/calls/{id}", "getCall", "One audit record.", shapes.CallShown, _call, refusals=(400, 404),
    ),
    Operation(
        "GET", "/api/v1/calls/{id}/why", "explainCall", "Why a call was allowed or denied.", shapes.Why, _why,
        refusals=(400, 404),
    ),
    Operation(
        "POST", "/api/v1/policy/explain", "explainPolicy", "What the policy says of a call that nobody has made.",
        shapes.Explained, _explain, takes=shapes.ExplainQuestion, refusals=(400, 403, 404, 413, 415),
    ),
    Operation(
        "GET", "/api/v1/secrets", "listSecrets", "The names of the stored secrets and who uses them; never a value.",
        shapes.Secrets, _secrets, refusals=(403,),
    ),
    Operation(
        "GET", "/api/v1/usage", "getUsage", "What was used, by the audit log.", usage.Usage, _usage,
        query=(
            Query("by", "`subject` (if not given), `agent`, `server` or `tool`."),
            Query("since", "An age (`10m`, `2h`, `7d`) or a time (ISO 8601, UTC); a day if not given."),
            Query("until", "As `since`: not younger than this."),
        ),
        refusals=(400, 403, 503),
    ),
    Operation(
        "GET", "/api/v1/quotas", "listQuotas", "The quotas, and what is used of them now.", usage.QuotasShown, _quotas,
        refusals=(403,),
    ),
    Operation(
        "GET", "/api/v1/agents", "listAgents", "The agents of the token service.", shapes.Agents, _agents,
        refusals=(403,),
    ),
    Operation(
        "GET", "/api/v1/agents/{name}", "getAgent", "One agent.", shapes.AgentShown, _agent, refusals=(403, 404),
    ),
    Operation(
        "POST", "/api/v1/agents/{name}/revoke", "revokeAgent",
        "End all tokens until now that have the agent in their chain. It may get new ones.",
        shapes.Revoked, _revoke_agent, takes=shapes.AgentRevoked, refusals=(400, 403, 404, 413, 415, 503),
    ),
    Operation(
        "POST", "/api/v1/people/revoke", "revokePerson",
        "End everything that a person, and agents and applications in the person's name, hold until now.",
        shapes.Revoked, _revoke_person, takes=shapes.PersonRevoked, refusals=(400, 403, 404, 413, 415, 503),
    ),
    Operation(
        "GET", "/api/v1/catalog/pending", "listPending", "Definitions that wait for an operator, and what was found.",
        shapes.CatalogPending, _pending, query=(Query("server", "Only those of this server."),), refusals=(400, 403),
    ),
    Operation(
        "GET", "/api/v1/catalog/diff", "diffDefinition", "How a definition differs from the approved one.",
        shapes.CatalogDiff, _diff,
        query=(Query("name", "`server/tool`."), Query("digest", "How the digest of the definition begins.")),
        refusals=(400, 403, 404),
    ),
    Operation(
        "POST", "/api/v1/catalog/approve", "approveDefinition", "Approve definitions: they are listed and callable.",
        shapes.CatalogDecided, _approve, takes=shapes.CatalogDecision, refusals=(400, 403, 404, 413, 415, 503),
    ),
    Operation(
        "POST", "/api/v1/catalog/reject", "rejectDefinition", "Reject definitions: they stay hidden and wait no more.",
        shapes.CatalogDecided, _reject, takes=shapes.CatalogDecision, refusals=(400, 403, 404, 413, 415, 503),
    ),
    Operation("GET", "/api/v1/openapi.json", "getOpenApi", "This document.", dict, _openapi),
)  # fmt: skip
