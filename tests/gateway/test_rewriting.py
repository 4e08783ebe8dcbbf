"""What a server says about its resources leads back to it through the door that it came from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from callgate.gateway.rewriting import exposed, for_version
from tests.gateway.library import library
from tests.gateway.stand import Stand
from tests.gateway.upstreams import Script, http, serve, text, tool

pytestmark = pytest.mark.anyio

LINK = {
    "type": "resource_link",
    "uri": "file:///a",
    "name": "a",
    "title": "A",
    "description": "of it",
    "annotations": {"x": 1},
}
HELD = {"type": "resource", "resource": {"uri": "ui://face/1", "text": "file:///a", "x": [1.50]}}
AUDIO = {"type": "audio", "data": "AAAA", "mimeType": "audio/wav", "annotations": {"priority": 1}}


def both(server: str, block: dict[str, Any]) -> dict[str, Any]:
    """What becomes of LINK and HELD behind an aggregate."""
    if block["type"] == "resource_link":
        return {**block, "uri": f"{server}+{block['uri']}"}
    return {**block, "resource": {**block["resource"], "uri": f"ui://{server}/face/1"}}


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_links_in_results_can_be_read_at_the_door_they_came_through(tmp_path: Path, era: str) -> None:
    shelf = library(era)
    shelf.script = Script({"find": text("x", content=[LINK, HELD, {"type": "text", "text": "file:///a"}])})
    shelf.tools = [tool("find")]
    shelf.says = {
        "resources/read": {"contents": [{"uri": "file:///a", "text": '"uri"'}, {"uri": "file:///b", "blob": ""}]},
        "prompts/get": {"messages": [{"role": "user", "content": HELD}, {"role": "user", "content": LINK}]},
    }
    async with serve(shelf) as server, Stand(tmp_path, {"docs": http(server, era)}) as stand:
        session, own = await stand.legacy(), await stand.legacy(path="/servers/docs/mcp")
        found = (await session.call("docs__find")).json["result"]["content"]
        assert found == [both("docs", LINK), both("docs", HELD), {"type": "text", "text": "file:///a"}]
        assert (await stand.result("docs__find"))["content"] == found
        assert (await own.call("find")).json["result"]["content"][:2] == [LINK, HELD]
        said = (await session.ask("resources/read", {"uri": found[0]["uri"]})).json["result"]["contents"]
        assert said == [{"uri": "docs+file:///a", "text": '"uri"'}, {"uri": "docs+file:///b", "blob": ""}]
        said = (await own.ask("resources/read", {"uri": "file:///a"})).json["result"]["contents"]
        assert said == shelf.says["resources/read"]["contents"]
        said = (await session.ask("prompts/get", {"name": "docs__review"})).json["result"]["messages"]
        assert [each["content"] for each in said] == [both("docs", HELD), both("docs", LINK)]


def test_only_the_uri_changes_letter_by_letter() -> None:
    before = (
        b'{ "a" : 1.50, "big":12345678901234567890123,"content":[ {"type":"resource_link", "uri":"a:\\u00e9","n":1e400}'
        b' ,7, null],"structuredContent":{"uri":"a:b"},"_meta": {"ui":{"resourceUri":"ui://x","k":null},"z":1}}'
    )
    after = (
        b'{"a":1.50,"big":12345678901234567890123,"content":[{"type":"resource_link","uri":"s+a:\xc3\xa9","n":1e400},'
        b'7,null],"structuredContent":{"uri":"a:b"},"_meta":{"ui":{"resourceUri":"ui://s/x","k":null},"z":1}}'
    )
    assert exposed(before, "s") == after
    for untouched in (
        b'{"content":[]}',
        b'{"content": [{"uri":5}]}',
        b'{"contents":"uri","content":{"uri" :[]}}',
        b"[]",
    ):
        assert json.loads(exposed(untouched, "s")) == json.loads(untouched)


def test_the_result_of_a_task_is_rewritten_too() -> None:
    task = {"taskId": "t", "status": "completed", "result": {"content": [LINK, HELD]}}
    assert json.loads(exposed(json.dumps(task).encode(), "s"))["result"] == {
        "content": [both("s", LINK), both("s", HELD)]
    }


SAID = json.dumps({"content": [LINK, AUDIO, HELD], "messages": [{"role": "user", "content": LINK}]}).encode()
AS_TEXT = {"type": "text", "text": "A: file:///a\nof it", "annotations": {"x": 1}}
SILENT = {
    "type": "text", "text": "[audio, audio/wav: this version of the protocol cannot carry it]",
    "annotations": {"priority": 1},
}  # fmt: skip


@pytest.mark.parametrize(
    ("version", "content"),
    [
        ("2024-11-05", [AS_TEXT, SILENT, HELD]),
        ("2025-03-26", [AS_TEXT, AUDIO, HELD]),
        ("2025-06-18", [LINK, AUDIO, HELD]),
        ("2025-11-25", [LINK, AUDIO, HELD]),
    ],
)
def test_an_older_client_reads_text_instead_of_what_it_does_not_know(version: str, content: list[Any]) -> None:
    said = json.loads(for_version(SAID, version))
    assert said["content"] == content
    assert said["messages"] == [{"role": "user", "content": content[0]}]


@pytest.mark.rule("SCH-7")
@pytest.mark.parametrize("value", [None, [1, None], "x", 0, 1.5, False])
def test_structured_content_is_an_object_for_legacy_clients(value: Any) -> None:
    said = json.loads(
        for_version(json.dumps({"content": [], "structuredContent": value, "k": 1}).encode(), "2025-11-25")
    )
    assert said == {"content": [], "structuredContent": {"result": value}, "k": 1}


@pytest.mark.parametrize(
    "result",
    [b'{"structuredContent": {"structuredContent":5}}', b'{"content":[{"type":"text","text":"audio"}]}', b"{ }"],
)
def test_what_every_client_knows_is_left_as_it_is(result: bytes) -> None:
    assert for_version(result, "2025-11-25") == result or json.loads(for_version(result, "2025-11-25")) == json.loads(
        result
    )


async def test_a_legacy_client_gets_schemas_that_it_can_read(tmp_path: Path) -> None:
    shelf = library("modern")
    shelf.tools = [
        tool(
            "a", inputSchema={"$ref": "#/$defs/a", "$defs": {"a": {}}}, outputSchema={"type": "array"}, _meta={"k": 1}
        ),
        tool("b", outputSchema={"type": "object", "x": 1}),
    ]
    async with serve(shelf) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        for path, prefix in (("/mcp", "u__"), ("/servers/u/mcp", "")):
            for _ in range(2):
                old = (await (await stand.legacy(path=path)).ask("tools/list")).json["result"]["tools"]
                new = (await stand.modern("tools/list", path=path)).json["result"]["tools"]
                assert new == [{**each, "name": prefix + each["name"]} for each in shelf.tools]
                first = {"inputSchema": {"$ref": "#/$defs/a", "$defs": {"a": {}}, "type": "object"}, "_meta": {"k": 1}}
                assert old == [{"name": prefix + "a", **first}, new[1]]
