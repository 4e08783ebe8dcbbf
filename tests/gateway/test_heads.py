"""Heads that are known need no parser; what differs in a byte does, and nothing may pass for one."""

from __future__ import annotations

import pytest

from callgate.gateway.heads import KEPT, Heads

PAIRS = [(b"host", b"localhost"), (b"content-length", b"2")]
HEAD = b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n"


def known(data: bytes = HEAD + b"{}", pairs: list[tuple[bytes, bytes]] = PAIRS, largest: int = 100) -> Heads:
    heads = Heads()
    heads.remember(data, "door", pairs, largest)
    return heads


def test_the_same_bytes_mean_the_same_again() -> None:
    found = known().find(HEAD + b"[]")
    assert found is not None
    assert (found[0].door, found[0].headers[b"host"], found[1]) == ("door", b"localhost", b"[]")


@pytest.mark.parametrize(
    "data",
    [
        HEAD,
        HEAD + b"{",
        HEAD + b"{}x",
        HEAD + b"{}" + HEAD + b"{}",
        HEAD.replace(b"localhost", b"evil.test") + b"{}",
        HEAD.replace(b": 2", b": 3") + b"{}",
        b"\r\n" + HEAD + b"{}",
        HEAD[:-2],
        b"",
        b"\r\n\r\n",
        b"\r\n\r\n" + HEAD + b"{}",
    ],
)
def test_anything_else_goes_to_the_parser(data: bytes) -> None:
    assert known().find(data) is None


@pytest.mark.parametrize(
    ("data", "pairs"),
    [
        (b"\r\n\r\n" + HEAD + b"{}", PAIRS),
        (HEAD.replace(b"POST", b"GET"), PAIRS),
        (HEAD.replace(b"1.1", b"1.0") + b"{}", PAIRS),
        (HEAD.replace(b"1.1", b"1.0").replace(b"localhost", b"x HTTP/1.1") + b"{}", PAIRS),
        (HEAD.replace(b"Host: localhost", b"Host: localhost\nX: y") + b"{}", PAIRS),
        (HEAD, [*PAIRS, (b"x", b"y")]),
        (HEAD, PAIRS[:1]),
        (HEAD, [PAIRS[0], (b"content-length", b"101")]),
        (HEAD, [PAIRS[0], (b"content-length", b"-1")]),
        (HEAD[:-2] + b"Expect: 100-continue\r\n\r\n", [*PAIRS, (b"expect", b"100-continue")]),
        (HEAD[:-2] + b"Connection: close\r\n\r\n", [*PAIRS, (b"connection", b"close")]),
        (HEAD[:-2] + b"Transfer-Encoding: chunked\r\n\r\n", [*PAIRS, (b"transfer-encoding", b"chunked")]),
        (HEAD[:-2] + b"X: " + b"y" * 5000 + b"\r\n\r\n", [*PAIRS, (b"x", b"y" * 5000)]),
    ],
)
def test_a_head_with_anything_odd_about_it_is_not_kept(data: bytes, pairs: list[tuple[bytes, bytes]]) -> None:
    assert known(data, pairs).find(data + b"{}") is None
    assert known(data, pairs).find(data) is None


def test_only_the_newest_heads_are_kept() -> None:
    heads = Heads()
    datas = [HEAD.replace(b"/mcp", b"/mcp?%d" % n) + b"{}" for n in range(KEPT + 1)]
    for data in datas:
        heads.remember(data, "", PAIRS, 100)
    assert heads.find(datas[0]) is None
    assert all(heads.find(data) for data in datas[1:])
