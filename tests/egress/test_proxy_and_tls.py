from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from callgate.egress import HttpPool, parse_url
from callgate.egress.proxy import choose_proxy
from callgate.errors import ConfigError, UpstreamUnavailable
from tests.servers.raw_http import Peer, RawServer, Request

pytestmark = pytest.mark.anyio


async def hello(request: Request, peer: Peer) -> None:
    peer.body(b"hello")


class TunnelProxy(RawServer):
    """Serves CONNECT by copying bytes, and absolute-form requests by answering itself."""

    def __init__(self, status: int = 200) -> None:
        super().__init__(self.proxy)
        self.status = status

    async def proxy(self, request: Request, peer: Peer) -> None:
        if request.method != "CONNECT":
            peer.body(b"through the proxy")
        elif self.status != 200:
            peer.body(b"", self.status)
        else:
            host, _, port = request.target.rpartition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            peer.raw(b"HTTP/1.1 200 Connection established\r\n\r\n")
            try:
                await asyncio.gather(pump(reader, peer.writer), pump(peer.reader, writer))
            finally:
                writer.transport.abort()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


def certificate(folder: Path) -> tuple[ssl.SSLContext, str]:
    """A server's context for 127.0.0.1 and the file of the authority that vouches for it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    pem, secret = folder / "ca.pem", folder / "key.pem"
    pem.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, secret)
    return context, str(pem)


async def test_tls_with_an_authority_of_ones_own_and_one_context_for_all_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, ca_file = certificate(tmp_path)
    made: list[ssl.SSLContext] = []
    make = ssl.create_default_context

    def counted(**more: Any) -> ssl.SSLContext:
        made.append(make(**more))
        return made[-1]

    monkeypatch.setattr(ssl, "create_default_context", counted)
    async with RawServer(hello, context) as server:
        for _ in range(3):
            pool = HttpPool(ca_file=ca_file)
            for _ in range(5):
                assert await pool.fetch(server.url) == b"hello"
            await pool.aclose()
    assert len(made) == 1
    assert server.connections == 3


async def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    context, _ = certificate(tmp_path)
    async with RawServer(hello, context) as server:
        pool = HttpPool()
        with pytest.raises(UpstreamUnavailable, match="not trusted"):
            await pool.fetch(server.url)
        await pool.aclose()
    assert server.requests == []


async def test_a_certificate_for_another_name_is_refused(tmp_path: Path) -> None:
    context, ca_file = certificate(tmp_path)
    async with RawServer(hello, context) as server:
        pool = HttpPool(ca_file=ca_file)
        with pytest.raises(UpstreamUnavailable, match="not trusted"):
            await pool.fetch(server.url.replace("127.0.0.1", "localhost"))
        await pool.aclose()


async def test_a_ca_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing here")
    for name in ("ca.pem", "absent.pem"):
        pool = HttpPool(ca_file=str(tmp_path / name))
        with pytest.raises(ConfigError, match="cannot be used"):
            await pool.fetch("https://127.0.0.1:1/")
        await pool.aclose()


async def test_http_goes_through_a_proxy_in_absolute_form() -> None:
    async with TunnelProxy() as proxy:
        pool = HttpPool(proxy=f"http://me:pass%20word@127.0.0.1:{proxy.port}")
        assert await pool.fetch("http://tools.example:81/mcp?x=1") == b"through the proxy"
        await pool.aclose()
    assert proxy.requests[0].target == "http://tools.example:81/mcp?x=1"
    assert proxy.requests[0].headers["host"] == "tools.example:81"
    assert proxy.requests[0].headers["proxy-authorization"] == "Basic bWU6cGFzcyB3b3Jk"


async def test_https_goes_through_a_tunnel(tmp_path: Path) -> None:
    context, ca_file = certificate(tmp_path)
    async with RawServer(hello, context) as server, TunnelProxy() as proxy:
        pool = HttpPool(ca_file=ca_file, proxy=f"http://me:secret@127.0.0.1:{proxy.port}")
        for _ in range(3):
            assert await pool.fetch(server.url) == b"hello"
        await pool.aclose()
        assert [request.method for request in proxy.requests] == ["CONNECT"]
        assert proxy.requests[0].target == f"127.0.0.1:{server.port}"
        assert "proxy-authorization" in proxy.requests[0].headers
        assert all("proxy-authorization" not in request.headers for request in server.requests)


async def test_a_proxy_that_refuses_the_tunnel() -> None:
    async with TunnelProxy(status=403) as proxy:
        pool = HttpPool(proxy=f"http://127.0.0.1:{proxy.port}")
        with pytest.raises(UpstreamUnavailable, match="answered 403 to CONNECT"):
            await pool.fetch("https://tools.example/mcp")
        await pool.aclose()


@pytest.mark.parametrize(
    ("url", "env", "chosen"),
    [
        ("http://a.example/", {"HTTP_PROXY": "http://p:1"}, True),
        ("http://a.example/", {"http_proxy": "p:1"}, True),
        ("https://a.example/", {"HTTP_PROXY": "http://p:1"}, False),
        ("https://a.example/", {"HTTPS_PROXY": "http://p:1"}, True),
        ("https://a.example/", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "b.example, example"}, False),
        ("https://a.example/", {"HTTPS_PROXY": "http://p:1", "no_proxy": ".example"}, False),
        ("https://a.example/", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, False),
        ("https://a.example/", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "a.example:8443"}, True),
        ("https://a.example:8443/", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "a.example:8443"}, False),
        ("https://ba.example/", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "a.example"}, True),
        ("https://10.1.2.3/", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "10.0.0.0/8"}, False),
        ("https://127.0.0.1/", {"HTTPS_PROXY": "http://p:1"}, False),
        ("https://localhost/", {"HTTPS_PROXY": "http://p:1"}, False),
    ],
)
async def test_which_proxy_the_environment_chooses(url: str, env: dict[str, str], chosen: bool) -> None:
    found = choose_proxy(parse_url(url), None, env)
    assert (found is not None) is chosen
    if found is not None:
        assert (found.host, found.port) == ("p", 1)


async def test_an_explicit_proxy_wins() -> None:
    address = parse_url("http://127.0.0.1/")
    assert choose_proxy(address, "http://p:2", {"NO_PROXY": "*"}) is not None
    assert choose_proxy(parse_url("http://a.example/"), "", {"HTTP_PROXY": "http://p:1"}) is None
    with pytest.raises(ConfigError):
        choose_proxy(address, "socks5://p:2", {})
