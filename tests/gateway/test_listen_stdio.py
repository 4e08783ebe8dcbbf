"""``subscriptions/listen`` over ``callgate stdio``: interleaved with everything else on the one pipe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.messages import modern, rpc
from tests.gateway.tellers import ACKNOWLEDGED, SUBSCRIPTION
from tests.gateway.test_stdio import Pipes, started
from tests.upstream.house import SCRIPT

pytestmark = pytest.mark.anyio

TOOLS = "notifications/tools/list_changed"
TELLER = {"u": {"command": sys.executable, "args": ["-S", SCRIPT, "modern", "teller"], "protocol": "modern"}}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def listen(id: object, **wanted: Any) -> dict[str, Any]:
    return modern("subscriptions/listen", {"notifications": wanted}, id)


def of(message: dict[str, Any]) -> Any:
    return message["params"]["_meta"][SUBSCRIPTION]


async def until_told(pipes: Pipes, count: int) -> list[dict[str, Any]]:
    return [await pipes.next() for _ in range(count)]


@pytest.mark.rule("SUB-1", "SUB-2", "SUB-3")
async def test_streams_and_answers_share_the_pipe(tmp_path: Path) -> None:
    async with started(tmp_path) as pipes:
        for id, wanted in ((1, {"toolsListChanged": True}), ("1", {"promptsListChanged": True})):
            first = await pipes.ask(listen(id, **wanted))
            assert (first["method"], of(first), first["params"]["notifications"]) == (ACKNOWLEDGED, id, wanted)
        pipes.send(modern("tools/call", {"name": "u__more", "arguments": {}}, 2))
        said = await until_told(pipes, 2)
        assert [each["id"] for each in said if "id" in each] == [2]
        told = next(each for each in said if "method" in each)
        assert (told["method"], of(told), type(of(told))) == (TOOLS, 1, int)
        pipes.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}})
        again = await pipes.ask(listen(1, toolsListChanged=True))  # the id is free again: the first one has ended
        assert again["method"] == ACKNOWLEDGED
        assert (await pipes.ask(modern("tools/list", id=3)))["id"] == 3


@pytest.mark.rule("SUB-4", "SUB-5")
async def test_at_the_end_both_signs_are_given(tmp_path: Path) -> None:
    async with started(tmp_path) as pipes:
        for id in ("a", 2):
            assert (await pipes.ask(listen(id, toolsListChanged=True)))["method"] == ACKNOWLEDGED
        said = await pipes.rest()
        for id in ("a", 2):
            mine = [each for each in said if each.get("id") == id or each.get("params", {}).get("requestId") == id]
            assert [each.get("method") for each in mine] == [None, "notifications/cancelled"]
            assert mine[0]["result"] == {"resultType": "complete", "_meta": {SUBSCRIPTION: id}}


@pytest.mark.rule("SUB-7")
async def test_from_stdio_to_stdio(tmp_path: Path) -> None:
    async with started(tmp_path, servers=TELLER) as pipes:
        assert (await pipes.ask(listen("x", toolsListChanged=True)))["method"] == ACKNOWLEDGED
        pipes.send(modern("tools/call", {"name": "u__unlisten", "arguments": {"how": "both"}}, 2))
        said = await until_told(pipes, 2)
        told = next(each for each in said if "method" in each)
        assert (told["method"], of(told)) == (TOOLS, "x")
        seen = await pipes.ask(modern("tools/call", {"name": "u__seen", "arguments": {}}, 3))
        ids = [each["id"] for each in seen["result"]["seen"] if each["method"] == "subscriptions/listen"]
        assert len(ids) == 2
        assert all(isinstance(id, int) for id in ids)


async def test_a_session_on_the_pipe_has_no_listen(tmp_path: Path) -> None:
    async with started(tmp_path) as pipes:
        refused = await pipes.ask(rpc("subscriptions/listen", {"notifications": {}}))
        assert refused["error"]["code"] == -32600


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM to catch")
@pytest.mark.rule("SUB-5")
async def test_a_signal_ends_it_with_both_signs_too(tmp_path: Path) -> None:
    async with started(tmp_path) as pipes:
        assert (await pipes.ask(listen("a", toolsListChanged=True)))["method"] == ACKNOWLEDGED
        pipes.process.terminate()
        result, cancelled = await until_told(pipes, 2)
        assert (cancelled["method"], cancelled["params"]["requestId"]) == ("notifications/cancelled", "a")
        assert (result["id"], result["result"]["resultType"]) == ("a", "complete")
