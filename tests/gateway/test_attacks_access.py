"""Attempts to keep what was taken away, to have a call run twice, and to fill the machine with one's own links."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from callgate.gateway import task_own
from callgate.gateway.subscribing import UPDATED
from callgate.upstream import isolation
from tests.fuzz.messages import PREFIX, dump, head, rpc, usual
from tests.gateway.askers import elicit
from tests.gateway.stand import Stand, allow, calling, deny, keys, refused, until
from tests.gateway.tasking import KNOWS, begun, open_stand
from tests.gateway.tellers import OldTeller, Teller
from tests.gateway.tellers import serve as tell
from tests.gateway.test_line import Caller
from tests.gateway.test_subscribing import updated
from tests.gateway.upstreams import Modern, http, serve
from tests.servers.tasks_http import LegacyTasks, ModernTasks, said

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


LOSSES: list[tuple[dict[str, Any], int]] = [
    ({"policy": {"rules": [deny("jobs/*"), allow("*/*")]}}, -31403),
    ({"identity": {"keys": keys("ben")}}, -31401),
    ({"identity": {"keys": keys("ann", roles=["guest"])}}, -31401),
]


@pytest.mark.parametrize("tool", ["jobs__slow", "jobs__long"])
@pytest.mark.parametrize(("loss", "code"), LOSSES)
async def test_who_waits_for_a_result_that_it_may_not_have_any_more_does_not_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str, loss: dict[str, Any], code: int
) -> None:
    """``tasks/result`` may wait for hours; policy and identity of then count, also for a task of callgate's own."""
    monkeypatch.setattr(task_own, "PROMPT", 0.1)
    server = ModernTasks()
    async with open_stand(tmp_path, server) as stand:
        old = await stand.legacy("ann")
        id = (await begun(old, tool))["taskId"]
        waiting = asyncio.create_task(old.ask("tasks/result", {"taskId": id}))
        await until(lambda: stand.house.places)
        await stand.reload(**loss)
        server.gate.set()
        if server.jobs.jobs:
            server.jobs.last.finish(said("secret"))
        reply = await waiting
        assert (reply.error, b"secret" in reply.body) == (code, False), reply


async def test_roles_that_were_taken_away_count_for_subscriptions_too(tmp_path: Path) -> None:
    policy = {"rules": [allow("*/*", to={"roles": ["reader"]})]}
    identity = {"keys": keys("ann", roles=["reader"])}
    async with tell(Teller()) as server, Stand(
        tmp_path, {"u": http(server)}, identity=identity, policy=policy
    ) as stand:  # fmt: skip
        behaviour: Any = server.handler
        session = await stand.legacy("ann")
        first = await session.listen()
        assert (await session.ask("resources/subscribe", {"uri": "u+note:1"})).json["result"] == {}
        behaviour.tell(UPDATED, uri="note:1")
        assert await first.event() == updated("u+note:1")
        await stand.reload(identity={"keys": keys("ann", roles=["guest"])})
        assert await first.chunk() == b""
        second = await session.listen()
        behaviour.tell(UPDATED, uri="note:1")
        await stand.reload(policy={"rules": [allow("*/*", to={"roles": ["guest"]})]})
        told = await second.event()
        assert told["method"].endswith("list_changed")  # of the other policy; of the resource nothing was told
        behaviour.tell(UPDATED, uri="note:1")
        while told["method"] != UPDATED:
            told = await second.event()
        assert told == updated("u+note:1")
        await first.close()
        await second.close()


class Forgetful(OldTeller):
    """From some time on it forgets every session at once."""

    forgets = False

    async def __call__(self, request: Any, peer: Any) -> None:
        if self.forgets and request.method == "POST" and request.message.get("method") not in HANDSHAKE:
            peer.body(b"", 404)
        else:
            await super().__call__(request, peer)


HANDSHAKE = ("initialize", "notifications/initialized")


async def test_a_server_that_forgets_at_every_request_is_not_asked_for_ever(tmp_path: Path) -> None:
    """A forgotten session is opened again, and what was subscribed is subscribed again, which is forgotten again …"""
    server = Forgetful()
    async with tell(server) as upstream, Stand(tmp_path, {"u": http(upstream, "legacy")}) as stand:
        session = await stand.legacy()
        for uri in server.uris:
            await session.ask("resources/subscribe", {"uri": f"u+{uri}"})
        server.forgets = True
        opened = len(server.sessions)
        for _ in range(5):
            assert (await session.call("u__echo")).error == -31502
        assert len(server.sessions) < opened + 40
        watching = stand.house.upstreams._servers["u"].watching
        await until(lambda: not watching._tasks)


class Doubtful(LegacyTasks):
    """``slow`` asks when it is called without a task."""

    async def _call(self, message: Any, peer: Any) -> None:
        if "task" in message["params"]:
            await super()._call(message, peer)
            return
        self.jobs.heard.append(message)
        peer.sse_head()
        peer.event({"jsonrpc": "2.0", "id": "q", **elicit()})
        while not self.responses:
            await asyncio.sleep(0.005)
        peer.event({"jsonrpc": "2.0", "id": message["id"], "result": said("once")})
        peer.chunk(b"")


@pytest.mark.rule("PARK-3")
async def test_a_parked_call_does_not_run_again_as_a_task(tmp_path: Path) -> None:
    """The client of a parked call comes back and says now that it knows tasks."""
    server = Doubtful()
    async with open_stand(tmp_path, server) as stand:
        forms: dict[str, Any] = {"elicitation": {"form": {}}}
        message = calling("jobs__slow", {"n": 1})
        message["params"]["_meta"][PREFIX + "clientCapabilities"] = forms
        result = (await stand.ask(stand.request(message, who="ann"))).json["result"]
        answers = {key: {"action": "decline"} for key in result["inputRequests"]}
        message["params"] |= {"requestState": result["requestState"], "inputResponses": answers}
        message["params"]["_meta"][PREFIX + "clientCapabilities"] = {**KNOWS, **forms}
        again = await stand.ask(stand.request(message, who="ann"))
        assert again.json["result"]["content"][0]["text"] == "once"
        assert len(server.jobs.heard) == 1


async def test_bodies_that_the_application_reads_have_the_same_bound(tmp_path: Path) -> None:
    async with serve(Modern()) as server, Stand(tmp_path, {"u": http(server)}, limits={"max_body": MIB}) as stand:
        caller = await Caller(stand).dial()
        await caller.hello()
        wire = await stand.connect()
        begin = head(f"POST {caller.where} HTTP/1.1", [*usual(stand.port), ("Transfer-Encoding", "chunked")])
        wire.send(begin)
        for _ in range(40):
            wire.send(b"%x\r\n%b\r\n" % (64 * 1024, b" " * 64 * 1024))
            await asyncio.sleep(0.001)  # so that the application reads along
        wire.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(ping := dump(rpc("ping", {}))), ping))
        refused(await wire.reply(), 413)
        await wire.close()
        await caller.wire.close()


STUBBORN = """
import json, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for line in sys.stdin:
    message = json.loads(line)
    result = {"initialize": {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {}},
              "tools/list": {"tools": [{"name": "t", "inputSchema": {"type": "object"}}]}}
    if "id" in message:
        said = result.get(message["method"], {"content": []})
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": said}), flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="counts processes in /proc")
async def test_sessions_that_come_and_go_leave_no_heap_of_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process takes seconds to end if it wants to; sessions are opened and ended much faster."""
    monkeypatch.setattr(isolation, "MAX_LINKS", 64)
    script = tmp_path / "stubborn.py"
    script.write_text(STUBBORN)
    program = {"command": sys.executable, "args": [str(script)], "protocol": "legacy", "max_links_per_principal": 2}
    async with Stand(tmp_path, {"u": program}) as stand:
        most, outcomes = 0, []
        for _ in range(8):
            session = await stand.legacy()
            outcomes.append((await session.call("u__t")).error)
            await session.end()
            most = max(most, _children(str(script)))
        assert most <= 1 + 2 + 2  # the common one, the caller's own, and as many on their way out
        assert outcomes[:2] == [None, None] and -31429 in outcomes


def _children(script: str) -> int:
    found = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            found += script.encode() in (folder / "cmdline").read_bytes()
        except OSError:
            continue
    return found
