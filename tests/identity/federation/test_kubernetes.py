"""A Kubernetes cluster: its API server has authorities of its own, and shows its keys to whoever has a token."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from callgate.config import Agent, Federation, Identity, Workload
from callgate.identity import Agents, Refused
from callgate.identity.federation.sources import discovered
from callgate.identity.federation.workloads import Workloads
from tests.identity.federation.certificates import Authority
from tests.identity.federation.estate import POD
from tests.identity.provider import Clock, ec_key, fetch
from tests.servers.issuer_http import DISCOVERY, IssuerServer

pytestmark = pytest.mark.anyio
US = "https://mcp.example.org"
JWKS = "/openid/v1/jwks"
TOKEN = "the-token-of-callgates-own-pod"
OURS = Authority("kubernetes")


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[IssuerServer]:
    (tmp_path / "ca.crt").write_bytes(OURS.pem)
    (tmp_path / "token").write_text(TOKEN + "\n")
    async with IssuerServer(context=OURS.server(tmp_path), bearer=TOKEN) as server:
        yield server


def workloads(
    folder: Path,
    issuer: str,
    claims: dict[str, str] | None = None,
    clock: Callable[[], float] = time.time,
    **changes: Any,
) -> Workloads:
    entry = {"ca_file": str(folder / "ca.crt"), "token_file": str(folder / "token"), **changes}
    federation = {"cluster": Federation(**{"issuer": issuer, **entry})}
    known = Workload(issuer="cluster", subject=POD, claims=claims or {})
    identity = Identity(federation=federation, agents={"pod": Agent(workloads=(known,))})
    return Workloads(identity, Agents(identity.agents), fetch, fetch, clock)


async def holds(made: Workloads, token: str) -> bool:
    try:
        await made.prove(token.encode(), (US,))
    except Refused:
        return False
    return True


@pytest.mark.key("identity.federation.ca_file", "identity.federation.token_file")
async def test_discovery_with_the_clusters_authorities_and_our_token(cluster: IssuerServer, tmp_path: Path) -> None:
    made = workloads(tmp_path, cluster.issuer)
    assert await holds(made, cluster.token(POD, [US]))
    assert cluster.asked == [DISCOVERY, JWKS]
    await made.aclose()


async def test_without_either_there_are_no_keys(cluster: IssuerServer, tmp_path: Path) -> None:
    (tmp_path / "other.crt").write_bytes(Authority("somebody else").pem)
    (tmp_path / "stale").write_text("an-old-token")
    for changes in (
        {"token_file": None}, {"token_file": str(tmp_path / "stale")}, {"token_file": str(tmp_path / "nothing")},
        {"ca_file": None}, {"ca_file": str(tmp_path / "other.crt")},
    ):  # fmt: skip
        made = workloads(tmp_path, cluster.issuer, **changes)
        assert not await holds(made, cluster.token(POD, [US]))
        await made.aclose()


async def test_the_token_is_read_anew(cluster: IssuerServer, tmp_path: Path) -> None:
    clock = Clock()
    made = workloads(tmp_path, cluster.issuer, clock=clock)
    assert await holds(made, cluster.token(POD, [US]))
    cluster.bearer = "the-next-token"
    (tmp_path / "token").write_text("the-next-token")
    cluster.key = ec_key("the next key of kubernetes")
    cluster.keys.append(cluster.key)
    assert not await holds(made, cluster.token(POD, [US]))
    clock.now += 31  # an unknown key has the keys fetched again, but not more often
    assert await holds(made, cluster.token(POD, [US]))
    assert cluster.asked == [DISCOVERY, JWKS] * 2
    await made.aclose()


async def test_the_legacy_issuer_with_its_keys_at_a_url(cluster: IssuerServer, tmp_path: Path) -> None:
    legacy = "https://kubernetes.default.svc"
    made = workloads(tmp_path, legacy, jwks_uri=f"{cluster.issuer}{JWKS}")
    assert await holds(made, cluster.token(POD, [US], iss=legacy))
    assert not await holds(made, cluster.token(POD, [US]))
    assert cluster.asked == [JWKS]
    await made.aclose()


async def test_a_token_of_a_secret_never_expires_and_is_refused(cluster: IssuerServer, tmp_path: Path) -> None:
    made = workloads(tmp_path, "kubernetes/serviceaccount", jwks_uri=f"{cluster.issuer}{JWKS}")
    assert not await holds(made, cluster.token(POD, None, iss="kubernetes/serviceaccount", exp=None))
    assert not await holds(made, cluster.token(POD, [US], iss="kubernetes/serviceaccount", exp=None))
    await made.aclose()


async def test_a_pod_is_known_by_what_it_was_bound_to(cluster: IssuerServer, tmp_path: Path) -> None:
    made = workloads(
        tmp_path, cluster.issuer, {"kubernetes.io.serviceaccount.uid": "42", "kubernetes.io.namespace": "team"}
    )
    bound = {"namespace": "team", "serviceaccount": {"name": "planner", "uid": "42"}, "pod": {"name": "planner-0"}}
    assert await holds(made, cluster.token(POD, [US], **{"kubernetes.io": bound}))
    for other in (
        {**bound, "serviceaccount": {"uid": "43"}},
        {**bound, "namespace": "x"},
        {"serviceaccount": "42"},
        "x",
        None,
    ):
        assert not await holds(made, cluster.token(POD, [US], **{"kubernetes.io": other}))
    await made.aclose()


async def test_our_token_goes_only_where_it_should(cluster: IssuerServer, tmp_path: Path) -> None:
    """The document leads to another server: certified by the cluster it is the cluster's, otherwise a stranger."""
    async with IssuerServer(cluster.key, OURS.server(tmp_path), TOKEN) as proved:
        cluster.document = {"jwks_uri": f"{proved.issuer}{JWKS}"}
        made = workloads(tmp_path, cluster.issuer)
        assert await holds(made, cluster.token(POD, [US])) and proved.asked == [JWKS]
        await made.aclose()
    async with IssuerServer(cluster.key, Authority("a stranger").server(tmp_path)) as stranger:
        cluster.document = {"jwks_uri": f"{stranger.issuer}{JWKS}"}
        made = workloads(tmp_path, cluster.issuer)
        assert not await holds(made, cluster.token(POD, [US])) and stranger.asked == []
        await made.aclose()
    async with IssuerServer() as plain, IssuerServer() as elsewhere:
        plain.document = {"jwks_uri": f"{elsewhere.issuer}{JWKS}"}
        made = workloads(tmp_path, plain.issuer, ca_file=None)
        assert not await holds(made, plain.token(POD, [US]))
        assert [request.headers.get("authorization") for request in elsewhere.server.requests] == [None]
        assert plain.server.requests[0].headers["authorization"] == f"Bearer {TOKEN}"
        await made.aclose()


async def test_it_follows_no_redirect_with_our_token(cluster: IssuerServer, tmp_path: Path) -> None:
    async with IssuerServer(cluster.key, OURS.server(tmp_path)) as elsewhere:
        elsewhere.document = {"issuer": cluster.issuer, "jwks_uri": f"{elsewhere.issuer}{JWKS}"}

        async def answer(request: Any, peer: Any) -> None:
            peer.json({}, 302, more=f"location: {elsewhere.issuer}{request.target}\r\n")

        cluster.server.handler = answer
        made = workloads(tmp_path, cluster.issuer)
        assert not await holds(made, cluster.token(POD, [US])) and elsewhere.asked == []
        await made.aclose()


@pytest.mark.slow
async def test_an_outage_while_nothing_is_known(cluster: IssuerServer, tmp_path: Path) -> None:
    made = workloads(tmp_path, cluster.issuer)
    with cluster.away():
        assert not await holds(made, cluster.token(POD, [US]))
    await asyncio.sleep(1.1)  # the first pause after a failure
    assert await holds(made, cluster.token(POD, [US]))
    await made.aclose()


@pytest.mark.rule("OC-2")
@pytest.mark.parametrize(
    "uri", ["http://127.0.0.1:1/keys", "http://kube.example/keys", "file:///keys", "https://a/#x", 7, None]
)
async def test_keys_of_an_https_issuer_come_by_https(uri: Any) -> None:
    asked: list[str] = []

    async def brought(url: str) -> bytes:
        asked.append(url)
        return json.dumps({"issuer": "https://kube.example/x", "jwks_uri": uri}).encode()

    with pytest.raises(ValueError, match="jwks_uri"):
        await discovered("https://kube.example/x", brought, brought)()
    assert asked == ["https://kube.example/x" + DISCOVERY]
