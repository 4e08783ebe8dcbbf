"""Topics, readers and mailboxes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from callgate.gateway.bus import SUBSCRIPTION, Bus, Mailbox, unstamped
from callgate.gateway.subscribing import parents
from callgate.types import News

pytestmark = pytest.mark.anyio


def test_readers_hear_what_they_joined_and_leave_nothing() -> None:
    bus, heard = Bus(), []
    for reader in range(200):
        for topic in (("list", "", "tools"), ("resource", "u", f"note:{reader}")):
            bus.join(topic, reader, lambda method, params, reader=reader: heard.append((reader, method)))
    assert len(bus) == 400
    bus.tell(("resource", "u", "note:7"), "m", {})
    assert heard == [(7, "m")]
    assert len(bus.readers(("list", "", "tools"))) == 200
    assert len(bus.everywhere("resource", "u")) == 200
    assert bus.leave(("resource", "u", "nothing"), 7) is None
    for reader in range(200):
        bus.forget(reader)
    assert (len(bus), bus._readers, bus._topics) == (0, {}, {})


def test_news_that_nobody_understands_go_nowhere_and_mistakes_end_nothing(caplog: pytest.LogCaptureFixture) -> None:
    bus = Bus()
    heard: list[News] = []
    bus.route("good", heard.append)
    bus.route("bad", lambda news: [][1])
    for method in ("unknown", "bad", "good"):
        bus.heard(News("u", method))
    assert [news.method for news in heard] == ["good"]
    assert "bad of server u" in caplog.text


@pytest.mark.rule("SUB-13")
async def test_a_mailbox_keeps_the_newest_of_each_kind() -> None:
    mail = Mailbox()
    for number in range(10_000):
        mail.put(number % 3, b"%d" % number)
    assert len(mail) == 3
    assert [await mail.next() for _ in range(3)] == [b"9999", b"9997", b"9998"]
    waiting = asyncio.create_task(mail.next())
    await asyncio.sleep(0)
    mail.put("late", b"late")
    assert await waiting == b"late"
    mail.put("last", b"last")
    mail.end()
    mail.put("more", b"more")
    assert [await mail.next(), await mail.next()] == [b"last", None]


@pytest.mark.rule("SUB-7")
def test_the_id_of_the_hop_is_taken_off() -> None:
    stamp: dict[str, Any] = {SUBSCRIPTION: 5}
    assert unstamped({"uri": "a", "_meta": stamp}) == {"uri": "a"}
    assert unstamped({"_meta": {**stamp, "x": None}}) == {"_meta": {"x": None}}
    assert unstamped({"_meta": 5}) == {"_meta": 5}


@pytest.mark.parametrize(
    ("uri", "above"),
    [
        ("note:1", ["note:1"]),
        ("note:1/a", ["note:1/a", "note:1/", "note:1"]),
        ("file:///a/b", ["file:///a/b", "file:///a/", "file:///a", "file:///"]),
        ("http://h", ["http://h"]),
        ("http://h/a", ["http://h/a", "http://h/", "http://h"]),
        ("", [""]),
    ],
)
def test_what_stands_above_a_uri(uri: str, above: list[str]) -> None:
    assert parents(uri) == above
