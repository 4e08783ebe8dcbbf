"""Whatever is sent: an answer or the end of the connection in time, never 500, and a healthy neighbour notices nothing.

``FUZZ=deep`` draws many more examples, and different ones in every run; without it a few that are always the same.
"""

from __future__ import annotations

import json
import os
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz.conftest import Gateway
from tests.fuzz.messages import LEGACY, dump, echo, initialize, post, send
from tests.fuzz.raw import Connection, Reply, outcome
from tests.fuzz.strategies import BODIES, LEGACY_BODIES, REQUESTS, broken, broken_bodies, chunked, whole

DEEP = os.environ.get("FUZZ") == "deep"
fuzzed = settings(
    max_examples=2000 if DEEP else 60,
    deadline=None,  # every wait has its own
    derandomize=not DEEP,
    database=None,
    print_blob=True,
    phases=[Phase.explicit, Phase.generate, Phase.shrink] if DEEP else [Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)


def sound(replies: list[Reply]) -> None:
    """Every reply is one that callgate gives on purpose, and JSON where it says so."""
    for reply in replies:
        assert 200 <= reply.status < 600, reply
        assert reply.status != 500, reply
        if reply.headers.get("content-type") == "application/json" and reply.body:
            json.loads(reply.body)


def attack(gateway: Gateway, data: bytes) -> list[Reply]:
    replies = outcome(gateway.address, data)
    gateway.unharmed()
    sound(replies)
    return replies


@fuzzed
@given(data=st.binary(max_size=3000))
def test_any_bytes(gateway: Gateway, data: bytes) -> None:
    attack(gateway, data)


@fuzzed
@given(data=broken())
def test_broken_requests(gateway: Gateway, data: bytes) -> None:
    attack(gateway, data)


@fuzzed
@given(data=broken_bodies())
def test_broken_bodies(gateway: Gateway, data: bytes) -> None:
    attack(gateway, data)


@fuzzed
@given(data=REQUESTS)
def test_any_headers_and_paths(gateway: Gateway, data: bytes) -> None:
    attack(gateway, data)


@fuzzed
@given(data=chunked())
def test_chunked_bodies(gateway: Gateway, data: bytes) -> None:
    attack(gateway, data)


@fuzzed
@given(body=BODIES)
def test_modern_shapes(gateway: Gateway, body: Any) -> None:
    """The message decides the answer: HTTP is well-formed here."""
    replies = attack(gateway, whole(body, [], "/mcp", "POST"))
    assert len(replies) == 1, replies
    answers(body, replies[0])


@fuzzed
@given(bodies=st.lists(LEGACY_BODIES, min_size=1, max_size=4))
def test_legacy_shapes_in_a_session(gateway: Gateway, bodies: list[Any]) -> None:
    opened = gateway.ask(post(gateway.port, dump(initialize())))
    session = [("Mcp-Session-Id", opened.headers["mcp-session-id"]), ("MCP-Protocol-Version", LEGACY)]
    for body in bodies:
        replies = attack(gateway, post(gateway.port, dump(body), session))
        assert len(replies) == 1, replies
        answers(body, replies[0])


@fuzzed
@given(message=LEGACY_BODIES.filter(lambda body: isinstance(body, dict)))
def test_legacy_shapes_of_the_handshake(gateway: Gateway, message: dict[str, Any]) -> None:
    message["method"] = "initialize"
    replies = attack(gateway, post(gateway.port, dump(message)))
    assert len(replies) == 1, replies


@fuzzed
@given(data=st.data())
def test_the_pieces_that_arrive_do_not_matter(gateway: Gateway, data: st.DataObject) -> None:
    """A good request cut anywhere is answered like a whole one."""
    request = send(gateway.port, echo("in pieces", 7))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(request) - 1), max_size=8)))
    with Connection(gateway.address) as connection:
        for begin, end in zip([0, *cuts], [*cuts, len(request)], strict=True):
            connection.send(request[begin:end])
        reply = connection.reply()
    assert reply is not None
    assert (reply.status, reply.json["id"]) == (200, 7)
    gateway.unharmed()


def answers(body: Any, reply: Reply) -> None:
    """A message with an id is answered under that id or refused without one; nothing is answered as somebody else."""
    if not reply.body or not isinstance(body, dict):
        return
    answer = reply.json
    assert isinstance(answer, dict), answer
    assert ("result" in answer) != ("error" in answer), answer
    assert answer["id"] is None or answer["id"] == body.get("id"), answer
    if "result" in answer:
        assert answer["id"] == body.get("id")
