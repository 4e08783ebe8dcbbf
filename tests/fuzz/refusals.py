"""What a refusal has to look like."""

from __future__ import annotations

from tests.fuzz.conftest import Gateway
from tests.fuzz.raw import Connection, Reply


def refused(reply: Reply, *statuses: int) -> Reply:
    """Refused with one of these statuses, and without an answer hidden in the refusal."""
    assert reply.status in statuses, reply
    assert b'"result"' not in reply.body, reply
    return reply


def only_refusals(gateway: Gateway, data: bytes, *statuses: int) -> None:
    """The first reply is a refusal, and the connection ends with it: what follows is not taken for a request."""
    with Connection(gateway.address) as connection:
        connection.send(data)
        replies = connection.replies()
    assert len(replies) == 1, replies
    refused(replies[0], *statuses)
