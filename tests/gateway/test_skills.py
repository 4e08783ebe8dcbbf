"""Skills (SEP-2640): their entries, their files and what names them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.library import ModernLibrary
from tests.gateway.stand import Stand, refused
from tests.gateway.test_aggregates import listed, read
from tests.gateway.upstreams import http, serve
from tests.servers.mcp_http import result_of
from tests.servers.raw_http import Peer, Request

pytestmark = pytest.mark.anyio

SKILL, FILE = "skill://ops/deploy/SKILL.md", "skill://ops/deploy/run.sh"
TEXTS = {
    SKILL: "---\nname: deploy\n---\nüben \u2028 \\u0041\r\n",
    FILE: "#!/bin/sh\r\necho 'skill://ops/deploy/SKILL.md'\n",
}


def entry() -> dict[str, Any]:
    files = [{"uri": uri, "digest": digest(text), "size": len(text.encode())} for uri, text in TEXTS.items()]
    return {"uri": SKILL, "frontmatter": {"name": "deploy", "x": None}, "resources": files}


def digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


class Skilled(ModernLibrary):
    """A server with one skill of two files."""

    def __init__(self) -> None:
        super().__init__()
        self.resources = [{"uri": uri, "name": uri.rpartition("/")[2]} for uri in TEXTS]
        self.capabilities = {"resources": {}, "extensions": {"io.modelcontextprotocol/skills": {}}}

    async def __call__(self, request: Request, peer: Peer) -> None:
        message = request.message
        if message["method"] in ("skills/list", "skills/get"):
            said = {"skills": [entry()]} if message["method"] == "skills/list" else {"skill": entry()}
            peer.json(result_of(message["id"], {**said, "resultType": "complete"}))
            return
        if message["method"] == "resources/read":
            uri = message["params"]["uri"]
            self.says["resources/read"] = {"contents": [{"uri": uri, "text": TEXTS[uri]}]}
        await super().__call__(request, peer)


@pytest.mark.rule("SKILL-1", "SKILL-2")
async def test_what_a_skill_says_of_its_files_is_true_at_the_servers_own_door(tmp_path: Path) -> None:
    door = "/servers/docs/mcp"
    async with serve(Skilled()) as server, Stand(tmp_path, {"docs": http(server)}) as stand:
        [found] = (await stand.modern("skills/list", path=door)).json["result"]["skills"]
        got = (await stand.modern("skills/get", {"uri": SKILL}, path=door)).json["result"]["skill"]
        assert found == got == entry()
        assert await listed(stand, "resources/list", path=door) == [SKILL, FILE]
        for each in found["resources"]:
            [content] = (await read(stand, each["uri"], path=door)).json["result"]["contents"]
            assert content["uri"] == each["uri"]
            assert (digest(content["text"]), len(content["text"].encode())) == (each["digest"], each["size"])


@pytest.mark.rule("SKILL-1", "SKILL-2", "SKILL-3", "EXT-2")
async def test_on_an_aggregate_only_the_uris_of_a_skills_files_are_others(tmp_path: Path) -> None:
    """Its entries are named nowhere there: ``skills/list`` names no server, so an aggregate has none."""
    skilled = Skilled()
    async with serve(skilled) as server, Stand(tmp_path, {"docs": http(server)}) as stand:
        uris = await listed(stand, "resources/list")
        assert uris == ["skill://docs/ops/deploy/SKILL.md", "skill://docs/ops/deploy/run.sh"]
        for uri, native in zip(uris, TEXTS, strict=True):
            [content] = (await read(stand, uri)).json["result"]["contents"]
            assert content == {"uri": uri, "text": TEXTS[native]}
        refused(await stand.modern("skills/list"), 404, -32601)
        refused(await stand.modern("skills/get", {"uri": uris[0]}), 404, -32601)
        refused(await read(stand, SKILL), 400, -32602)
        assert "extensions" not in (await stand.modern("server/discover")).json["result"]["capabilities"]
    assert skilled.asked == [("resources/read", {"uri": uri}) for uri in TEXTS]
