"""Whom a server trusts: found in the order of the specification, and used only where it holds (OC-1 to OC-3)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from callgate.config import UpstreamAuth
from callgate.egress import Response
from callgate.errors import UpstreamError
from callgate.identity.upstream.challenge import challenge
from callgate.identity.upstream.discovery import Discovery, covers, issuer_forms, resource_forms
from callgate.identity.upstream.reach import Reach
from tests.identity.connect.scene import ALICE, scene
from tests.identity.provider import Clock
from tests.servers.authority import META, OIDC, PRM, Authority

pytestmark = pytest.mark.anyio


@pytest.mark.rule("OC-1")
@pytest.mark.parametrize(
    ("authority", "visits"),
    [
        (Authority(), [f"{PRM}/mcp", META]),
        (Authority(prm_at="/elsewhere"), ["/elsewhere", META]),
        (Authority(challenge=None), [f"{PRM}/mcp", META]),
        (Authority(challenge="Basic realm=x"), [f"{PRM}/mcp", META]),
        (Authority(challenge=None, prm_at=PRM), [f"{PRM}/mcp", PRM, META]),
        (Authority(meta_at=OIDC), [f"{PRM}/mcp", META, OIDC]),
        (Authority(path="/t", meta_at=f"{META}/t"), [f"{PRM}/mcp", f"{META}/t"]),
        (Authority(path="/t", meta_at=f"{OIDC}/t"), [f"{PRM}/mcp", f"{META}/t", f"{OIDC}/t"]),
        (Authority(path="/t", meta_at=f"/t{OIDC}"), [f"{PRM}/mcp", f"{META}/t", f"{OIDC}/t", f"/t{OIDC}"]),
    ],
)
async def test_documents_are_looked_for_in_this_order(tmp_path: Path, authority: Authority, visits: list[str]) -> None:
    async with scene(tmp_path, authority) as at:
        await at.connect()
        assert authority.visits[:-2] == visits  # then it registered, and got a token


@pytest.mark.rule("OC-1")
async def test_servers_of_2025_03_26_are_their_own_issuers(tmp_path: Path) -> None:
    async with scene(tmp_path, Authority(challenge=None, prm_at="/none")) as at:
        ticket = await at.connections.ticket("notes", "alice", (), ())
        with pytest.raises(UpstreamError, match="metadata cannot be read"):
            await at.connections.describe(ticket)
        assert at.authority.visits == [f"{PRM}/mcp", PRM, META, OIDC]  # the last two at the server's own origin
        assert at.authority.idp.requests == []


async def refused(at: Any) -> str:
    """What a person reads who opens the page; nobody is sent away."""
    ticket = await at.needs()
    with pytest.raises(UpstreamError) as found:
        await at.connections.describe(ticket)
    with pytest.raises(UpstreamError):
        await at.connections.begin(ticket, ALICE.key)
    assert found.value.message.startswith("Server `notes` ")
    assert not at.authority.forms and not at.authority.registered
    return str(found.value)


@pytest.mark.rule("OC-2")
@pytest.mark.parametrize("change", ["/", "#x", "?a", "/.", "//"])
async def test_an_issuer_that_is_written_otherwise_is_another_one(tmp_path: Path, change: str) -> None:
    authority = Authority()
    async with scene(tmp_path, authority) as at:
        authority.meta = {"issuer": authority.issuer + change}
        assert "name another issuer" in await refused(at)


@pytest.mark.rule("OC-2")
@pytest.mark.parametrize("issuer", ["https://attacker.example", "HTTP://127.0.0.1", None, 5])
async def test_metadata_of_another_issuer_are_not_used(tmp_path: Path, issuer: Any) -> None:
    async with scene(tmp_path, Authority(meta={"issuer": issuer})) as at:
        assert "name another issuer" in await refused(at)


@pytest.mark.rule("OC-3")
@pytest.mark.parametrize("meta_at", [META, OIDC])
@pytest.mark.parametrize("methods", [None, [], ["plain"], "S256", ["s256"]])
async def test_an_issuer_that_does_not_announce_pkce_is_not_used(tmp_path: Path, meta_at: str, methods: Any) -> None:
    authority = Authority(meta_at=meta_at, meta={"code_challenge_methods_supported": methods})
    async with scene(tmp_path, authority) as at:
        assert "PKCE" in await refused(at)


@pytest.mark.rule("OC-3")
@pytest.mark.key("servers.auth.pkce")
async def test_an_operator_may_know_that_an_issuer_checks_pkce(tmp_path: Path) -> None:
    async with Authority(meta={"code_challenge_methods_supported": None}) as authority, scene(tmp_path, None) as at:
        at.authority = authority
        at.credential = at.make(pkce="assumed", issuer=authority.issuer)
        await at.connect()
        assert authority.asked[0]["code_challenge_method"] == "S256" and authority.forms[0]["code_verifier"]


@pytest.mark.rule("OC-4")
@pytest.mark.parametrize(
    "resource",
    ["https://evil.example.com/mcp", "http://127.0.0.1:1/mcp", "{origin}/other", "{origin}/mc", "{url}#x", "", None, 7],
)
async def test_metadata_of_another_resource_are_not_used(tmp_path: Path, resource: Any) -> None:
    authority = Authority()
    async with scene(tmp_path, authority) as at:
        if isinstance(resource, str):
            resource = resource.format(url=authority.url, origin=authority.url.removesuffix("/mcp"))
        authority.prm = {"resource": resource}
        assert "another resource" in await refused(at)
        assert not authority.idp.requests


@pytest.mark.parametrize(
    ("resource", "same"),
    [
        ("https://x.example/mcp", True),
        ("https://x.example/mcp/", True),
        ("https://x.example", True),
        ("https://X.example/mcp", True),
        ("https://x.example/MCP", False),
        ("https://x.example:444/mcp", False),
        ("http://x.example/mcp", False),
        ("https://x.example/mcp/tools", False),
        ("https://x.example/mcp?a=b", False),
        ("https://x.example@evil.example/mcp", False),
    ],
)
def test_a_resource_is_the_server_or_what_it_is_part_of(resource: str, same: bool) -> None:
    assert covers(resource, "https://x.example/mcp") == same


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://10.0.0.1/token",
        "http://localhost/token",
        "http://issuer.example/token",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "ftp://issuer.example/",
        "//issuer.example",
        "https://a:b@issuer.example/",
        "https://issuer.example/#f",
    ],
)
@pytest.mark.parametrize("member", ["authorization_endpoint", "token_endpoint", "registration_endpoint"])
async def test_nobody_is_sent_to_an_endpoint_that_is_no_https_url(tmp_path: Path, member: str, endpoint: str) -> None:
    async with scene(tmp_path, Authority(meta={member: endpoint})) as at:
        said = await refused(at)
        assert "must begin with `https://`" in said and endpoint not in said


@pytest.mark.parametrize("host", ["10.0.0.1", "169.254.169.254", "127.0.0.2", "[::1]", "metadata.google.internal"])
async def test_an_issuer_at_a_private_address_is_not_asked(tmp_path: Path, host: str) -> None:
    async with scene(tmp_path, Authority(prm={"authorization_servers": [f"https://{host}/"]})) as at:
        assert "not a public address" in await refused(at)


async def test_a_registration_endpoint_at_a_private_address_gets_nothing(tmp_path: Path) -> None:
    async with scene(tmp_path, Authority(meta={"registration_endpoint": "https://10.1.2.3/register"})) as at:
        ticket = await at.needs()
        user = (await at.connections.describe(ticket)).user
        with pytest.raises(UpstreamError, match="not a public address"):
            await at.connections.begin(ticket, user)


async def test_metadata_that_a_server_names_at_a_private_address_are_not_fetched(tmp_path: Path) -> None:
    authority = Authority(challenge='Bearer resource_metadata="https://192.168.0.1/meta"')
    async with scene(tmp_path, authority) as at:
        assert "metadata that cannot be read" in await refused(at)
        assert not authority.visits


async def test_a_redirect_of_a_document_is_not_followed(tmp_path: Path) -> None:
    async with scene(tmp_path, Authority(redirects=True)) as at:
        assert "metadata cannot be read" in await refused(at)
        assert "/moved" not in at.authority.visits


async def test_an_issuer_without_a_place_for_browsers_is_not_used(tmp_path: Path) -> None:
    async with scene(tmp_path, Authority(meta={"authorization_endpoint": None})) as at:
        assert "sign in with a browser" in await refused(at)


async def test_a_server_that_names_no_issuer_is_not_guessed_about(tmp_path: Path) -> None:
    async with scene(tmp_path, Authority(prm={"authorization_servers": []})) as at:
        assert "names no issuer" in await refused(at)


@pytest.mark.rule("OC-8")
@pytest.mark.key("servers.auth.issuer")
async def test_a_configured_issuer_must_be_among_those_of_the_server(tmp_path: Path) -> None:
    async with scene(tmp_path, Authority(), issuer="https://issuer.example") as at:
        assert "another issuer than the one that is configured" in await refused(at)
        assert not at.authority.idp.requests


async def test_what_was_found_is_asked_for_again_after_a_while_and_after_a_refusal(tmp_path: Path) -> None:
    async with Authority() as authority:
        clock = Clock()
        reach = Reach((authority.url,))
        discovery = Discovery(authority.url, UpstreamAuth(type="oauth"), reach, clock)
        for _ in range(3):
            await discovery.find()
        assert authority.visits.count(META) == 1
        clock.now += 601
        await discovery.find()
        discovery.told(challenge(Response(401, {})))
        await discovery.find()
        assert authority.visits.count(META) == 3
        await reach.aclose()


@pytest.mark.parametrize(
    ("said", "scopes", "metadata", "error"),
    [
        (b'Bearer scope="a b"', ("a", "b"), "", ""),
        (b'bearer resource_metadata="https://x/m", error="invalid_token"', (), "https://x/m", "invalid_token"),
        (b'Basic realm="Bearer", Bearer scope=a', ("a",), "", ""),
        (b'DPoP algs="ES256", scope="a"', ("a",), "", ""),
        (b'Bearer scope="a\\"b c"', ("c",), "", ""),
        (b"Bearer", (), "", ""),
        (b"Negotiate", (), "", ""),
        (b"Bearer scope=" + b'"' * 9000, (), "", ""),
        (
            b'Bearer scope="' + b" ".join(b"s%d" % n for n in range(500)) + b'"',
            tuple(f"s{n}" for n in range(64)),
            "",
            "",
        ),
    ],
)
def test_challenges(said: bytes, scopes: tuple[str, ...], metadata: str, error: str) -> None:
    found = challenge(Response(401, {b"www-authenticate": said}))
    assert (found.scopes, found.metadata, found.error) == (scopes, metadata, error)


def test_forms_of_well_known_urls() -> None:
    assert list(resource_forms("https://x.example")) == [f"https://x.example{PRM}"]
    assert list(issuer_forms("https://x.example/"))[1:] == [f"https://x.example{OIDC}"]
