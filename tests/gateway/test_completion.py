"""completion/complete: in both eras, at every door, governed like what it completes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.gateway.library import library
from tests.gateway.stand import Stand, allow, deny, keys, refused
from tests.gateway.upstreams import Modern, http, serve

pytestmark = pytest.mark.anyio

PROMPT = {"ref": {"type": "ref/prompt", "name": "review"}, "argument": {"name": "language", "value": "py"}}
TEMPLATE = {
    "ref": {"type": "ref/resource", "uri": "file:///{path}"},
    "argument": {"name": "path", "value": "a"},
    "context": {"arguments": {"root": "/x"}},
}
VALUES = {"completion": {"values": ["python", "pytorch"], "total": 10, "hasMore": True}, "x-more": 1.50}


def at(door: str, params: dict[str, Any], server: str = "docs") -> dict[str, Any]:
    """The params as a client says them at a door."""
    if door != "/mcp":
        return params
    ref = params["ref"]
    named = {"name": f"{server}__{ref['name']}"} if "name" in ref else {"uri": f"{server}+{ref['uri']}"}
    return {**params, "ref": {**ref, **named}}


@pytest.mark.parametrize("path", ["/mcp", "/servers/docs/mcp"])
@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_the_server_behind_the_reference_completes(tmp_path: Path, era: str, path: str) -> None:
    shelf, other = library(era), library(era)
    shelf.says["completion/complete"] = VALUES
    async with (
        serve(shelf) as a,
        serve(other) as b,
        Stand(tmp_path, {"other": http(b, era), "docs": http(a, era)}) as stand,
    ):
        session = await stand.legacy(path=path)
        assert session.opened["capabilities"]["completions"] == {}
        for params in (PROMPT, TEMPLATE):
            said = await stand.modern("completion/complete", at(path, params), path=path)
            assert said.json["result"] == {"resultType": "complete", **VALUES}
            assert (await session.ask("completion/complete", at(path, params))).json["result"] == VALUES
        records = await stand.records(4)
        assert {(each["method"], each["server"], each["outcome"]) for each in records} == {
            ("completion/complete", "docs", "ok")
        }
        assert [each["tool"] for each in records] == [
            "prompt:review", "prompt:review", "resource:file:///{path}", "resource:file:///{path}",
        ]  # fmt: skip
    assert [params for _, params in shelf.asked] == [PROMPT, PROMPT, TEMPLATE, TEMPLATE]
    assert other.asked == []


async def test_what_stands_beside_the_reference_is_not_sent(tmp_path: Path) -> None:
    shelf = library("modern")
    async with serve(shelf) as server, Stand(tmp_path, {"docs": http(server)}) as stand:
        ref = {**PROMPT["ref"], "name": "docs__review", "uri": "file:///secret", "title": "t"}
        said = await stand.modern(
            "completion/complete", {**PROMPT, "ref": ref, "name": "other", "uri": "file:///secret"}
        )
        assert said.status == 200
    assert shelf.asked == [("completion/complete", PROMPT)]


async def test_a_completion_is_judged_like_what_it_completes(tmp_path: Path) -> None:
    shelf = library("modern")
    identity = {"keys": [*keys("ann"), *keys("bob")]}
    rules = [
        allow("docs/*", to={"subjects": ["ann"]}), deny("docs/prompt:review", id="p"),
        deny("docs/resource:file:///{path}", id="t", when="args.path == 'secret'"),
    ]  # fmt: skip
    secret = {**TEMPLATE, "argument": {"name": "path", "value": "secret"}}
    async with (
        serve(shelf) as server,
        Stand(tmp_path, {"docs": http(server)}, identity=identity, policy={"rules": rules}) as stand,
    ):
        for params in (PROMPT, secret):
            refused(await stand.modern("completion/complete", at("/mcp", params), who="ann"), 200, -31403)
        assert (await stand.modern("completion/complete", at("/mcp", TEMPLATE), who="ann")).status == 200
        # Somebody who may see nothing of the server is told the same as of a server that does not exist.
        for params in (PROMPT, TEMPLATE):
            hidden = refused(await stand.modern("completion/complete", at("/mcp", params), who="bob"), 400, -32602)
            absent = await stand.modern("completion/complete", at("/mcp", params, "nope"), who="bob")
            told = refused(absent, 400, -32602).json["error"]
            assert hidden.json["error"]["message"].replace("docs", "nope") == told["message"]
            assert hidden.json["error"]["data"].keys() == told["data"].keys()
    assert shelf.asked == [("completion/complete", TEMPLATE)]


@pytest.mark.parametrize(
    "params",
    [
        {}, {"ref": 1, "argument": {}}, {"ref": {"type": [], "name": "x"}, "argument": {}},
        {"ref": {"type": "ref/tool", "name": "docs__echo"}, "argument": {}},
        {"ref": {"type": "ref/prompt"}, "argument": {}},
        {"ref": {"type": "ref/prompt", "uri": "x"}, "argument": {}},
        {"ref": {"type": "ref/resource", "uri": 1}, "argument": {}},
        {"ref": {"type": "ref/prompt", "name": "docs__review"}},
        {"ref": {"type": "ref/prompt", "name": "docs__review"}, "argument": []},
        {"ref": {"type": "ref/prompt", "name": "review"}, "argument": {}},
        {"ref": {"type": "ref/prompt", "name": "docs__echo"}, "argument": {}},
        {"ref": {"type": "ref/resource", "uri": "file:///{path}"}, "argument": {}},
        {"ref": {"type": "ref/resource", "uri": "docs+file:///{other}"}, "argument": {}},
        {"ref": {"type": "ref/resource", "uri": "docs+file:///pub/../x"}, "argument": {}},
    ],
)  # fmt: skip
async def test_a_reference_that_leads_nowhere(tmp_path: Path, params: dict[str, Any]) -> None:
    shelf = library("modern")
    async with serve(shelf) as server, Stand(tmp_path, {"docs": http(server)}) as stand:
        refused(await stand.modern("completion/complete", params), 400, -32602)
        session = await stand.legacy()
        assert (await session.ask("completion/complete", params)).error == -32602
    assert shelf.asked == []


async def test_without_a_server_that_completes_there_is_no_such_method(tmp_path: Path) -> None:
    async with serve(Modern()) as server, Stand(tmp_path, {"docs": http(server)}) as stand:
        refused(await stand.modern("completion/complete", at("/mcp", PROMPT)), 404, -32601)
        session = await stand.legacy()
        assert "completions" not in session.opened["capabilities"]
        assert (await session.ask("completion/complete", at("/mcp", PROMPT))).error == -32601


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_a_server_that_completes_nothing_beside_one_that_does(tmp_path: Path, era: str) -> None:
    shelf, silent = library(era), library(era)
    silent.capabilities = {"tools": {}, "prompts": {}}
    silent.fails["completion/complete"] = (-32601, None)
    async with (
        serve(shelf) as a,
        serve(silent) as b,
        Stand(tmp_path, {"docs": http(a, era), "silent": http(b, era)}) as stand,
    ):
        refused(await stand.modern("completion/complete", at("/mcp", PROMPT, "silent")), 404, -32601)
        session = await stand.legacy()
        assert (await session.ask("completion/complete", at("/mcp", PROMPT, "silent"))).error == -32601
        refused(await stand.modern("completion/complete", PROMPT, path="/servers/silent/mcp"), 404, -32601)
