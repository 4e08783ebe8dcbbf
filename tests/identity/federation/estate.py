"""An office whose agents are workloads: pods, jobs of a CI system, and workloads of a SPIFFE trust domain."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.fuzz.raw import Reply
from tests.gateway.upstreams import Modern, Script, http, serve, text
from tests.identity.oauth.office import RULES, Office, agent
from tests.identity.provider import Clock, Provider, ec_key
from tests.servers.issuer_http import IssuerServer

BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
POD = "system:serviceaccount:team:planner"
JOB = "repo:org/app:ref:refs/heads/main"
BRANCHES = "repo:org/app:ref:refs/heads/*"
ENDPOINTS = ["/mcp", "/mcp/*", "/servers/*/mcp"]


def workload(issuer: str, subject: str, **claims: str) -> dict[str, Any]:
    return {"issuer": issuer, "subject": subject, **({"claims": claims} if claims else {})}


def agents() -> dict[str, Any]:
    def one(role: str, *workloads: dict[str, Any], **more: Any) -> dict[str, Any]:
        scopes = ["read", "write"]
        return {"roles": [role], "scopes": scopes, "audiences": ENDPOINTS, "workloads": list(workloads), **more}

    return {
        "pod": one("planner", workload("cluster", POD)),
        "team": one("coder", workload("cluster", "system:serviceaccount:crew:*")),
        "job": one("coder", workload("ci", BRANCHES, repository="org/app", ref_protected="true")),
        "twin-a": one("coder", workload("cluster", "system:serviceaccount:team:twin")),
        "twin-b": one("coder", workload("cluster", "system:serviceaccount:team:*win")),
        "retired": one("coder", workload("cluster", "system:serviceaccount:team:retired"), status="suspended"),
        "both": {**agent("both"), "workloads": [workload("cluster", "system:serviceaccount:team:both")]},
        "secretive": agent("secretive", scopes=["read", "write"]),
    }  # fmt: skip


class Estate(Office):
    """``cluster`` and ``ci`` are the issuers; ``more`` of ``identity`` is added to what there is."""

    cluster: IssuerServer
    ci: IssuerServer

    def identity(self, **more: Any) -> dict[str, Any]:
        federation = {"cluster": {"issuer": self.cluster.issuer}, "ci": {"issuer": self.ci.issuer}}
        jwt = [{"issuer": self.idp.issuer, "audience": "callgate", "jwks_uri": self.idp.jwks_uri}]
        base = {"jwt": jwt, "oauth": {}, "federation": federation, "agents": agents()}
        for key, value in more.items():
            base[key] = {**base.get(key, {}), **value} if isinstance(value, dict) else value  # type: ignore[dict-item]
        return base

    def pod(self, subject: str = POD, header: dict[str, Any] | None = None, /, **changes: Any) -> str:
        """The token of a pod for the token service."""
        return self.cluster.token(subject, changes.pop("aud", self.base), header, **changes)

    def job(self, subject: str = JOB, **changes: Any) -> str:
        claims = {"repository": "org/app", "ref_protected": "true", **changes}
        return self.ci.token(subject, claims.pop("aud", self.base), **claims)

    async def bear(self, assertion: str, client: str = "", **fields: str) -> Reply:
        return await self.post({"grant_type": BEARER, "assertion": assertion, **fields}, client=client)


@asynccontextmanager
async def estate(folder: Path, identity: Mapping[str, Any] | None = None, **settings: Any) -> AsyncIterator[Estate]:
    """An estate whose only server ``u`` has the tools ``hello`` and ``delete_all``."""
    script = Script({"hello": text("hello"), "delete_all": text("gone")})
    async with (
        Provider(Clock(), ec_key("first")) as idp,
        IssuerServer() as cluster,
        IssuerServer() as ci,
        serve(Modern(script)) as server,
    ):
        stand = Estate(folder, {"u": http(server, "modern")})
        stand.idp, stand.cluster, stand.ci = idp, cluster, ci
        policy = {"version": 1, "default": "deny", "rules": RULES}
        virtual = {"coder": {"tools": ["u/*"]}}
        whole = stand.identity(**(identity or {}))
        stand.write(identity=whole, policy=policy, virtual_servers=virtual, **settings)
        async with stand:
            yield stand
