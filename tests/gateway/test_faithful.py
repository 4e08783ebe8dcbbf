"""What a server says reaches the client as it was said, in every pair of eras, at every door."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.messages import modern
from tests.gateway.library import library
from tests.gateway.stand import Stand
from tests.gateway.test_aggregates import read
from tests.gateway.upstreams import http, serve, tool

pytestmark = pytest.mark.anyio

ERAS = ("modern", "legacy")
DOORS = (("/mcp", "u__"), ("/servers/u/mcp", ""))

#: What callgate must not look into: unknown members, unknown kinds, metadata, numbers in odd spellings.
ODD: dict[str, Any] = {
    "_meta": {"com.example/k": {"deep": [None, 1.5, {"": "ü"}]}, "traceparent": "as it was"},
    "annotations": {"audience": ["user"], "priority": 0.3, "x-vendor": None},
    "icons": [{"src": "data:image/png;base64,AA==", "sizes": ["48x48"], "theme": "dark", "x": 1}],
    "x-unknown": {"nested": [True, {}]},
}
BLOCKS: list[dict[str, Any]] = [
    {"type": "text", "text": "t\u2028", **ODD},
    {"type": "image", "data": "AA==", "mimeType": "image/png", **ODD},
    {"type": "hologram", "beams": 3, **ODD},
]
CALLED: dict[str, Any] = {"content": BLOCKS, "structuredContent": {"a": None, "b": [2**63, -0.0]}, **ODD}
GOTTEN: dict[str, Any] = {
    "description": "d",
    "messages": [{"role": "user", "content": each, **ODD} for each in BLOCKS],
    **ODD,
}
CONTENTS: dict[str, Any] = {"contents": [{"uri": "file:///pub/a.txt", "text": "", "mimeType": "x/y", **ODD}], **ODD}
COMPLETED: dict[str, Any] = {"completion": {"values": ["a"], "total": 9, "hasMore": True, **ODD}, **ODD}
SAID: dict[str, Any] = {
    "tools/call": CALLED,
    "prompts/get": GOTTEN,
    "resources/read": CONTENTS,
    "completion/complete": COMPLETED,
}
#: What the modern era adds to results of servers that do not say it themselves.
HINTS = {"resultType", "ttlMs", "cacheScope"}


class Asker:
    """A client of either era."""

    def __init__(self, stand: Stand, session: Any, path: str) -> None:
        self.stand, self.session, self.path = stand, session, path

    async def __call__(self, method: str, params: Mapping[str, Any]) -> Any:
        if self.session is not None:
            reply = await self.session.ask(method, params)
        elif method == "resources/read":
            reply = await read(self.stand, params["uri"], path=self.path)
        else:
            reply = await self.stand.ask(self.stand.request(modern(method, dict(params)), path=self.path))
        assert reply.status == 200 and "result" in reply.json, reply
        return {key: value for key, value in reply.json["result"].items() if key not in HINTS}


async def client_of(front: str, stand: Stand, path: str) -> Asker:
    return Asker(stand, await stand.legacy(path=path) if front == "legacy" else None, path)


@pytest.mark.rule("SCH-6")
@pytest.mark.parametrize(("path", "prefix"), DOORS)
@pytest.mark.parametrize("front", ERAS)
@pytest.mark.parametrize("back", ERAS)
async def test_lists_and_results_are_what_the_server_said(
    tmp_path: Path, back: str, front: str, path: str, prefix: str
) -> None:
    shelf = library(back)
    shelf.tools = [tool("say", outputSchema={"type": "object", "x-kept": 1}, **ODD)]
    shelf.prompts = [{"name": "review", "arguments": [{"name": "a", **ODD}], **ODD}]
    shelf.resources = [{"uri": "file:///pub/a.txt", "name": "a", "size": 3, **ODD}]
    shelf.templates = [{"uriTemplate": "file:///{path}", "name": "any", **ODD}]
    shelf.says = SAID
    shelf.script.says = {"say": CALLED}
    async with serve(shelf) as server, Stand(tmp_path, {"u": http(server, back)}) as stand:
        ask, uri = await client_of(front, stand, path), ("u+" if prefix else "") + "file:///pub/a.txt"
        assert (await ask("tools/list", {}))["tools"] == [{**shelf.tools[0], "name": prefix + "say"}]
        assert (await ask("prompts/list", {}))["prompts"] == [{**shelf.prompts[0], "name": prefix + "review"}]
        assert (await ask("resources/list", {}))["resources"] == [{**shelf.resources[0], "uri": uri}]
        template = uri.replace("pub/a.txt", "{path}")
        templates = (await ask("resources/templates/list", {}))["resourceTemplates"]
        assert templates == [{**shelf.templates[0], "uriTemplate": template}]
        assert await ask("tools/call", {"name": prefix + "say", "arguments": {}}) == CALLED
        assert await ask("prompts/get", {"name": prefix + "review"}) == GOTTEN
        content = {**CONTENTS["contents"][0], "uri": uri}
        assert await ask("resources/read", {"uri": uri}) == {**CONTENTS, "contents": [content]}
        argument = {"name": "a", "value": "b", "x": 1}
        ref, context = {"type": "ref/prompt", "name": prefix + "review"}, {"arguments": {"c": "d"}, "x-more": [None]}
        assert await ask("completion/complete", {"ref": ref, "argument": argument, "context": context}) == COMPLETED
    assert shelf.asked[-1][1] == {
        "ref": {"type": "ref/prompt", "name": "review"}, "argument": argument, "context": context,
    }  # fmt: skip
