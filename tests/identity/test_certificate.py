"""How certificates of clients are read from the headers of proxies, and the attacks on that."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from callgate.config import ClientCertificates, load
from callgate.errors import ConfigError
from callgate.identity import Refused
from callgate.identity import certificate as module
from callgate.identity.certificate import Certificates, chain_of
from tests.servers.tls_proxy import Maker, client_cert, envoy, pem, thumbprint

PROXY = "10.0.0.7"


@pytest.fixture(scope="module")
def der(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return Maker(tmp_path_factory.mktemp("ca"), "root").make("client")[1]


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return Maker(tmp_path_factory.mktemp("ca"), "other").make("client")[1]


def reader(header: Any = "Client-Cert", *proxies: str) -> Certificates:
    return Certificates(ClientCertificates(proxies=proxies or (PROXY,), header=header))


def refused(certificates: Certificates, raw: str | bytes, chain: bytes | None = None) -> None:
    for _ in range(2):  # what was refused is not remembered as good
        with pytest.raises(Refused):
            certificates.read_all(raw if isinstance(raw, bytes) else raw.encode(), chain)


@pytest.mark.key("identity.client_certificates.header")
def test_each_header_as_its_proxy_writes_it(der: bytes) -> None:
    found = reader().read(client_cert(der).encode())
    assert (found.thumbprint, found.der) == (thumbprint(der), der)
    for text in (
        envoy(der),
        envoy(der, "By=spiffe://a/b", 'Subject="CN=x, O=\\"y\\""', "URI=spiffe://c/d", "DNS=e", "DNS=f"),
    ):
        assert reader("X-Forwarded-Client-Cert").read(text.encode()) == found
    alone = reader("X-Forwarded-Client-Cert").read(b"hash=" + hashlib.sha256(der).hexdigest().encode())
    assert (alone.thumbprint, alone.der) == (thumbprint(der), b"")


def test_the_certificates_in_between(der: bytes, other: bytes) -> None:
    listed = f"{client_cert(other)}, {client_cert(der)}".encode()
    assert reader().read_all(client_cert(der).encode(), listed).between == (other, der)
    assert chain_of(client_cert(other).encode()) == (other,)
    both = quote(pem(der) + pem(other), safe="")
    whole = reader("X-Forwarded-Client-Cert").read_all(envoy(der, f'Chain="{both}"').encode(), None)
    assert (whole.der, whole.between) == (der, (other,))
    refused(reader(), client_cert(der), b"x")
    refused(reader(), client_cert(der), b":AA==:, x")
    refused(reader(), client_cert(der), (client_cert(other) + ", ").encode() * 40 + client_cert(other).encode())
    refused(reader("X-Forwarded-Client-Cert"), envoy(other, f'Chain="{both}"'))
    refused(reader("X-Forwarded-Client-Cert"), envoy(der, f'Chain="{quote(pem(der) * 9, safe="")}"'))


@pytest.mark.parametrize(
    "change",
    [
        lambda good: "",
        lambda good: "::",
        lambda good: good[1:-1],
        lambda good: good + ";a=1",
        lambda good: f"{good}, {good}",
        lambda good: good + good,
        lambda good: good.replace("A", "-", 1),
        lambda good: good[:20] + " " + good[20:],
        lambda good: good[:20] + "\n" + good[20:],
        lambda good: good[:20] + "\x00" + good[20:],
        lambda good: ":" + base64.b64encode(b"no certificate").decode() + ":",
        lambda good: ":" + "A" * 20_000 + ":",
        lambda good: '"' + good + '"',
        lambda good: good[:-2] + ":",
    ],
)
def test_attack_a_client_cert_that_can_be_read_in_two_ways(der: bytes, change: Any) -> None:
    refused(reader(), change(client_cert(der)))


def test_attack_an_envoy_header_that_can_be_read_in_two_ways(der: bytes, other: bytes) -> None:
    good, theirs = envoy(der), envoy(other)
    digest = hashlib.sha256(der).hexdigest()
    certificates = reader("X-Forwarded-Client-Cert")
    for bad in (
        "", ";", "=", "Hash", "Hash=", "Hash=xyz", f"Hash={digest[:-2]}", f"Hash={digest}00", "By=x;URI=y",
        f"{good},{theirs}", f"{theirs},{good}", f"{good},", f"{good};", f"{good};{theirs}",
        f"Hash={digest};Hash={digest}",
        f"Hash={hashlib.sha256(other).hexdigest()};{good.partition(';')[2]}", f'Hash="{digest}', f"Hash=\"{digest}\"x",
        f"Cert={quote(pem(der) + pem(other), safe='')}", f"Cert={quote('x' + pem(der), safe='')}",
        f"Cert={quote(pem(der).replace('CERTIFICATE', 'PRIVATE KEY'), safe='')}", "Cert=%", "Cert=",
        f"Subject=\"a\\\";Hash={digest}", f"Hash={digest} ", f" Hash={digest}", f"Hash={digest};Sub ject=x",
    ):  # fmt: skip
        refused(certificates, bad)
    assert certificates.read(good.encode()).der == der


@pytest.mark.key("identity.client_certificates.proxies")
@pytest.mark.parametrize(
    ("proxies", "trusted", "strangers"),
    [
        (("10.0.0.7",), ("10.0.0.7", "::ffff:10.0.0.7"), ("10.0.0.8", "127.0.0.1", "", "::", "host", "10.0.0.7:80")),
        (("10.1.0.0/16", "fd12::/32"), ("10.1.2.3", "fd12::1", "fd12::1%eth0"), ("10.2.0.1", "fd13::1", "::1")),
    ],
)
def test_whose_header_counts(proxies: tuple[str, ...], trusted: tuple[str, ...], strangers: tuple[str, ...]) -> None:
    certificates = reader("Client-Cert", *proxies)
    for _ in range(2):
        assert [each for each in (*trusted, *strangers) if certificates.trusts(each)] == list(trusted)


def test_what_is_remembered_is_bounded(der: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 3)
    certificates = reader("X-Forwarded-Client-Cert")
    for number in range(8):
        certificates.trusts(f"10.0.0.{number}")
        certificates.read(f"By=x{number};{envoy(der)}".encode())
    assert len(certificates._known) == 3 and len(certificates._peers) == 3


@pytest.mark.parametrize(
    ("certificates", "says"),
    [
        ({"proxies": []}, "proxies"),
        ({}, "proxies"),
        ({"proxies": ["proxy.example.org"]}, "not an address"),
        ({"proxies": ["10.0.0.0/33"]}, "not an address"),
        ({"proxies": ["0.0.0.0/0"]}, "trusts everybody"),
        ({"proxies": ["::/0"]}, "trusts everybody"),
        ({"proxies": [PROXY], "header": "X-Client-Cert"}, "header"),
    ],
)
def test_settings_that_cannot_be_meant(tmp_path: Path, certificates: dict[str, Any], says: str) -> None:
    import json

    identity: dict[str, Any] = {"oauth": {}, "client_certificates": certificates}
    file = tmp_path / "callgate.yaml"
    file.write_text(json.dumps({"identity": identity}))
    with pytest.raises(ConfigError) as caught:
        load(file, env={}, cwd=tmp_path, system=tmp_path / "none")
    assert says in str([each.message for each in (caught.value, *caught.value.problems)])
    del identity["oauth"]
    file.write_text(json.dumps({"identity": {"client_certificates": {"proxies": [PROXY]}}}))
    with pytest.raises(ConfigError, match="no effect"):
        load(file, env={}, cwd=tmp_path, system=tmp_path / "none")
