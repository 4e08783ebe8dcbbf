"""A legacy client that is asked in the middle of its call, and answers by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.fuzz.messages import rpc
from tests.fuzz.raw import Reply
from tests.gateway.stand import LegacyClient, Wire

#: What clients of the tests declare when they can be asked everything.
EVERYTHING: dict[str, Any] = {"elicitation": {}, "sampling": {}, "roots": {}}
ANN = {"action": "accept", "content": {"name": "Ann"}}


def form(message: str = "Who?") -> dict[str, Any]:
    schema = {"type": "object", "properties": {"name": {"type": "string"}}}
    return {"method": "elicitation/create", "params": {"message": message, "requestedSchema": schema}}


def sample(text: str = "Say hi") -> dict[str, Any]:
    messages = [{"role": "user", "content": {"type": "text", "text": text}}]
    return {"method": "sampling/createMessage", "params": {"messages": messages, "maxTokens": 10}}


async def begin(client: LegacyClient, tool: str, id: object = 1, **arguments: Any) -> Wire:
    """The event stream of a call that asks."""
    return await stream(client, rpc("tools/call", {"name": tool, "arguments": arguments}, id))


async def stream(client: LegacyClient, message: Any) -> Wire:
    wire = await client.stand.connect()
    wire.send(client.request(message))
    status, headers = await wire.head()
    assert (status, headers["content-type"]) == (200, "text/event-stream")
    return wire


async def come_back(client: LegacyClient, last: str) -> Wire:
    """The GET stream of a client that lost one after this event."""
    wire = await client.stand.connect()
    more = client.headers(("Accept", "text/event-stream"), ("Last-Event-ID", last))
    wire.send(client.stand.page(client.path, *more))
    status, _ = await wire.head()
    assert status == 200
    return wire


async def answer(client: LegacyClient, question: Mapping[str, Any], result: Any = ANN, **error: Any) -> Reply:
    """Answer a question as the client, or refuse it: ``code=…, message=…``."""
    body = {"error": error} if error else {"result": result}
    reply = await client.post({"jsonrpc": "2.0", "id": question["id"], **body})
    assert reply.status == 202, reply
    return reply


def params(question: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a question as the server sent them: without the name of the server, which aggregates add."""
    found: dict[str, Any] = dict(question.get("params", {}))
    if found.get("_meta", {}).keys() == {"callgate/server"}:
        del found["_meta"]
    return found


def said(message: Mapping[str, Any]) -> str:
    """The text of a tool's result."""
    text: str = message["result"]["content"][0]["text"]
    return text
