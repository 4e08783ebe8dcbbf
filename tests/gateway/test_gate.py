"""Host and Origin: which names a listener answers to (rule HTTP-3, DNS rebinding)."""

from __future__ import annotations

import pytest

from callgate.gateway.gate import Names

LOOPBACK = Names("127.0.0.1", 8080, ["box.internal"], ["https://app.example.org"])
EVERYWHERE = Names("0.0.0.0", 80, ["gate.example.org"], [])


@pytest.mark.rule("HTTP-3")
@pytest.mark.parametrize(
    ("host", "ours"),
    [
        (b"127.0.0.1:8080", True), (b"localhost", True), (b"[::1]:8080", True), (b"LOCALHOST:8080", True),
        (b"box.internal", True), (b"box.internal:9000", True),
        (b"evil.example.org", False), (b"evil.example.org:8080", False), (b"localhost.evil.org", False),
        (b"127.0.0.1.evil.org", False), (b"10.0.0.7", False), (b"", False), (b"localhost:80:80", False),
        (b"localhost@evil.org", False), (b"\xff", False),
    ],
)  # fmt: skip
def test_a_loopback_listener_answers_to_loopback_names_only(host: bytes, ours: bool) -> None:
    assert LOOPBACK.host(host) is ours


@pytest.mark.parametrize(
    ("host", "ours"),
    [(b"gate.example.org", True), (b"192.168.1.5:80", True), (b"[2001:db8::1]", True), (b"evil.example.org", False)],
)
def test_a_public_listener_answers_to_addresses_and_configured_names(host: bytes, ours: bool) -> None:
    assert EVERYWHERE.host(host) is ours


@pytest.mark.rule("HTTP-3")
@pytest.mark.parametrize(
    ("origin", "ours"),
    [
        (b"http://localhost:8080", True), (b"http://127.0.0.1:8080", True), (b"https://app.example.org", True),
        (b"http://localhost:3000", False), (b"http://localhost", False), (b"null", False), (b"", False),
        (b"https://evil.example.org", False), (b"http://evil.example.org:8080", False),
        (b"https://app.example.org.evil.org", False), (b"file://", False), (b"http://localhost:8080/x", False),
    ],
)  # fmt: skip
def test_a_page_may_call_only_from_the_listeners_own_or_a_configured_origin(origin: bytes, ours: bool) -> None:
    assert LOOPBACK.origin(origin) is ours


def test_many_different_values_do_not_fill_the_memory() -> None:
    names = Names("127.0.0.1", 8080, [], [])
    for number in range(5000):
        assert not names.host(b"evil%d.example.org" % number)
    assert len(names._known) <= 512
