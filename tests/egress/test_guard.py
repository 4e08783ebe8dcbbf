"""URLs that strangers name lead to public addresses only, however the address is written or resolved."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from callgate.config import load
from callgate.egress import Guard, HttpPool, NotPublic, is_public, parse_url
from callgate.errors import CallgateError, ConfigError, UpstreamError, UpstreamUnavailable
from callgate.gateway.showing import ways_out
from tests.servers.raw_http import Peer, RawServer, Request

pytestmark = pytest.mark.anyio

Find = Callable[[str, int], Awaitable[list[str]]]

#: Addresses that are refused wherever they come from: in a URL, or as what a name resolves to.
PRIVATE = (
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.0.9",
    "168.63.129.16", "169.254.169.254", "169.254.170.2", "172.16.0.1", "172.31.255.255", "192.0.0.8", "192.0.2.1",
    "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.51.100.7", "203.0.113.7", "224.0.0.1", "239.255.255.250",
    "240.0.0.1", "255.255.255.255", "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
    "::ffff:a9fe:a9fe", "::ffff:0:127.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::a00:1", "64:ff9b:1::808:808",
    "100::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:db8::1", "2002:7f00:1::1", "2002:808:808::1", "3fff::1",
    "4000::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fd12:3456:789a::1", "fe80::1", "fe80::1%1", "fec0::1",
    "ff02::1", "2606:4700::1%1",
)  # fmt: skip
#: Other ways to write an address of this machine or network, and names that are no public host.
WRITTEN = (
    "http://2130706433/", "http://0x7f000001/", "http://0x7f.1/", "http://0177.0.0.1/", "http://127.1/", "http://0/",
    "http://127.0.0.1./", "http://127.0.0.1.:80/", "http://0xA9FEA9FE/", "http://3232235777/", "http://1.2.3/",
    "http://8.8.8.08/", "http://134744072/", "http://127%2e0%2e0%2e1/", "http://１２７.０.０.１/", "http://127。0。0。1/",
    "http://ⓛocalhost/", "http://localhost/", "http://LOCALHOST:8080/", "http://localhost./", "http://a.localhost/",
    "http://localhost.localdomain/", "http://printer.local/", "http://metadata.google.internal/", "http://metadata/",
    "http://vault/", "http://api.default.svc/", "http://x.svc.cluster.local/", "http://db.home.arpa/",
    "http://wiki.corp/", "http://[::1]/", "http://[::1]:8080/", "http://[0:0:0:0:0:0:0:1]/", "http://[::]/",
    "http://[::ffff:7f00:1]/", "http://[fe80::1%25lo]/", "http://[64:ff9b::10.0.0.1]/",
    "http://127.0.0.1\\.example.org/", "http://exa$mple.org/", "http://example..org/", "http://.example.org/",
    "http://example.org../", "https://127.0.0.1/client.json", "http://100.100.100.200/latest",
)  # fmt: skip
#: URLs that say one host and mean another; they are refused as URLs.
TRICKS = (
    "http://example.org@127.0.0.1/", "http://example.org:80@127.0.0.1/", "http://example.org%40@127.0.0.1/",
    "http://example.org\\@127.0.0.1/", "http://:@127.0.0.1/", "http://@127.0.0.1/", "http://exam\nple.org/",
    "http://example.org\t/", "http://example.org:0x50/", "http:///127.0.0.1/",
    "gopher://127.0.0.1/", "file:///etc/passwd", "http:127.0.0.1", "//127.0.0.1/", "http://[::1/", "http://℀.org/",
)  # fmt: skip


def resolving(*answers: list[str]) -> tuple[Find, list[str]]:
    """A resolver that gives these answers one after the other, the last one for ever; and what it was asked."""
    asked: list[str] = []

    async def find(host: str, port: int) -> list[str]:
        asked.append(host)
        return answers[min(len(asked), len(answers)) - 1]

    return find, asked


def pool(find: Find, *networks: str, **more: Any) -> HttpPool:
    return HttpPool(guard=Guard(tuple(ip_network(each) for each in networks), find=find, **more), proxy="", env={})


async def nobody(host: str, port: int) -> list[str]:
    raise AssertionError(f"{host} was resolved")


async def hello(request: Request, peer: Peer) -> None:
    peer.body(b"hello")


@pytest.mark.rule("AST-8", "AS-3")
@pytest.mark.parametrize("address", PRIVATE)
async def test_an_address_that_is_not_public_is_refused_written_and_resolved(address: str) -> None:
    host = f"[{address.replace('%', '%25')}]" if ":" in address else address
    find, asked = resolving([address])
    for url, also in ((f"http://{host}/", 0), ("https://example.org/", 1)):
        guarded = pool(find)
        with pytest.raises(NotPublic, match="is not a public address"):
            await guarded.fetch(url)
        assert len(asked) == also  # a written address is refused before anything is asked
        await guarded.aclose()


@pytest.mark.rule("AST-8")
@pytest.mark.parametrize("url", WRITTEN)
async def test_another_way_to_write_it_is_refused(url: str) -> None:
    guarded = pool(nobody)
    with pytest.raises((NotPublic, ConfigError)):
        await guarded.fetch(url)
    with pytest.raises((NotPublic, ConfigError)):
        guarded.origin(url)
    await guarded.aclose()


@pytest.mark.rule("AST-8")
@pytest.mark.parametrize("url", TRICKS)
async def test_a_url_that_means_another_host_than_it_says_is_refused(url: str) -> None:
    guarded = pool(nobody)
    with pytest.raises(ConfigError):
        await guarded.fetch(url)
    await guarded.aclose()


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "172.32.0.1", "192.0.3.1", "2606:4700::1111", "2a00::1"])
async def test_what_anybody_may_have_is_public(address: str) -> None:
    assert is_public(ip_address(address))
    find, _ = resolving([address])
    assert await Guard(find=find).addresses("example.org", 443) == [address]
    assert await Guard(find=find).addresses("xn--bcher-kva.example.", 443) == [address]


async def test_an_address_within_another_counts() -> None:
    find, _ = resolving(["64:ff9b::808:808"], ["::ffff:8.8.8.8"])
    assert await Guard(find=find).addresses("example.org", 443) == ["64:ff9b::808:808"]
    assert await Guard(find=find).addresses("example.org", 443) == ["::ffff:8.8.8.8"]


@pytest.mark.rule("AST-8")
@pytest.mark.parametrize("found", [["8.8.8.8", "127.0.0.1"], ["10.0.0.1", "8.8.8.8"], [], ["no address"]])
async def test_one_private_address_among_several_is_enough(found: list[str]) -> None:
    find, _ = resolving(found)
    with pytest.raises(NotPublic):
        await Guard(find=find).addresses("example.org", 443)


@pytest.mark.rule("AST-8")
async def test_a_name_that_resolves_to_something_else_the_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: what was checked is what is connected to, because nothing is resolved twice."""
    async with RawServer(hello) as server:
        find, asked = resolving(["127.0.0.1"], ["127.0.0.2"])
        guarded = pool(find, "127.0.0.1/32")
        # Both loops leave a written address alone; a name would end up here.
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("resolved a second time"))
        assert await guarded.fetch(f"http://rebinding.example:{server.port}/") == b"hello"
        assert asked == ["rebinding.example"]
        await guarded.aclose()
        again = pool(find, "127.0.0.1/32")
        with pytest.raises(NotPublic):
            await again.fetch(f"http://rebinding.example:{server.port}/")
        await again.aclose()
        assert server.connections == 1
        assert server.requests[0].headers["host"] == f"rebinding.example:{server.port}"


async def test_a_kept_connection_is_used_only_while_it_lives_and_each_new_one_is_checked() -> None:
    async def closing(request: Request, peer: Peer) -> None:
        peer.body(b"hello", more="connection: close\r\n")

    async with RawServer(closing) as server:
        find, _ = resolving(["127.0.0.1"], ["127.0.0.2"])
        guarded = pool(find, "127.0.0.1/32")
        assert await guarded.fetch(f"http://rebinding.example:{server.port}/") == b"hello"
        with pytest.raises(NotPublic):
            await guarded.fetch(f"http://rebinding.example:{server.port}/")
        await guarded.aclose()


def sending_to(where: str) -> Callable[[Request, Peer], Awaitable[None]]:
    async def handle(request: Request, peer: Peer) -> None:
        if request.target == "/":
            peer.body(b"", 302, more=f"location: {where}\r\n")
        else:
            peer.body(b"reached")

    return handle


@pytest.mark.rule("AST-8")
@pytest.mark.parametrize(
    "where",
    ["http://169.254.169.254/latest", "http://[::1]/", "http://0x7f000001/", "http://localhost/", "http://second/"],
)
async def test_a_redirect_to_a_private_address_is_not_followed(where: str) -> None:
    async with RawServer(sending_to(where)) as server:
        find, _ = resolving(["127.0.0.1"], ["10.0.0.1"])
        guarded = pool(find, "127.0.0.1/32")
        with pytest.raises(NotPublic):
            await guarded.fetch(f"http://public.example:{server.port}/")
        await guarded.aclose()


async def test_a_document_of_a_stranger_is_not_followed_anywhere() -> None:
    async with RawServer(sending_to("/elsewhere")) as server:
        find, _ = resolving(["127.0.0.1"])
        guarded = pool(find, "127.0.0.1/32")
        assert await guarded.fetch(f"http://public.example:{server.port}/") == b"reached"
        with pytest.raises(UpstreamError, match="answered 302"):
            await guarded.fetch(f"http://public.example:{server.port}/", redirects=0)
        await guarded.aclose()


async def test_what_the_operator_wrote_is_not_guarded_and_may_redirect_within_its_network() -> None:
    async with RawServer(hello) as server:
        server.handler = sending_to(f"http://localhost:{server.port}/there")
        written = HttpPool(guard=Guard(only_redirects=True), proxy="")
        assert await written.fetch(f"http://127.0.0.1:{server.port}/") == b"reached"
        await written.aclose()


@pytest.mark.rule("AST-8")
@pytest.mark.parametrize("known", [True, False])
async def test_a_public_host_that_the_operator_wrote_does_not_redirect_inside(known: bool) -> None:
    async def find(host: str, port: int) -> list[str]:
        if not known:  # where only the proxy resolves names of the outside
            raise UpstreamUnavailable("cannot be resolved")
        return ["8.8.8.8"]

    async def redirect(request: Request, peer: Peer) -> None:
        peer.body(b"", 302, more="location: http://169.254.169.254/latest\r\n")

    async with RawServer(redirect) as proxy:
        written = HttpPool(guard=Guard(find=find, only_redirects=True), proxy=f"http://127.0.0.1:{proxy.port}")
        with pytest.raises(NotPublic):
            await written.fetch("http://idp.example/keys")
        await written.aclose()
        assert [each.target for each in proxy.requests] == ["http://idp.example/keys"]


async def test_with_a_proxy_names_and_written_addresses_are_checked() -> None:
    async with RawServer(hello) as proxy:
        guarded = HttpPool(guard=Guard(find=nobody), proxy=f"http://127.0.0.1:{proxy.port}")
        assert await guarded.fetch("http://public.example/") == b"hello"
        for url in ("http://10.0.0.1/", "http://localhost/", "http://vault.internal/", "http://2130706433/"):
            with pytest.raises(NotPublic):
                await guarded.fetch(url)
        await guarded.aclose()
        inside = HttpPool(guard=Guard((ip_network("10.0.0.0/8"),), find=nobody), proxy=f"http://127.0.0.1:{proxy.port}")
        with pytest.raises(NotPublic):  # nobody here knows what the proxy makes of the name
            await inside.fetch("http://vault.internal/")
        assert await inside.fetch("http://10.0.0.1/") == b"hello"
        await inside.aclose()
        assert len(proxy.requests) == 2


@pytest.mark.parametrize(
    ("allow", "host", "found", "passes"),
    [
        (["10.1.0.0/16"], "10.1.2.3", "10.1.2.3", True),
        (["10.1.0.0/16"], "10.2.0.1", "10.2.0.1", False),
        (["10.1.0.0/16"], "idp.example.org", "10.1.2.3", True),
        (["10.1.0.0/16"], "idp.corp.internal", "10.1.2.3", True),
        (["10.1.0.0/16"], "idp.corp.internal", "10.2.0.1", False),
        (["10.1.0.0/16"], "idp.corp.internal", "8.8.8.8", False),
        (["10.1.0.0/16"], "idp.example.org", "::ffff:10.1.2.3", True),
        (["127.0.0.1"], "localhost", "127.0.0.1", True),
        (["127.0.0.1"], "localhost", "::1", False),
        (["fd12::/32"], "fd12::1", "fd12::1", True),
        (["idp.corp.example"], "idp.corp.example", "10.2.0.1", True),
        (["IDP.corp.example."], "idp.CORP.example", "10.2.0.1", True),
        (["idp.corp.example"], "other.corp.example", "10.2.0.1", False),
        (["idp.corp.example"], "idp.corp.example.evil.org", "10.2.0.1", False),
        (["idp.corp.example"], "idp.corp.example", "169.254.169.254", False),
        (["idp.corp.example"], "idp.corp.example", "::ffff:169.254.169.254", False),
        (["idp.corp.example"], "idp.corp.example", "fd00:ec2::254", False),
        (["*.corp.example"], "a.b.corp.example", "10.2.0.1", True),
        (["*.corp.example"], "corp.example", "10.2.0.1", False),
        (["*.corp.example"], "evilcorp.example", "10.2.0.1", False),
        (["169.254.0.0/16"], "169.254.1.1", "169.254.1.1", True),
    ],
)  # fmt: skip
@pytest.mark.key("egress.allow_private")
async def test_what_the_operator_allows_although_it_is_private(
    allow: list[str], host: str, found: str, passes: bool
) -> None:
    find, _ = resolving([found])
    made = Guard.allowing(allow)
    guard = Guard(made.networks, made.names, find=find)
    if passes:
        assert await guard.addresses(host, 443) == [found]
    else:
        with pytest.raises(NotPublic):
            await guard.addresses(host, 443)


@pytest.mark.key("egress.allow_private")
async def test_the_settings_reach_the_pools_of_the_house(tmp_path: Path) -> None:
    async with RawServer(hello) as server:
        for text, passes in (("", False), ("egress: {allow_private: [127.0.0.0/8]}", True)):
            (tmp_path / "callgate.yaml").write_text(text, encoding="utf-8")
            settings = load(tmp_path / "callgate.yaml", env={"HOME": str(tmp_path)}).settings
            written, public = ways_out(settings.egress)
            assert await written.fetch(server.url) == b"hello"
            if passes:
                assert await public.fetch(server.url) == b"hello"
            else:
                with pytest.raises(NotPublic):
                    await public.fetch(server.url)
            await written.aclose()
            await public.aclose()


@pytest.mark.parametrize("entry", ["10.0.0.0/33", "http://idp.example/", "127.1", "0x7f000001", "", "*", "a b"])
async def test_an_entry_that_allows_nothing_is_a_mistake(tmp_path: Path, entry: str) -> None:
    (tmp_path / "callgate.yaml").write_text(f"egress: {{allow_private: ['{entry}']}}", encoding="utf-8")
    with pytest.raises(ConfigError, match="neither a network nor the name of a host"):
        load(tmp_path / "callgate.yaml", env={"HOME": str(tmp_path)})


async def test_hosts_that_the_operator_named_elsewhere_pass_and_no_others() -> None:
    async with RawServer(hello) as server:
        guarded = pool(resolving(["127.0.0.1"])[0])
        url = f"http://127.0.0.1:{server.port}/"
        assert await guarded.fetch(url, also={"127.0.0.1"}) == b"hello"
        with pytest.raises(NotPublic):  # the connection that was kept is nobody else's
            await guarded.fetch(url)
        with pytest.raises(NotPublic):
            guarded.origin(f"http://127.0.0.2:{server.port}/", {"127.0.0.1"})
        assert await guarded.fetch(f"http://named.example:{server.port}/", also={"named.example"}) == b"hello"
        with pytest.raises(NotPublic):
            await guarded.fetch(f"http://named.example:{server.port}/", also={"other.example"})
        await guarded.aclose()


async def test_a_flood_of_names_is_forgotten_again() -> None:
    guarded = pool(resolving(["10.0.0.1"])[0])
    for number in range(600):
        with pytest.raises(NotPublic):
            await guarded.fetch(f"http://h{number}.example/")
    assert len(guarded._origins) <= 256
    await guarded.aclose()


async def test_what_is_refused_tells_how_to_allow_it_and_not_where_it_leads() -> None:
    guarded = pool(resolving(["10.11.12.13"])[0])
    with pytest.raises(CallgateError) as refused:
        await guarded.fetch("http://example.org/")
    assert "10.11.12.13" not in refused.value.message
    assert "egress.allow_private" in refused.value.hint
    assert parse_url("http://example.org:0/").port == 80
    await guarded.aclose()
