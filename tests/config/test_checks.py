"""What the cross checks accept; what they refuse is in ``tests/golden/config``."""

from __future__ import annotations

import pytest

from callgate.config import parse_address
from tests.config.folder import Folder

KEY = f"{{subject: ci, sha256: {'ab' * 32}}}"


@pytest.mark.parametrize(
    ("text", "address", "loopback"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080), True),
        ("127.9.9.9:0", ("127.9.9.9", 0), True),
        ("[::1]:8080", ("::1", 8080), True),
        ("localhost:65535", ("localhost", 65535), True),
        ("0.0.0.0:80", ("0.0.0.0", 80), False),
        ("[::]:80", ("::", 80), False),
        ("gate.example.org:443", ("gate.example.org", 443), False),
        ("localhost.example.org:1", ("localhost.example.org", 1), False),
    ],
)
def test_addresses(text: str, address: tuple[str, int], loopback: bool) -> None:
    found = parse_address(text)
    assert found == address
    assert found is not None
    assert found.loopback is loopback
    assert str(found) == text


@pytest.mark.parametrize(
    "text",
    ["8080", ":8080", "localhost", "127.0.0.1:", "127.0.0.1:65536", "::1:80",
     "[::1]", "[::g]:1", "1.2.3:80", "a b:1", "300.0.0.1:1"],
)  # fmt: skip
def test_what_is_no_address(text: str) -> None:
    assert parse_address(text) is None


@pytest.mark.parametrize("listen", ["0.0.0.0:8080", "'[::]:8080'", "gate.example.org:443", "10.0.0.1:0"])
def test_an_open_door_needs_a_policy_and_an_identity_source(folder: Folder, listen: str) -> None:
    folder.write("policy.yaml", "version: 1")
    whole = f"listen: {listen}\npolicy: policy.yaml\nidentity: {{keys: [{KEY}]}}"
    assert folder.load(whole).settings.identity.keys
    for text, lacks in [
        (f"listen: {listen}", "a policy and an identity source"),
        (f"listen: {listen}\npolicy: policy.yaml", "an identity source"),
        (f"listen: {listen}\npolicy: []\nidentity: {{keys: [{KEY}]}}", "a policy"),
    ]:
        (problem,) = folder.refused(text)
        assert problem.message.endswith(f"which other machines reach, needs {lacks}")


def test_an_open_door_by_flag_or_variable_is_refused_too(folder: Folder) -> None:
    (problem,) = folder.refused("watch: true", CALLGATE_LISTEN="0.0.0.0:80")
    assert problem.place is not None
    assert problem.place.text == "CALLGATE_LISTEN=0.0.0.0:80"


def test_anonymous_callers_never_come_through_an_open_door(folder: Folder) -> None:
    folder.write("policy.yaml", "version: 1")
    text = f"listen: 0.0.0.0:80\npolicy: policy.yaml\nidentity: {{anonymous: true, keys: [{KEY}]}}"
    assert "`anonymous` is not possible" in folder.refused(text)[0].message
    assert folder.load(text.replace("true", "false")).settings.identity.anonymous is False
    assert folder.load("identity: {anonymous: true}").settings.identity.anonymous is True


@pytest.mark.parametrize("name", ["a", "A-1", "my.server", "x_y", "0", "a" * 64])
def test_names_of_servers(folder: Folder, name: str) -> None:
    assert name in folder.load(f"servers: {{'{name}': {{command: x}}}}").settings.servers


@pytest.mark.parametrize("name", ["", "-a", ".", "..", "a/b", "a b", "ä", "a" * 65, "a\\n", "a%2f"])
def test_names_that_are_refused(folder: Folder, name: str) -> None:
    assert "cannot be the name" in folder.refused(f'servers: {{"{name}": {{command: x}}}}')[0].message
    text = f'servers: {{a: {{command: x}}}}\nvirtual_servers: {{"{name}": {{tools: ["a/*"]}}}}'
    assert "cannot be the name" in folder.refused(text)[0].message


@pytest.mark.parametrize("glob", ["time/*", "*/*", "ti*/now", "[st]ime/x", "time/a/b"])
def test_globs_that_match_a_server(folder: Folder, glob: str) -> None:
    text = f"servers: {{time: {{command: x}}}}\nvirtual_servers: {{v: {{tools: ['{glob}']}}}}"
    assert folder.load(text).settings.virtual_servers["v"].tools == (glob,)


def test_a_disabled_server_may_name_what_is_not_there(folder: Folder) -> None:
    assert folder.load("servers: {a: {command: x, cwd: nowhere, disabled: true}}").settings.servers["a"].disabled


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/mcp", "https://[::1]/", "https://u:p@example.org/mcp?x=1"])
def test_urls(folder: Folder, url: str) -> None:
    assert folder.load(f"servers: {{a: {{url: '{url}', proxy: '{url}'}}}}").settings.servers["a"].url == url


@pytest.mark.parametrize(
    "url", ["ftp://x", "x", "http://", "http://[::1", "http://a b/", "file:///etc/passwd", "http://x:y/"]
)
def test_urls_that_are_refused(folder: Folder, url: str) -> None:
    assert len(folder.refused(f"servers: {{a: {{url: '{url}'}}}}")) == 1
    assert len(folder.refused(f"servers: {{a: {{url: 'http://x', proxy: '{url}'}}}}")) == 1


@pytest.mark.key("servers.type")
@pytest.mark.parametrize("key", ["type: stdio", "type: http"])
def test_a_type_agrees(folder: Folder, key: str) -> None:
    right, wrong = ("command: x", "url: http://x") if "stdio" in key else ("url: http://x", "command: x")
    assert folder.load(f"servers: {{a: {{{right}, {key}}}}}").settings.servers
    assert "its type is not" in folder.refused(f"servers: {{a: {{{wrong}, {key}}}}}")[0].message


def test_two_listeners_on_port_zero_do_not_collide(folder: Folder) -> None:
    assert folder.load("listen: 127.0.0.1:0\nadmin_listen: 127.0.0.1:0").settings.listen == "127.0.0.1:0"


def test_the_same_key_is_refused_whatever_its_case(folder: Folder) -> None:
    upper = KEY.replace("ab" * 32, "AB" * 32)
    assert "the same key is given twice" in folder.refused(f"identity: {{keys: [{KEY}, {upper}]}}")[0].message


def test_an_issuer_with_a_fragment_would_be_somebody_of_another_issuer(folder: Folder) -> None:
    """Our tokens name people `ISSUER#SUBJECT`."""
    text = "identity: {jwt: [{issuer: 'https://idp.example#a', audience: x, jwks_uri: 'https://idp.example/k'}]}"
    assert "has a `#`" in folder.refused(text)[0].message


@pytest.mark.parametrize("algorithm", ["none", "None", "HS256", "HS512", "rs256", ""])
def test_unsigned_tokens_and_shared_secrets_are_refused(folder: Folder, algorithm: str) -> None:
    issuer = f"{{issuer: 'https://idp', audience: x, algorithms: ['{algorithm}']}}"
    assert "is not accepted" in folder.refused(f"identity: {{jwt: [{issuer}]}}")[0].message
