"""SPIFFE: JWT-SVIDs of a trust domain, whose bundle comes from a Workload API endpoint or from a file."""

from __future__ import annotations

import asyncio
import builtins
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from spiffe import TrustDomain, WorkloadApiClient

from callgate.config import Agent as Entry
from callgate.config import Federation, Identity, Workload
from callgate.errors import ConfigError
from callgate.identity import Agents, Refused
from callgate.identity.federation.spiffe import jwt_keys, trust_domain_of, x509_authorities
from callgate.identity.federation.workload_api import WorkloadApi, read_bundles
from callgate.identity.federation.workloads import Workloads
from tests.identity.federation.estate import Estate, estate
from tests.identity.oauth.office import ACCESS, EXCHANGE, claims_of, error_of, token_in
from tests.identity.provider import ec_key, eventually, fetch, okp_key, public, rsa_key, until
from tests.servers.workload_api import DOMAIN, Agent

pytestmark = pytest.mark.anyio
JWT_SPIFFE = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
US = "https://mcp.example.org"
MESH = f"spiffe://{DOMAIN}/ns/agents/sa/mesh"


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    async with Agent(tmp_path) as agent:
        yield agent


def identity(**federation: Any) -> Identity:
    workloads = (Workload(issuer="mesh", subject=f"spiffe://{DOMAIN}/ns/agents/sa/*"),)
    return Identity(federation={"mesh": Federation(**federation)}, agents={"mesh": Entry(workloads=workloads)})


def workloads(**federation: Any) -> Workloads:
    made = identity(trust_domain=DOMAIN, **federation)
    return Workloads(made, Agents(made.agents), fetch, fetch, time.time)


@pytest.fixture
async def mesh(agent: Agent) -> AsyncIterator[Workloads]:
    made = workloads(workload_api=agent.address)
    yield made
    await made.aclose()


async def name_of(made: Workloads, token: str) -> str:
    return (await made.prove(token.encode(), (US,))).agent.name


async def refused(made: Workloads, token: str) -> str:
    with pytest.raises(Refused) as caught:
        await made.prove(token.encode(), (US,))
    return caught.value.reason


# At the token endpoint


@pytest.mark.key("identity.federation.trust_domain", "identity.federation.workload_api")
async def test_a_workload_of_the_mesh_acts_for_a_user(agent: Agent, tmp_path: Path) -> None:
    (tmp_path / "gateway").mkdir()
    async with estate(tmp_path / "gateway") as stand:
        await stand.reload(identity=with_mesh(stand, agent))
        bundles = await asyncio.to_thread(fetched, agent.address, stand.base)
        svid, known = bundles
        assert known == {agent.key.kid}
        assert claims_of(token_in(await stand.bear(svid)))["sub"] == "agent:mesh"
        proof = {"client_assertion_type": JWT_SPIFFE, "client_assertion": svid}
        form = {"grant_type": EXCHANGE, "subject_token": stand.user(), "subject_token_type": ACCESS, **proof}
        for named in ({}, {"client_id": MESH}, {"client_id": "mesh"}):
            claims = claims_of(token_in(await stand.post({**form, **named})))
            assert claims["sub"].endswith("#alice") and claims["client_id"] == "mesh"
        for wrong in ({"client_id": "pod"}, {"client_id": MESH + "2"}, {"client_assertion": stand.pod(typ="x") + "x"}):
            assert error_of(await stand.post({**form, **wrong})) == (401, "invalid_client")
        assert (await stand.call_with(token_in(await stand.bear(svid)))).status == 200
        metadata = (await stand.get("/.well-known/oauth-authorization-server")).json
        assert "spiffe_jwt" in metadata["token_endpoint_auth_methods_supported"]


def with_mesh(stand: Estate, agent: Agent) -> dict[str, Any]:
    whole = stand.identity(federation={"mesh": {"trust_domain": DOMAIN, "workload_api": agent.address}})
    whole["federation"] |= stand.identity()["federation"]
    whole["agents"]["mesh"] = {
        "roles": ["coder"], "scopes": ["read"], "acts_for": [stand.idp.issuer],
        "workloads": [{"issuer": "mesh", "subject": f"spiffe://{DOMAIN}/ns/agents/sa/*"}],
    }  # fmt: skip
    return whole


def fetched(address: str, audience: str) -> tuple[str, set[str]]:
    """What somebody else's client gets from our endpoint: so it is one."""
    with WorkloadApiClient(address) as client:
        bundle = client.fetch_jwt_bundles().get_bundle_for_trust_domain(TrustDomain(DOMAIN))
        assert bundle is not None
        return client.fetch_jwt_svid(audience={audience}).token, set(bundle.jwt_authorities)


# What is refused


async def test_a_jwt_svid(mesh: Workloads, agent: Agent) -> None:
    assert await name_of(mesh, agent.svid(MESH, US)) == "mesh"
    # SPIRE may name the URL of its discovery provider as issuer; the trust domain is what counts.
    assert await name_of(mesh, agent.svid(MESH, US, iss="https://oidc.example.org")) == "mesh"


@pytest.mark.parametrize(
    "id",
    [
        "spiffe://other.org/ns/agents/sa/mesh", "spiffe://example.org", "spiffe://example.org/",
        "spiffe://example.org/ns/agents/sa/", "spiffe://example.org/ns/agents/sa/a/b", "spiffe://EXAMPLE.org/ns/agents/sa/a",
        "SPIFFE://example.org/ns/agents/sa/a", "spiffe://example.org/ns/agents/sa/../sa/a", "https://example.org/a",
        "spiffe://example.org/ns/agents/sa/./a", "spiffe://example.org/ns/agents/sa/a?x", "spiffe://example.org/ns/agents/sa/a#x",
        "spiffe://example.org:80/ns/agents/sa/a", "spiffe://u@example.org/ns/agents/sa/a", "spiffe://example.org//ns/agents/sa/a",
        "spiffe://example.org/ns/agents/sa/a%2fb", "spiffe://example.org.evil.org/ns/agents/sa/a",
        "spiffe://example.org/ns/agents/sa/\u0430", "spiffe://example.org/ns/agents/sa/a\n",
        "spiffe://example.org/ns/agents/sa/" + "a" * 2100, "spiffe://example.org/ns/others/sa/a",
    ],
)  # fmt: skip
async def test_an_id_that_is_nobodys(mesh: Workloads, agent: Agent, id: str) -> None:
    await refused(mesh, agent.svid(id, US))


@pytest.mark.parametrize(
    ("header", "claims"),
    [
        ({}, {"exp": None}), ({}, {"exp": int(time.time()) - 60}), ({}, {"exp": int(time.time()) + 86400}),
        ({}, {"aud": None}), ({}, {"aud": []}), ({}, {"aud": ["https://other.example"]}), ({}, {"sub": None}),
        ({}, {"aud": [US, "https://other.example"]}), ({"typ": "at+jwt"}, {}), ({"kid": "another"}, {}),
        ({"alg": "none"}, {}), ({"crit": ["x"]}, {}), ({}, {"iat": int(time.time()) + 3600}),
    ],
)  # fmt: skip
async def test_a_jwt_svid_that_does_not_hold(
    mesh: Workloads, agent: Agent, header: dict[str, Any], claims: dict[str, Any]
) -> None:
    whole = json.loads(json.dumps(claims))
    await refused(mesh, agent.svid(MESH, whole.pop("aud", US) or [], header, **whole))


@pytest.mark.rule("AST-10")
async def test_the_bundle_of_another_trust_domain(mesh: Workloads, agent: Agent) -> None:
    assert await name_of(mesh, agent.svid(MESH, US)) == "mesh"
    own, agent.key = agent.key, ec_key("authority of other.org")
    agent.keys["other.org"] = [agent.key]
    agent.tell()
    await asyncio.sleep(0.05)
    assert "kid is not known" in await refused(mesh, agent.svid(MESH, US))
    await refused(mesh, agent.svid("spiffe://other.org/ns/agents/sa/mesh", US))
    agent.key = own
    assert await name_of(mesh, agent.svid(MESH, US)) == "mesh"


async def test_keys_that_are_for_something_else(agent: Agent) -> None:
    agent.use = "x509-svid"
    made = workloads(workload_api=agent.address)
    assert "could not be fetched" in await refused(made, agent.svid(MESH, US))
    agent.use = "jwt-svid"
    agent.tell()
    await eventually(lambda: holds(made, agent.svid(MESH, US)))
    await made.aclose()


async def test_an_algorithm_that_no_svid_has(agent: Agent) -> None:
    agent.key = okp_key("jwt authority of another kind")
    agent.keys[DOMAIN].append(agent.key)
    made = workloads(workload_api=agent.address)
    assert "alg" in await refused(made, agent.svid(MESH, US, {"alg": "EdDSA"}))
    await made.aclose()


async def test_the_issuer_counts_where_it_is_configured(agent: Agent) -> None:
    made = workloads(workload_api=agent.address, issuer="https://oidc.example.org")
    assert await name_of(made, agent.svid(MESH, US, iss="https://oidc.example.org")) == "mesh"
    for other in (None, "https://oidc.example.org/", "https://evil.example"):
        assert "iss" in await refused(made, agent.svid(MESH, US, iss=other))
    await made.aclose()


async def holds(made: Workloads, token: str) -> bool:
    try:
        await made.prove(token.encode(), (US,))
    except Refused:
        return False
    return True


# Following the bundle


async def test_keys_rotate(mesh: Workloads, agent: Agent) -> None:
    old = agent.svid(MESH, US)
    assert await name_of(mesh, old) == "mesh"
    agent.key = ec_key("jwt authority 2")
    agent.keys[DOMAIN].append(agent.key)
    agent.tell()
    new = agent.svid(MESH, US)
    await eventually(lambda: holds(mesh, new))
    assert await name_of(mesh, old) == "mesh" and agent.streams == 1
    agent.keys[DOMAIN] = [agent.key]
    agent.tell()
    await eventually(lambda: not_(holds(mesh, old)))
    assert await name_of(mesh, new) == "mesh"
    agent.keys = {}
    agent.tell()  # a trust domain that is trusted no more
    await eventually(lambda: not_(holds(mesh, new)))


async def not_(outcome: Any) -> bool:
    return not await outcome


@pytest.mark.slow
@pytest.mark.rule("TOK-4")
async def test_the_agent_starts_anew(mesh: Workloads, agent: Agent) -> None:
    assert await name_of(mesh, agent.svid(MESH, US)) == "mesh"
    await agent.stop()
    assert await name_of(mesh, agent.svid(MESH, US)) == "mesh"  # the last good keys stay
    agent.key = ec_key("jwt authority after the restart")
    agent.keys[DOMAIN] = [agent.key]
    await agent.start()
    await eventually(lambda: holds(mesh, agent.svid(MESH, US)))
    assert agent.streams == 2


async def test_no_agent_no_keys_and_no_waiting(tmp_path: Path, agent: Agent) -> None:
    made = workloads(workload_api=f"unix://{tmp_path / 'nobody.sock'}")
    async with asyncio.timeout(5):
        assert "could not be fetched" in await refused(made, agent.svid(MESH, US))
        assert "could not be fetched" in await refused(made, agent.svid(MESH, US))
    await made.aclose()


async def test_an_agent_that_knows_us_not(agent: Agent) -> None:
    agent.refuses = True
    made = workloads(workload_api=agent.address)
    assert "could not be fetched" in await refused(made, agent.svid(MESH, US))
    await made.aclose()


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"{}", b'{"keys": 7}', b'{"keys": [7, {"kty": "oct", "kid": "a", "k": "eA"}]}']
)
async def test_a_bundle_that_is_none(agent: Agent, raw: bytes) -> None:
    agent.raw = raw
    made = workloads(workload_api=agent.address)
    await refused(made, agent.svid(MESH, US))
    agent.raw = None
    agent.tell()
    await eventually(lambda: holds(made, agent.svid(MESH, US)))
    await made.aclose()


async def test_streams_end_with_the_service(mesh: Workloads, agent: Agent) -> None:
    assert await name_of(mesh, agent.svid(MESH, US)) == "mesh"
    assert agent.followers == 1
    await mesh.aclose()
    await until(lambda: agent.followers == 0)


async def test_what_is_known_is_passed_on(mesh: Workloads, agent: Agent) -> None:
    assert await name_of(mesh, agent.svid(MESH, US)) == "mesh"
    after = workloads(workload_api=agent.address)
    after.inherit(mesh)
    await agent.stop()
    assert await name_of(after, agent.svid(MESH, US)) == "mesh"
    changed = workloads(workload_api=agent.address + "2")  # another agent may know another truth
    changed.inherit(mesh)
    await refused(changed, agent.svid(MESH, US))
    await after.aclose()
    await changed.aclose()


# Files and parts


@pytest.mark.key("identity.federation.jwks_file")
async def test_a_bundle_in_a_file(agent: Agent, tmp_path: Path) -> None:
    file = tmp_path / "bundle.json"
    keys = [public(agent.key, use="jwt-svid"), {**public(rsa_key("x")), "use": "x509-svid", "x5c": ["MAA="]}]
    file.write_text(json.dumps({"keys": keys, "spiffe_sequence": 1, "spiffe_refresh_hint": 300}))
    made = workloads(jwks_file=str(file))
    assert await name_of(made, agent.svid(MESH, US)) == "mesh"
    assert agent.streams == 0
    await made.aclose()


def test_a_key_says_what_it_is_for() -> None:
    key = public(ec_key("a"))
    bundle = json.dumps({"keys": [key, {**key, "use": "sig"}, {**key, "use": "jwt-svid", "kid": None}]}).encode()
    assert json.loads(jwt_keys(bundle, marked=True)) == {"keys": []}
    assert [each["kid"] for each in json.loads(jwt_keys(bundle, marked=False))["keys"]] == ["a"]


@pytest.mark.parametrize("chain", [None, [], ["MAA=", "MAA="], [7], ["not base64"], "MAA="])
def test_an_authority_without_its_certificate(chain: Any) -> None:
    key = {**public(ec_key("a")), "use": "x509-svid", "x5c": chain}
    with pytest.raises(ValueError, match="authority"):
        x509_authorities(json.dumps({"keys": [key]}).encode())


def test_messages_are_read_strictly() -> None:
    # field 1, a map entry {1: "spiffe://a", 2: "x"}; an unknown varint, an unknown double, an unknown text
    entry = b"\x0a\x0aspiffe://a\x12\x01x"
    known = b"\x0a" + bytes([len(entry)]) + entry
    more = b"\x18\x96\x01" + b"\x21" + b"12345678" + b"\x2a\x02hi" + b"\x35" + b"1234"
    assert read_bundles(more + known + more, 1) == {"spiffe://a": b"x"}
    assert read_bundles(known, 2) == {} and read_bundles(b"", 1) == {}
    for cut in range(1, len(known)):
        with pytest.raises(ValueError, match="cut off"):
            read_bundles(known[:cut], 1)
    for broken in (b"\x0b", b"\x0f\x00", b"\xff" * 12, b"\x0a\xff\xff\xff\xff\x0f"):
        with pytest.raises(ValueError, match="cut off"):
            read_bundles(broken, 1)


def test_ids_are_exact() -> None:
    assert trust_domain_of("spiffe://example.org/a") == "example.org"
    for other in (7, "", "spiffe://example.org/..", "spiffe://example.org/a/../b", "spiffe://example.org/./a"):
        assert trust_domain_of(other) is None
    assert trust_domain_of("spiffe://example.org/.../a..b") == "example.org"


STARTS_PROGRAMS = """
import asyncio, sys, uvloop
from callgate.identity.federation.workload_api import JWT_BUNDLES, WorkloadApi

async def main():
    heard = asyncio.Event()
    async def take(bundles): heard.set()
    follower = asyncio.create_task(WorkloadApi(sys.argv[1]).follow(JWT_BUNDLES, take))
    await heard.wait()
    for _ in range(150):
        program = await asyncio.create_subprocess_exec("sh", "-c", "exit 3")
        assert await program.wait() == 3, program.returncode
    follower.cancel()

uvloop.run(main())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no uvloop")
async def test_programs_start_beside_the_stream(agent: Agent) -> None:
    """The handlers that gRPC has for fork() ended every twentieth program of uvloop with a segmentation fault."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("GRPC_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", STARTS_PROGRAMS, agent.address, env=env, stderr=asyncio.subprocess.PIPE
    )
    _, err = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, err) == (0, b"")


def test_without_the_extra_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *more: Any) -> Any:
        if name.startswith("grpc"):
            raise ModuleNotFoundError(name)
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError) as caught:
        WorkloadApi("unix:///run/agent.sock")
    assert "callgate[spiffe]" in caught.value.hint
