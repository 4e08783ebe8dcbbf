"""Servers that ask back, in the way of their era, and clients' requests that say what can be asked."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from tests.fuzz.messages import PREFIX, modern
from tests.fuzz.raw import Reply
from tests.gateway.library import LegacyLibrary, ModernLibrary
from tests.gateway.stand import Stand
from tests.gateway.upstreams import text, tools
from tests.servers.mcp_http import result_of
from tests.servers.raw_http import Peer, Request

ALL: dict[str, Any] = {"elicitation": {"form": {}, "url": {}}, "sampling": {"tools": {}}, "roots": {}}
FORM: dict[str, Any] = {"message": "Who?", "requestedSchema": {"type": "object", "properties": {}}}
NAME = {"action": "accept", "content": {"name": "Ada"}}
ROOTS: dict[str, Any] = {"method": "roots/list"}
NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}


def elicit(**params: Any) -> dict[str, Any]:
    return {"method": "elicitation/create", "params": {**FORM, **params}}


def sample(**params: Any) -> dict[str, Any]:
    return {"method": "sampling/createMessage", "params": {"messages": [], "maxTokens": 9, **params}}


def asks(requests: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """An ``input_required`` result."""
    return {"resultType": "input_required", **({} if requests is None else {"inputRequests": requests}), **more}


Play = Callable[[dict[str, Any]], Any]


class ModernAsker(ModernLibrary):
    """``plays`` makes the result of a call from its params; ``got`` are the params, ``ids`` the JSON-RPC ids."""

    def __init__(self, **plays: Play) -> None:
        super().__init__()
        self.plays = plays
        self.got: list[dict[str, Any]] = []
        self.ids: list[Any] = []
        self.tools = tools(*plays)

    async def __call__(self, request: Request, peer: Peer) -> None:
        message = request.message
        params = message.get("params", {})
        play = self.plays.get(str(params.get("name", params.get("uri"))))
        if message["method"] not in NAMED or play is None:
            await super().__call__(request, peer)
            return
        self.ids.append(message["id"])
        self.got.append(params)
        peer.json(result_of(message["id"], play(params)))


Talk = Callable[["LegacyAsker", dict[str, Any], Peer], Awaitable[Any]]


class LegacyAsker(LegacyLibrary):
    """``talks`` says what happens during a call: each gets the message and its open event stream, and returns the
    result. ``ended`` are the names of calls whose connection was given up, ``declared`` the clients' capabilities.
    """

    def __init__(self, **talks: Talk) -> None:
        super().__init__()
        self.talks = talks
        self.tools = tools(*talks)
        self.calls: list[dict[str, Any]] = []
        self.declared: list[dict[str, Any]] = []
        self._open: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._ids = itertools.count(1)

    async def ask(self, peer: Peer, question: Mapping[str, Any]) -> dict[str, Any]:
        """Ask the client on this stream and wait for its JSON-RPC response."""
        id = f"q{next(self._ids)}"
        answered: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._open[id] = answered
        peer.event({"jsonrpc": "2.0", "id": id, **question})
        return await answered

    async def _post(self, request: Request, peer: Peer, session: str) -> None:
        message = request.message
        method, params = message.get("method"), message.get("params", {})
        if method is None and message["id"] in self._open:
            self._open[message["id"]].set_result(message)
        talk = self.talks.get(str(params.get("name", params.get("uri")))) if method in NAMED else None
        if method == "initialize":
            self.declared.append(params["capabilities"])
        if talk is None:
            await super()._post(request, peer, session)
            return
        self.calls.append(params)
        peer.sse_head()
        said = await talk(self, message, peer)
        peer.event({"jsonrpc": "2.0", "id": message["id"], **(said if "error" in said else {"result": said})})
        peer.chunk(b"")


def asking(question: Mapping[str, Any], times: int = 1) -> Talk:
    """Asks this so many times, one after the other, and says what it heard."""

    async def talk(server: LegacyAsker, message: dict[str, Any], peer: Peer) -> Any:
        heard = [await server.ask(peer, question) for _ in range(times)]
        return text(json.dumps([each.get("result", each.get("error")) for each in heard]))

    return talk


def said(reply: Reply) -> Any:
    """What the tool heard, as ``asking`` says it."""
    assert reply.status == 200, reply
    return json.loads(reply.json["result"]["content"][0]["text"])


def asking_message(
    method: str, name: str, arguments: Mapping[str, Any] | None = None, capabilities: Any = ALL, **more: Any
) -> dict[str, Any]:
    """A modern request whose sender can be asked."""
    params = {NAMED[method]: name, **more}
    if method != "resources/read":
        params["arguments"] = dict(arguments or {})
    message = modern(method, params, 1)
    message["params"]["_meta"][PREFIX + "clientCapabilities"] = capabilities
    return message


class Client:
    """A modern client that can be asked: ``first = await client.call("u__ask")``, then ``client.back(first, …)``."""

    def __init__(
        self,
        stand: Stand,
        capabilities: Mapping[str, Any] | None = None,
        who: str | None = None,
        path: str = "/mcp",
        method: str = "tools/call",
    ) -> None:
        self.stand = stand
        self.capabilities = ALL if capabilities is None else capabilities
        self.who = who
        self.path = path
        self.method = method

    def message(self, name: str, arguments: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        return asking_message(self.method, name, arguments, self.capabilities, **more)

    def request(self, message: dict[str, Any]) -> bytes:
        more = [("Mcp-Name", message["params"]["uri"])] if self.method == "resources/read" else []
        return self.stand.request(message, *more, who=self.who, path=self.path)

    async def call(self, name: str, arguments: Mapping[str, Any] | None = None, **more: Any) -> Reply:
        return await self.stand.ask(self.request(self.message(name, arguments, **more)))

    async def back(self, reply: Reply, name: str, responses: Any, arguments: Mapping[str, Any] | None = None) -> Reply:
        """Come back with answers to the questions in ``reply``."""
        return await self.call(name, arguments, inputResponses=responses, requestState=state(reply))


def asked(reply: Reply) -> dict[str, Any]:
    """The questions in a reply, by key."""
    assert reply.status == 200, reply
    result = reply.json["result"]
    assert result["resultType"] == "input_required", reply
    assert isinstance(result["requestState"], str)
    assert not {"ttlMs", "cacheScope"} & result.keys()
    requests: dict[str, Any] = result.get("inputRequests", {})
    return {key: unsigned(each) for key, each in requests.items()}


def unsigned(question: dict[str, Any]) -> dict[str, Any]:
    """A question without the name of its server, which questions on aggregates carry (rule ELI-5)."""
    params = dict(question.get("params", {}))
    meta = dict(params.pop("_meta", {}))
    assert meta.pop("callgate/server", "u") == "u"
    left = {**params, **({"_meta": meta} if meta else {})}
    return {"method": question["method"], **({"params": left} if left else {})}


def state(reply: Reply) -> str:
    found: str = reply.json["result"]["requestState"]
    return found
