"""X.509-SVIDs: certificates that clients connected with, judged by the bundle of their trust domain."""

from __future__ import annotations

import asyncio
import base64
import datetime
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from callgate.config import Agent as Entry
from callgate.config import Federation, Identity, Workload
from callgate.identity import Agents, Refused
from callgate.identity.federation.spiffe import split_certificates
from callgate.identity.federation.workloads import Workloads
from callgate.identity.federation.x509 import named_by, verified_by
from tests.identity.federation.certificates import DAY, Authority, Extensions, usage
from tests.identity.provider import ec_key, eventually, fetch, public
from tests.servers.workload_api import DOMAIN, Agent

pytestmark = pytest.mark.anyio
MESH = f"spiffe://{DOMAIN}/ns/agents/sa/mesh"
ROOT = Authority("root of example.org")
OTHER = Authority("root of other.org")


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    async with Agent(tmp_path) as agent:
        agent.authorities = {DOMAIN: [ROOT.der], "other.org": [OTHER.der]}
        yield agent


def workloads(*more: str, status: Any = "active", **federation: Any) -> Workloads:
    known = (Workload(issuer="mesh", subject=f"spiffe://{DOMAIN}/ns/agents/sa/*"),)
    agents = {name: Entry(workloads=known, status=status) for name in ("mesh", *more)}
    made = Identity(federation={"mesh": Federation(trust_domain=DOMAIN, **federation)}, agents=agents)
    return Workloads(made, Agents(made.agents), fetch, fetch, time.time)


@pytest.fixture
async def mesh(agent: Agent) -> AsyncIterator[Workloads]:
    made = workloads(workload_api=agent.address)
    yield made
    await made.aclose()


async def refused(made: Workloads, *chain: bytes) -> str:
    with pytest.raises(Refused) as caught:
        await made.prove_by_certificate(chain)
    return caught.value.reason


@pytest.mark.key("identity.federation.workload_api")
async def test_a_certificate_is_its_agent(mesh: Workloads) -> None:
    svid = ROOT.svid(MESH)
    proven = await mesh.prove_by_certificate([svid])
    assert (proven.agent.name, proven.evidence) == ("mesh", f"mesh: {MESH}")
    assert time.time() + 3600 < proven.expires < time.time() + 90_000
    pem = x509.load_der_x509_certificate(svid).public_bytes(Encoding.PEM)
    assert (await mesh.prove_by_certificate([pem])).agent.name == "mesh"


async def test_an_authority_in_between(mesh: Workloads) -> None:
    between = Authority("between", above=ROOT)
    svid = between.svid(MESH)
    assert (await mesh.prove_by_certificate([svid, between.der])).agent.name == "mesh"
    await refused(mesh, svid)
    await refused(mesh, between.der, svid)


async def test_another_trust_domains_authority(mesh: Workloads) -> None:
    await refused(mesh, OTHER.svid(MESH))
    await refused(mesh, OTHER.svid(MESH), OTHER.der)
    assert "no trust domain" in await refused(mesh, OTHER.svid("spiffe://other.org/ns/agents/sa/mesh"))
    await refused(mesh, ROOT.svid("spiffe://other.org/ns/agents/sa/mesh"))


@pytest.mark.parametrize(
    "ids",
    [
        (), (MESH, MESH), (MESH, "spiffe://other.org/a"), (MESH, "https://example.org"), ("https://example.org/a",),
        (f"spiffe://{DOMAIN}",), (f"spiffe://{DOMAIN}/",), (f"spiffe://{DOMAIN}/ns/agents/sa/../sa/mesh",),
        (f"spiffe://{DOMAIN}/ns/others/sa/mesh",), (f"{MESH}/more",), (MESH.replace("example", "EXAMPLE"),),
    ],
)  # fmt: skip
async def test_a_certificate_that_names_nobody(mesh: Workloads, ids: tuple[str, ...]) -> None:
    await refused(mesh, ROOT.svid(*ids))


@pytest.mark.parametrize(
    "changes",
    [
        {"basic": x509.BasicConstraints(ca=True, path_length=None), "usage": usage(key_cert_sign=True)},
        {"basic": x509.BasicConstraints(ca=True, path_length=None)},
        {"usage": usage(digital_signature=True, key_cert_sign=True)},
        {"usage": usage(digital_signature=True, crl_sign=True)},
        {"usage": usage(key_agreement=True)},
        {"usage": None},
        {"purposes": x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])},
        {"odd": x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")},
        {"ends": -datetime.timedelta(minutes=1)},
    ],
    ids=["authority", "says so", "signs", "crl", "no signature", "no usage", "server", "critical", "expired"],
)
async def test_a_certificate_that_is_for_something_else(mesh: Workloads, changes: dict[str, Any]) -> None:
    await refused(mesh, ROOT.svid(MESH, **changes))


async def test_a_workload_cannot_make_others(mesh: Workloads) -> None:
    """A workload whose certificate should not be able to, signs one for another workload."""
    extensions: Extensions = [
        (x509.SubjectAlternativeName([x509.UniformResourceIdentifier(MESH)]), True),
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (usage(digital_signature=True), True),
    ]
    workload = Authority("a workload", above=ROOT, extensions=extensions)
    await refused(mesh, workload.svid(f"spiffe://{DOMAIN}/ns/agents/sa/admin"), workload.der)
    for authority, signs in ((True, False), (False, True), (None, True)):
        parts: list[tuple[x509.ExtensionType, bool]] = [(usage(digital_signature=True, key_cert_sign=signs), True)]
        if authority is not None:
            parts.append((x509.BasicConstraints(ca=authority, path_length=None), True))
        weak = Authority("no authority", above=ROOT, extensions=parts)
        await refused(mesh, weak.svid(MESH), weak.der)


async def test_an_authority_that_has_expired(agent: Agent) -> None:
    old = Authority("old", ends=-datetime.timedelta(minutes=1))
    agent.authorities[DOMAIN] = [old.der]
    made = workloads(workload_api=agent.address)
    await refused(made, old.svid(MESH))
    await made.aclose()


async def test_authorities_rotate(mesh: Workloads, agent: Agent) -> None:
    first, second = ROOT.svid(MESH), Authority("the next root")
    assert (await mesh.prove_by_certificate([first])).agent.name == "mesh"
    agent.authorities[DOMAIN] = [ROOT.der, second.der]
    agent.tell()
    await eventually(lambda: holds(mesh, second.svid(MESH)))
    assert await holds(mesh, first)
    agent.authorities[DOMAIN] = [second.der]
    agent.tell()
    await eventually(lambda: not_(holds(mesh, first)))
    assert agent.streams == 1


async def holds(made: Workloads, *chain: bytes) -> bool:
    try:
        await made.prove_by_certificate(chain)
    except Refused:
        return False
    return True


async def not_(outcome: Any) -> bool:
    return not await outcome


async def test_two_agents_or_a_suspended_one(agent: Agent) -> None:
    for made in (
        workloads("another", workload_api=agent.address), workloads(workload_api=agent.address, status="suspended"),
    ):  # fmt: skip
        await refused(made, ROOT.svid(MESH))
        await made.aclose()


@pytest.mark.parametrize("chain", [(), (b"",), (b"x",), (b"-----BEGIN CERTIFICATE-----\nx",), (b"0" * 20_000,)])
async def test_what_is_no_certificate(mesh: Workloads, chain: tuple[bytes, ...]) -> None:
    await refused(mesh, *chain)
    await refused(mesh, *[ROOT.svid(MESH)] * 9)


async def test_a_bundle_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "bundle.json"
    key = {**public(ec_key("x")), "use": "x509-svid", "x5c": [base64.b64encode(ROOT.der).decode()]}
    file.write_text(json.dumps({"keys": [key]}))
    made = workloads(jwks_file=str(file))
    assert (await made.prove_by_certificate([ROOT.svid(MESH)])).agent.name == "mesh"
    await refused(made, OTHER.svid(MESH))
    await made.aclose()
    broken = workloads(jwks_file=str(tmp_path / "nothing.json"))
    async with asyncio.timeout(5):
        assert "not known" in await refused(broken, ROOT.svid(MESH))
    await broken.aclose()


def test_times_are_those_of_the_caller() -> None:
    svid, later = ROOT.svid(MESH), time.time() + 2 * DAY.total_seconds()
    assert named_by([svid]) == MESH
    assert verified_by([svid], [ROOT.der], time.time()) > time.time()
    for moment in (later, time.time() - 4 * DAY.total_seconds()):
        with pytest.raises(Refused):
            verified_by([svid], [ROOT.der], moment)


def test_certificates_one_after_the_other() -> None:
    both = ROOT.der + OTHER.der
    assert split_certificates(both) == (ROOT.der, OTHER.der) and split_certificates(b"") == ()
    for broken in (both[:-1], b"\x30", b"\x31\x00", b"\x30\x80\x00", b"\x30\x85\x01\x01\x01\x01\x01", b"\x30\x82\x01"):
        with pytest.raises(ValueError, match="certificate"):
            split_certificates(broken)
