"""Stories of a team whose agents share one gateway: what they see, what they may, and what is known afterwards."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.stand import Stand, calling, events, keys, refused, until
from tests.gateway.upstreams import Legacy, Modern, Script, http, progress, serve, streaming, text, tool, waiting

pytestmark = pytest.mark.anyio

POLICY: dict[str, Any] = {
    "rules": [
        {"id": "everybody-reads", "allow": ["*/*"], "when": "tool.readOnly"},
        {"id": "developers-push", "allow": ["git/push"], "to": {"roles": ["dev"]}},
        {"id": "never-to-main", "deny": ["git/push"], "when": 'args.branch == "main"', "reason": "main is protected"},
        {"id": "refunds-need-a-human", "ask": ["shop/refund"], "to": {"roles": ["dev"]}},
    ],
    "tests": [
        {"as": {"subject": "d", "roles": ["dev"]}, "call": "git/push", "args": {"branch": "x"}, "expect": "allow"},
        {"as": {"subject": "d", "roles": ["dev"]}, "call": "git/push", "args": {"branch": "main"}, "expect": "deny"},
    ],
}
READS = {"readOnlyHint": True}


def git() -> Modern:
    server = Modern(Script({"status": text("clean"), "push": text("pushed")}))
    server.tools = [tool("status", annotations=READS), tool("push")]
    return server


def shop() -> Legacy:
    server = Legacy(Script({"orders": text("three orders"), "refund": text("refunded")}))
    server.tools = [tool("orders", annotations=READS), tool("refund")]
    return server


@pytest.mark.rule("POL-5", "POL-8", "POL-10", "AUD-5")
async def test_two_agents_with_different_roles_share_a_gateway(tmp_path: Path) -> None:
    identity = {"keys": [*keys("agent:dev", roles=["dev"]), *keys("agent:intern")]}
    shop_, git_ = shop(), git()
    async with serve(git_) as one, serve(shop_) as two:
        servers = {"git": http(one), "shop": http(two, "legacy")}
        async with Stand(tmp_path, servers, policy=POLICY, identity=identity) as gate:
            # Each sees what it may use, whatever era it speaks.
            dev = await gate.legacy(who="agent:dev")
            listed = (await dev.ask("tools/list")).json["result"]["tools"]
            assert [each["name"] for each in listed] == ["git__push", "git__status", "shop__orders", "shop__refund"]
            assert await gate.tools(who="agent:intern") == ["git__status", "shop__orders"]

            # The developer works; the intern reads.
            assert (await dev.call("git__push", {"branch": "topic"})).json["result"]["content"][0]["text"] == "pushed"
            said = await gate.result("shop__orders", who="agent:intern")
            assert said["content"][0]["text"] == "three orders"

            # What they may not is refused, without saying why: that is for the log.
            denied = await dev.call("git__push", {"branch": "main"})
            assert denied.error == -31403
            assert "protected" not in str(denied.json)
            assert refused(await gate.call("git__push", {"branch": "topic"}, who="agent:intern"), 200).error == -31403
            asked = await dev.call("shop__refund", {"order": 7})
            assert (asked.error, asked.json["error"]["data"]["kind"]) == (-31428, "approval")
            assert [each["params"]["name"] for each in git_.script.called + shop_.script.called] == ["push", "orders"]

            # The log knows who did what, and which rule said so.
            told = [(each["subject"], f"{each['server']}/{each['tool']}", each["outcome"], each.get("rule", ""))
                    for each in await gate.records(5)]  # fmt: skip
            assert told == [
                ("agent:dev", "git/push", "ok", "developers-push"),
                ("agent:intern", "shop/orders", "ok", "everybody-reads"),
                ("agent:dev", "git/push", "denied", "never-to-main"),
                ("agent:intern", "git/push", "denied", ""),
                ("agent:dev", "shop/refund", "denied", "refunds-need-a-human"),
            ]
            assert "main is protected" in gate.rows()[2]["reason"]


@pytest.mark.rule("POL-7")
async def test_the_rules_change_while_agents_work(tmp_path: Path) -> None:
    identity = {"keys": keys("agent:dev", roles=["dev"])}
    async with serve(git()) as one, Stand(tmp_path, {"git": http(one)}, policy=POLICY, identity=identity) as gate:
        session = await gate.legacy(who="agent:dev")
        stream = await session.listen()
        assert (await session.call("git__push", {"branch": "x"})).error is None

        # Somebody writes a rule that breaks the policy's own tests: nothing changes, and it is told.
        freeze = {"id": "freeze", "deny": ["git/push"]}
        broken = {**POLICY, "rules": [*POLICY["rules"], freeze]}
        await gate.reload(policy=broken)
        assert "expects allow" in (await gate.ask(gate.page("/readyz"))).json["problems"]["configuration"]
        assert (await session.call("git__push", {"branch": "x"})).error is None

        # With its tests it holds: the agent is told of the change, sees less, and may less.
        await gate.reload(policy={"rules": broken["rules"]})
        assert (await stream.event())["method"] == "notifications/tools/list_changed"
        names = [each["name"] for each in (await session.ask("tools/list")).json["result"]["tools"]]
        assert names == ["git__status"]
        assert (await session.call("git__push", {"branch": "x"})).error == -31403
        await stream.close()


async def test_an_impatient_agent_a_patient_one_and_a_slow_tool(tmp_path: Path) -> None:
    began, gate_ = asyncio.Event(), asyncio.Event()
    acts: dict[str, Any] = {
        "build": waiting(gate_, began),
        "test": streaming(progress(1), progress(2), then=text("green")),
    }
    upstream = Legacy(Script(acts=acts))
    async with serve(upstream) as server, Stand(tmp_path, {"ci": http(server, "legacy")}) as gate:
        patient = await gate.legacy()
        waits = asyncio.create_task(patient.call("ci__build", id="build"))
        await began.wait()

        # The impatient one hangs up; its call is called off at the server.
        wire = await gate.connect()
        wire.send(gate.request(calling("ci__build")))
        await until(lambda: len(upstream.script.called) == 2)
        await wire.close()
        await until(lambda: upstream.cancelled == [upstream.script.called[1]["id"]])

        # Meanwhile others are served, with progress on the way.
        reply = await gate.ask(gate.request(calling("ci__test", progressToken="t")))
        assert [each.get("params", {}).get("progress") for each in events(reply)] == [1, 2, None]

        gate_.set()
        assert (await waits).json["result"]["content"][0]["text"] == "at last"
        outcomes = sorted(each["outcome"] for each in await gate.records(3))
        assert outcomes == ["cancelled", "ok", "ok"]


async def test_the_gateway_is_restarted_under_its_agents(tmp_path: Path) -> None:
    identity = {"keys": keys("agent:dev", roles=["dev"])}
    async with serve(git()) as one:
        async with Stand(tmp_path, {"git": http(one)}, policy=POLICY, identity=identity) as before:
            session = await before.legacy(who="agent:dev", version="2025-06-18")
            await session.call("git__status")
            first = await before.records(1)
        async with Stand(tmp_path, {"git": http(one)}, policy=POLICY, identity=identity) as after:
            session.stand = after  # the client knows nothing of it
            assert (await session.call("git__push", {"branch": "x"})).error is None
            assert [each["tool"] for each in await after.records(2)] == ["status", "push"]
            assert after.rows()[0]["id"] == first[0]["id"]
