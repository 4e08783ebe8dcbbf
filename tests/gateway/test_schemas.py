"""JSON Schemas and structured results, which are the business of servers and clients: callgate carries them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.stand import Stand
from tests.gateway.upstreams import Legacy, Modern, Script, http, serve, text, tool
from tests.servers.raw_http import Peer, RawServer, Request

pytestmark = pytest.mark.anyio

ERAS = pytest.mark.parametrize("server_era", ["modern", "legacy"])
CLIENTS = pytest.mark.parametrize("client_era", ["modern", "legacy"])
ENDPOINTS = [("/mcp", "u__"), ("/servers/u/mcp", "")]


def upstream(era: str, script: Script) -> Modern | Legacy:
    return Modern(script) if era == "modern" else Legacy(script)


async def asked(stand: Stand, era: str, path: str, method: str, params: dict[str, Any] | None = None) -> Any:
    """The reply to a client of this era at this endpoint."""
    if era == "modern":
        return await stand.modern(method, params, path=path)
    session = await stand.legacy(path=path)
    return await session.ask(method, params)


# One of each: what is read and written again must keep every keyword, known or not, and the order of members.
WRITTEN = rb"""{ "$schema" : "https://json-schema.org/draft/2020-12/schema", "type":"object",
  "$defs":{"address":{"$anchor":"addressDef","type":"object"}},
  "properties":{"z":{"$ref":"#/$defs/address"},"a":{"multipleOf":1.50,"maximum":1E3,"const":0.10e+1},
    "\u00e4":{"$dynamicRef":"#here","x-vendor":[null,{},[]]},"big":{"maximum":12345678901234567890}},
  "allOf":[{"anyOf":[{"required":["a"]},{"required":[]}]}],"if":{},"then":true,"else":false,
  "unevaluatedProperties":false,"x-unknown":"\/" }"""


@dataclass
class Lister:
    """Puts one schema, byte for byte, into the list of an ordinary server."""

    inner: Modern | Legacy
    schema: bytes

    async def __call__(self, request: Request, peer: Peer) -> None:
        if request.body and request.message.get("method") == "tools/list":
            ident = json.dumps(request.message["id"]).encode()
            tools = b'[{"name":"t","inputSchema":%b,"outputSchema":%b}]' % (self.schema, self.schema)
            peer.body(b'{"jsonrpc":"2.0","id":%b,"result":{"resultType":"complete","tools":%b}}' % (ident, tools))
        else:
            await self.inner(request, peer)


@pytest.mark.rule("SCH-6")
@ERAS
@CLIENTS
async def test_a_schema_leaves_member_for_member(tmp_path: Path, server_era: str, client_era: str) -> None:
    written = json.dumps(json.loads(WRITTEN))
    lister = Lister(upstream(server_era, Script()), WRITTEN.replace(b"\n", b""))
    async with RawServer(lister) as server, Stand(tmp_path, {"u": http(server, server_era)}) as stand:
        for path, prefix in ENDPOINTS:
            reply = await asked(stand, client_era, path, "tools/list")
            [listed] = reply.json["result"]["tools"]
            assert listed["name"] == f"{prefix}t"
            assert json.dumps(listed["inputSchema"]) == json.dumps(listed["outputSchema"]) == written, path


@pytest.mark.rule("SCH-1")
@ERAS
@CLIENTS
@pytest.mark.parametrize("dialect", [None, "http://json-schema.org/draft-04/schema#", "urn:nobody:knows:this"])
async def test_a_dialect_is_neither_assumed_nor_refused_by_who_applies_no_schema(
    tmp_path: Path, server_era: str, client_era: str, dialect: str | None
) -> None:
    """Arguments that the schema forbids reach the server: what they mean is said by it, in its own words."""
    schema = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
    schema |= {"$schema": dialect} if dialect else {}
    script = Script(fails={"t": (-32602, {"dialect": dialect})})
    server_ = upstream(server_era, script)
    server_.tools = [tool("t", inputSchema=schema)]
    async with serve(server_) as server, Stand(tmp_path, {"u": http(server, server_era)}) as stand:
        [listed] = (await asked(stand, client_era, "/mcp", "tools/list")).json["result"]["tools"]
        assert listed["inputSchema"] == schema
        reply = await asked(stand, client_era, "/mcp", "tools/call", {"name": "u__t", "arguments": {"n": "x"}})
        assert reply.json["error"]["code"] == -32602
        assert reply.json["error"]["data"] == {"dialect": dialect}
    assert script.called[0]["params"]["arguments"] == {"n": "x"}


@dataclass
class Canary:
    """A place that schemas point to, and that nobody has to ask."""

    seen: list[str] = field(default_factory=list)

    async def __call__(self, request: Request, peer: Peer) -> None:
        self.seen.append(request.target)
        peer.json({"type": "object"})


@pytest.mark.rule("SCH-2", "SCH-3", "RS-15")
@ERAS
@CLIENTS
async def test_nobody_asks_for_what_a_schema_points_to(tmp_path: Path, server_era: str, client_era: str) -> None:
    """There is no setting that would turn it on, so the rules for such an opt-in hold: even with every address open."""
    canary = Canary()
    async with RawServer(canary) as place:
        root = place.url.rpartition("/")[0]
        outside = {
            "$schema": f"{root}/dialect",
            "$id": f"{root}/id",
            "type": "object",
            "properties": {"a": {"$ref": f"{root}/ref"}, "b": {"$dynamicRef": f"{root}/dynamic#x"}},
            "allOf": [{"$ref": f"{root}/all"}],
        }
        script = Script({"t": text("x", structuredContent={"a": 1, "$ref": f"{root}/result"})})
        server_ = upstream(server_era, script)
        server_.tools = [tool("t", inputSchema=outside, outputSchema=outside)]
        async with serve(server_) as server, Stand(tmp_path, {"u": http(server, server_era)}) as stand:
            for path, prefix in ENDPOINTS:
                [listed] = (await asked(stand, client_era, path, "tools/list")).json["result"]["tools"]
                assert (listed["inputSchema"], listed["outputSchema"]) == (outside, outside)
                arguments = {"a": {"$ref": f"{root}/argument"}}
                call = {"name": f"{prefix}t", "arguments": arguments}
                assert "result" in (await asked(stand, client_era, path, "tools/call", call)).json
    assert canary.seen == []


STRUCTURED: dict[str, Any] = {
    "null": None,
    "list": [1, None, {"a": []}],
    "text": "",
    "zero": 0,
    "no": False,
    "deep": {"a": {"b": [None]}},
}


@pytest.mark.rule("SCH-7")
@ERAS
@CLIENTS
async def test_structured_content_of_every_type_arrives(tmp_path: Path, server_era: str, client_era: str) -> None:
    """The legacy era knows objects only: its clients get anything else as the ``result`` of an object."""
    script = Script({name: text("x", structuredContent=value) for name, value in STRUCTURED.items()})
    async with (
        serve(upstream(server_era, script)) as server,
        Stand(tmp_path, {"u": http(server, server_era)}) as stand,
    ):
        for path, prefix in ENDPOINTS:
            for name, value in STRUCTURED.items():
                call = {"name": f"{prefix}{name}", "arguments": {}}
                result = (await asked(stand, client_era, path, "tools/call", call)).json["result"]
                wrapped = client_era == "legacy" and not isinstance(value, dict)
                assert "structuredContent" in result, name
                assert json.dumps(result["structuredContent"]) == json.dumps({"result": value} if wrapped else value)
