from __future__ import annotations

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callgate.egress import EventStream, SseParser
from callgate.errors import UpstreamError

STREAM = (
    b"\xef\xbb\xbf: a comment\n\ndata: one\n\nevent: message\r\ndata: two\r\ndata: lines\r\n\r\n"
    b"id: 7\rdata:three\r\revent: ping\ndata: not for us\n\nretry: 10\n\ndata\n\ndata: unfinished"
)
EVENTS = [b"one", b"two\nlines", b"three", b""]


@given(st.lists(st.integers(1, len(STREAM) - 1), max_size=12))
def test_the_cuts_between_chunks_do_not_matter(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(STREAM)]
    parser = SseParser(1000)
    found = [event for a, b in itertools.pairwise(places) for event in parser.feed(STREAM[a:b])]
    assert found == EVENTS


def test_many_events_larger_together_than_the_limit_pass() -> None:
    parser = SseParser(100)
    assert len(parser.feed(b"data: 0123456789\n\n" * 50)) == 50


@pytest.mark.parametrize("attack", [b"data: " + b"x" * 200, b"data: x\n" * 100, b"data: " + b"x" * 200 + b"\n\n"])
def test_an_event_larger_than_the_limit_is_refused(attack: bytes) -> None:
    parser = SseParser(100)
    pieces = (attack[start : start + 7] for start in range(0, len(attack), 7))
    with pytest.raises(UpstreamError, match="larger than 100 bytes"):
        list(map(parser.feed, pieces))


class Tap:
    """Stands for the connection."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def pause(self) -> None:
        self.said.append("pause")

    def resume(self) -> None:
        self.said.append("resume")

    def abandon(self) -> None:
        self.said.append("abandon")

    def linger(self) -> None:
        self.said.append("linger")


@pytest.mark.anyio
async def test_a_slow_reader_pauses_the_connection() -> None:
    tap = Tap()
    stream = EventStream(tap, 1 << 20)
    event = b"data: " + b"x" * 100_000 + b"\n\n"
    for _ in range(3):
        stream.feed(event)
    assert tap.said == ["pause"]
    stream.end()
    sizes = []
    while (data := await stream.next()) is not None:
        sizes.append(len(data))
    assert sizes == [100_000] * 3
    assert tap.said == ["pause", "resume"]


@pytest.mark.anyio
async def test_a_flood_of_empty_events_pauses_the_connection() -> None:
    tap = Tap()
    EventStream(tap, 1 << 20).feed(b"data\n\n" * 10_000)
    assert tap.said == ["pause"]


@pytest.mark.anyio
async def test_events_before_a_failure_are_delivered() -> None:
    stream = EventStream(Tap(), 1000)
    stream.feed(b"data: one\n\n")
    stream.end(UpstreamError("gone"))
    assert await stream.next() == b"one"
    with pytest.raises(UpstreamError, match="gone"):
        await stream.next()


@pytest.mark.anyio
async def test_a_reader_that_waits_is_woken() -> None:
    stream = EventStream(Tap(), 1000)
    reader = asyncio.create_task(stream.next())
    await asyncio.sleep(0)
    stream.feed(b"data: late\n\n")
    assert await reader == b"late"


def test_the_place_of_the_last_event_and_the_pause_that_is_asked_for_are_known() -> None:
    parser = SseParser(1000)
    assert (parser.last_id, parser.retry) == (b"", -1)
    parser.feed(b"id: a1\nretry: 250\ndata: x\n\nid:a2\nretry: soon\nretry: -1\n\n")
    assert (parser.last_id, parser.retry) == (b"a2", 250)
    parser.feed(b"retry: 99999999999999999999\nid: not for a header\n\n")
    assert (parser.last_id, parser.retry) == (b"", 60_000)
