"""Rates, concurrency, quotas and budgets on every way through the gateway, and the ways around them."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from callgate.gateway import StdioFront
from tests.fuzz.messages import rpc
from tests.fuzz.raw import Reply
from tests.gateway.askers import NAME, Client, LegacyAsker, asked, asking, elicit
from tests.gateway.library import ModernLibrary
from tests.gateway.stand import Stand, allow, calling, keys, refused, until
from tests.gateway.tasking import ModernClient, open_stand
from tests.gateway.test_reentry import asks, playing, rounds
from tests.gateway.upstreams import Legacy, Modern, Script, http, serve, text, waiting
from tests.identity.oauth.office import office
from tests.policy.limits.redis import redis
from tests.processes import environment, python
from tests.servers.tasks_http import ModernTasks

pytestmark = pytest.mark.anyio

CODE = -31429
PEOPLE = {"identity": {"keys": keys("ann", "ben")}, "policy": {"rules": [allow("*/*")]}}


def quotas(*several: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"quotas": [{"id": f"q{at}", **each} for at, each in enumerate(several)], **PEOPLE, **more}


def over(reply: Reply) -> bool:
    return "error" in reply.json and reply.json["error"]["code"] == CODE


async def used(stand: Stand) -> dict[str, float]:
    return {limit.measure: count for limit, _, count, _, _ in stand.house.counting.quotas.current()}


@pytest.mark.key("quotas")
async def test_a_refusal_over_http_says_when_to_come_back(tmp_path: Path) -> None:
    settings = quotas({"rate": "6/min", "burst": 1})
    async with serve(Modern()) as server, Stand(tmp_path, {"u": http(server)}, **settings) as stand:
        assert (await stand.call("u__echo", who="ann")).status == 200
        reply = refused(await stand.call("u__echo", who="ann"), 429, CODE)
        error = reply.json["error"]
        assert error["data"] == {
            "kind": "quota", "measure": "rate", "retry_after": 10, "limit": "6/min", "callId": error["data"]["callId"],
        }  # fmt: skip
        assert error["message"].startswith("Too many calls in a short time: 6/min") and "Wait 10 s" in error["message"]
        assert reply.headers["retry-after"] == "10"
        assert reply.headers["ratelimit-policy"] == '"rate";q=1;w=60'
        assert reply.headers["ratelimit"] == '"rate";r=0;t=10'
        assert reply.headers["callgate-call-id"] == error["data"]["callId"]
        assert (await stand.call("u__echo", who="ben")).status == 200  # nobody else is harmed
        records = await stand.records(3)
    assert (records[1]["outcome"], records[1]["error_code"], records[1]["tool"]) == ("refused", CODE, "echo")
    assert records[1]["reason"] == "quota q0: rate 6/min reached"


async def test_the_calls_of_every_way_in_are_counted_together(tmp_path: Path) -> None:
    """Another door, another era, HTTP and stdio, single or in a batch: the caller's counter is one."""
    settings = quotas({"calls": "6/day"}, virtual_servers={"v": {"tools": ["u/*"]}})
    async with serve(Modern()) as server, Stand(tmp_path, {"u": http(server)}, **settings) as stand:
        assert (await stand.call("u__echo", who="ann")).status == 200
        assert (await stand.call("u__echo", who="ann", path="/mcp/v")).status == 200
        assert (await stand.call("echo", who="ann", path="/servers/u/mcp")).status == 200
        old = await stand.legacy("ann", "2025-03-26")
        assert "result" in (await old.call("u__echo")).json
        batch = [rpc("tools/call", {"name": "u__echo", "arguments": {}}, at) for at in range(5)]
        said = (await old.post(batch)).json
        assert sum("result" in each for each in said) == 2
        assert [each["error"]["code"] for each in said if "error" in each] == [CODE] * 3
        reply = await old.call("u__echo")
        assert reply.status == 200 and over(reply) and "retry-after" not in reply.headers  # the status is transport
        for path, name in (("/mcp", "u__echo"), ("/mcp/v", "u__echo"), ("/servers/u/mcp", "echo")):
            refused(await stand.call(name, who="ann", path=path), 429, CODE)


async def test_names_are_those_of_the_server_and_spelled_exactly(tmp_path: Path) -> None:
    """Upper case, or another name for the same thing, is no way around: it is not found, or it is the same tool."""
    settings = quotas({"calls": "1/day", "of": ["u/echo"]})
    async with serve(Modern()) as server, Stand(tmp_path, {"u": http(server)}, **settings) as stand:
        assert (await stand.call("u__echo", who="ann")).status == 200
        for name in ("U__ECHO", "u__Echo", "u__echo ", "u/echo", "echo"):
            assert "result" not in (await stand.call(name, who="ann")).json, name
        refused(await stand.call("u__echo", who="ann"), 429, CODE)


async def test_prompts_resources_completion_and_methods_count(tmp_path: Path) -> None:
    shelf = ModernLibrary()
    settings = quotas({"rate": "3/hour"})
    async with serve(shelf) as server, Stand(tmp_path, {"u": http(server)}, **settings) as stand:
        prompts = (await stand.modern("prompts/list", who="ann")).json["result"]["prompts"]
        resources = (await stand.modern("resources/list", who="ann")).json["result"]["resources"]
        name, uri = prompts[0]["name"], resources[0]["uri"]
        asking_for = [
            stand.ask(stand.request(_modern("prompts/get", name=name), who="ann")),
            stand.ask(stand.request(_modern("resources/read", uri=uri), ("Mcp-Name", uri), who="ann")),
            stand.call("u__echo", who="ann"),
        ]
        for each in asking_for:
            assert not over(await each)
        for params in ({"name": name}, {"uri": uri}):
            method = "prompts/get" if "name" in params else "resources/read"
            more = [("Mcp-Name", uri)] if "uri" in params else []
            refused(await stand.ask(stand.request(_modern(method, **params), *more, who="ann")), 429, CODE)
        ref = {"ref": {"type": "ref/prompt", "name": name}, "argument": {"name": "x", "value": "y"}}
        assert over(await stand.ask(stand.request(_modern("completion/complete", **ref), who="ann")))
        custom = stand.request(_modern("notes/archive"), who="ann", path="/servers/u/mcp")
        assert over(await stand.ask(custom))
        assert (await stand.modern("tools/list", who="ann")).status == 200  # lists ask no server


def _modern(method: str, **params: Any) -> dict[str, Any]:
    from tests.fuzz.messages import modern

    return modern(method, params)


async def test_of_fifty_calls_at_once_exactly_as_many_reach_the_server(tmp_path: Path) -> None:
    script = Script({"work": text("done")})
    settings = quotas({"calls": "20/day"})
    async with serve(Modern(script)) as server, Stand(tmp_path, {"u": http(server)}, **settings) as stand:
        said = await asyncio.gather(*(stand.call("u__work", who="ann") for _ in range(50)))
        assert sorted(each.status for each in said) == [200] * 20 + [429] * 30
    assert len(script.called) == 20


async def test_places_come_back_when_calls_are_cancelled_time_out_or_fail(tmp_path: Path) -> None:
    gate = asyncio.Event()
    script = Script({"work": text("done")}, fails={"bad": (-32000, None)}, acts={"wait": waiting(gate)})
    settings = quotas({"concurrency": 1})
    async with (
        serve(Modern(script)) as server,
        Stand(tmp_path, {"u": http(server, call_timeout=0.3)}, **settings) as stand,
    ):
        for _ in range(3):
            wire = await stand.connect()
            wire.send(stand.request(_modern("tools/call", name="u__wait", arguments={}), who="ann"))
            await until(lambda: _taken(stand))
            refused(await stand.call("u__work", who="ann"), 429, CODE)
            await wire.close()  # cancelled
            await until(lambda: not _taken(stand))
        for _ in range(2):
            assert "error" in (await stand.call("u__wait", who="ann")).json  # times out
            assert "error" in (await stand.call("u__bad", who="ann")).json
        assert (await stand.call("u__work", who="ann")).status == 200
        assert not _taken(stand)


def _taken(stand: Stand) -> float:
    return sum(
        count for limit, _, count, _, _ in stand.house.counting.quotas.current() if limit.measure == "concurrency"
    )


async def test_a_parked_call_counts_once_and_keeps_its_place_until_it_ends(tmp_path: Path) -> None:
    asker = LegacyAsker(ask=asking(elicit(), 2))
    settings = quotas({"calls": "2/day"}, {"concurrency": 1})
    async with serve(asker) as server, Stand(tmp_path, {"u": http(server, "legacy")}, **settings) as stand:
        client = Client(stand, {"elicitation": {}}, who="ann")
        first = await client.call("u__ask")
        assert list(asked(first)) == ["r1"]
        refused(await client.call("u__ask"), 429, CODE)  # it runs at the server, though nobody waits for it
        second = await client.back(first, "u__ask", {"r1": NAME})
        assert list(asked(second)) == ["r2"]
        last = await client.back(second, "u__ask", {"r2": NAME})
        assert last.json["result"]["resultType"] == "complete"
        assert await used(stand) == {"calls": 1}
        again = await client.back(first, "u__ask", {"r1": NAME})  # an old handle: counted, and it finds nothing
        assert "error" in again.json and (await used(stand))["calls"] == 2
        assert _taken(stand) == 0


async def test_a_parked_call_with_many_questions_is_counted_again_and_never_stands_in_its_own_way(
    tmp_path: Path,
) -> None:
    asker = LegacyAsker(ask=asking(elicit(), 12))
    settings = quotas({"calls": "9/day"}, {"concurrency": 1})
    async with serve(asker) as server, Stand(tmp_path, {"u": http(server, "legacy")}, **settings) as stand:
        client = Client(stand, {"elicitation": {}}, who="ann")
        reply = await client.call("u__ask")
        for at in range(12):
            reply = await client.back(reply, "u__ask", {f"r{at + 1}": NAME})
            assert "result" in reply.json, (at, reply.json)
        assert reply.json["result"]["resultType"] == "complete"
        assert 1 < (await used(stand))["calls"] < 9
        assert _taken(stand) == 0


async def test_a_parked_call_that_is_given_up_gives_its_place_back(tmp_path: Path) -> None:
    asker = LegacyAsker(ask=asking(elicit()))
    settings = quotas({"concurrency": 1}, limits={"parked_ttl": 0.2})
    async with serve(asker) as server, Stand(tmp_path, {"u": http(server, "legacy")}, **settings) as stand:
        client = Client(stand, {"elicitation": {}}, who="ann")
        for _ in range(3):
            asked(await client.call("u__ask"))
            assert _taken(stand) == 1
            await until(lambda: not _taken(stand))


async def test_a_call_that_is_made_again_with_answers_counts_once_for_each_state(tmp_path: Path) -> None:
    asker = playing(ask=rounds(*[asks({"a": elicit()}, f"s{at}") for at in range(30)]))
    settings = quotas({"calls": "3/day"})
    async with serve(asker) as server, Stand(tmp_path, {"u": http(server)}, **settings) as stand:
        client = Client(stand, {"elicitation": {}}, who="ann")
        first = await client.call("u__ask")
        second = await client.back(first, "u__ask", {"a": NAME})
        assert await used(stand) == {"calls": 1}
        for _ in range(2):  # the same state again and again
            assert not over(await client.back(first, "u__ask", {"a": NAME}))
        assert await used(stand) == {"calls": 3}
        refused(await client.back(first, "u__ask", {"a": NAME}), 429, CODE)
        reply = second
        for _ in range(7):  # a call that never ends is no way around either
            reply = await client.back(reply, "u__ask", {"a": NAME})
            assert asked(reply)
        refused(await client.back(reply, "u__ask", {"a": NAME}), 429, CODE)


async def test_a_call_that_the_gateway_makes_again_counts_once(tmp_path: Path) -> None:
    from tests.gateway.dialogue import EVERYTHING, answer, begin

    server_of = playing(greet=rounds(asks({"who": elicit()}, "s")))
    async with serve(server_of) as server, Stand(tmp_path, {"u": http(server)}, **quotas({"calls": "1/day"})) as stand:
        client = await stand.legacy("ann", **EVERYTHING)
        async with await client.listen(), await begin(client, "u__greet") as call:
            await answer(client, await call.event())
            assert "result" in await call.event()
        assert len(server_of.script.called) == 2 and await used(stand) == {"calls": 1}
        assert over(await client.call("u__greet"))


async def test_a_failed_call_uses_calls_and_no_budget_and_a_guess_uses_nothing(tmp_path: Path) -> None:
    script = Script({"good": text("x" * 400), "sad": text("no", isError=True)}, fails={"bad": (-32000, None)})
    settings = quotas({"calls": "10/day", "cost": "10/day", "tokens": "1M/day"}, prices={"u/*": 2})
    async with serve(Modern(script)) as server, Stand(tmp_path, {"u": http(server)}, **settings) as stand:
        await stand.call("u__bad", who="ann")
        assert await used(stand) == {"calls": 1}
        await stand.call("u__unknown", who="ann")
        assert await used(stand) == {"calls": 1}
        await stand.call("u__sad", who="ann")  # the tool worked for it
        assert (await used(stand))["cost"] == 2
        before = (await used(stand))["tokens"]
        await stand.call("u__good", who="ann")
        now = await used(stand)
        assert now["calls"] == 3 and now["cost"] == 4 and now["tokens"] - before > 100


async def test_a_result_that_the_policy_keeps_back_has_its_price(tmp_path: Path) -> None:
    rules = {"rules": [allow("*/*"), {"id": "secret", "result": ["u/*"], "block": True}]}
    settings = {**quotas({"cost": "10/day"}, prices={"u/*": 2}), "policy": rules}
    async with (
        serve(Modern(Script({"good": text("x")}))) as server,
        Stand(tmp_path, {"u": http(server)}, **settings) as stand,
    ):
        await stand.call("u__good", who="ann")
        assert await used(stand) == {"cost": 2}


async def test_a_call_that_is_cancelled_has_its_price_and_one_for_a_dead_server_has_none(tmp_path: Path) -> None:
    began, gate = asyncio.Event(), asyncio.Event()
    script = Script(acts={"wait": waiting(gate, began)})
    settings = quotas({"cost": "10/day"}, prices={"u/*": 2})
    server = serve(Modern(script))
    async with Stand(tmp_path, {}, **settings) as stand:
        async with server:
            await stand.reload(servers={"u": http(server)})
            await stand.house.warmed(10)
            wire = await stand.connect()
            wire.send(stand.request(_modern("tools/call", name="u__wait", arguments={}), who="ann"))
            await began.wait()
            await wire.close()
            await stand.records(1)
            assert await used(stand) == {"cost": 2}
        assert "error" in (await stand.call("u__wait", who="ann")).json
        assert await used(stand) == {"cost": 2}


async def test_a_note_says_that_a_limit_is_near(tmp_path: Path) -> None:
    script = Script({"work": text("done", _meta={"mine": 1})})
    settings = quotas({"calls": "2/day", "soft": "90%"})
    async with serve(Modern(script)) as server, Stand(tmp_path, {"u": http(server)}, **settings) as stand:
        first, second = [await stand.result("u__work", who="ann") for _ in range(2)]
        assert "callgate/quota" not in first["_meta"]
        (note,) = second["_meta"]["callgate/quota"]
        assert (note["measure"], note["used"]) == ("calls", 1.0) and 0 < note["resets"] <= 86400
        assert second["_meta"]["mine"] == 1 and second["content"] == first["content"]
        records = await stand.records(2)
        assert "quota q0: 100% of calls" in records[1]["reason"] and "quota" not in records[0]["reason"]
        metrics = stand.house.metrics.render()
    assert 'callgate_quota_warnings_total{quota="q0",measure="calls"} 1' in metrics


async def test_metrics_count_refusals_and_counters(tmp_path: Path) -> None:
    async with serve(Modern()) as server, Stand(tmp_path, {"u": http(server)}, **quotas({"calls": "1/day"})) as stand:
        for _ in range(3):
            await stand.call("u__echo", who="ann")
        metrics = stand.house.metrics.render()
    assert 'callgate_quota_refusals_total{quota="q0",measure="calls"} 2' in metrics
    assert 'callgate_quota_keys{counter="q0/calls"} 1' in metrics


async def test_per_agent_and_per_user_through_the_token_service(tmp_path: Path) -> None:
    several = [{"id": "user", "calls": "3/day"}, {"id": "agent", "calls": "2/day", "per": ["agent"]}]
    async with office(tmp_path, quotas=several) as stand:
        planner = await stand.through("planner")
        assert [(await stand.call_with(planner)).status for _ in range(3)] == [200, 200, 429]
        again = await stand.through("planner")  # another token is no other counter
        assert (await stand.call_with(again)).status == 429
        coder = await stand.through("planner", "coder")  # another agent, but the same user
        assert [(await stand.call_with(coder)).status for _ in range(2)] == [200, 429]
        own = await stand.own("planner")  # the agent for itself: its counter is used up
        assert (await stand.call_with(own)).status == 429
        assert (await stand.call_with(await stand.own("coder"))).status == 200


async def test_what_was_used_outlives_the_process(tmp_path: Path) -> None:
    settings = quotas({"calls": "3/day"}, {"calls": "3/day", "period": "sliding", "per": ["agent"]})
    async with serve(Modern()) as server:
        async with Stand(tmp_path, {"u": http(server)}, **settings) as stand:
            for _ in range(2):
                assert (await stand.call("u__echo", who="ann")).status == 200
        async with Stand(tmp_path, {"u": http(server)}, **settings) as stand:
            assert [(await stand.call("u__echo", who="ann")).status for _ in range(2)] == [200, 429]
            assert (await stand.call("u__echo", who="ben")).status == 200


async def test_a_crash_loses_no_more_than_a_second(tmp_path: Path) -> None:
    async with (
        serve(Modern()) as server,
        Stand(tmp_path, {"u": http(server)}, **quotas({"calls": "9/day"})) as stand,
    ):
        await stand.call("u__echo", who="ann")

        def written() -> list[Any]:
            with sqlite3.connect(stand.house.database.path) as connection:
                return connection.execute("SELECT used FROM counts").fetchall()

        await until(written, 1.5)
        assert written() == [(1.0,)]


@pytest.mark.slow
async def test_gateways_on_one_data_dir_know_of_each_other_within_a_second(tmp_path: Path) -> None:
    settings = quotas({"calls": "4/day"})
    async with serve(Modern()) as server, Stand(tmp_path, {"u": http(server)}, **settings) as one:
        two = Stand(tmp_path, {"u": http(server)}, **settings)
        await two.start()
        try:
            for stand in (one, two, one):
                assert (await stand.call("u__echo", who="ann")).status == 200
            await asyncio.sleep(1.2)
            for stand in (two, one):
                await stand.call("u__echo", who="ann")
            await asyncio.sleep(1.2)
            assert [(await stand.call("u__echo", who="ann")).status for stand in (one, two)] == [429, 429]
        finally:
            await two.gateway.aclose()


async def test_a_reload_in_between_gives_nothing_back(tmp_path: Path) -> None:
    async with serve(Modern()) as server, Stand(tmp_path, {"u": http(server)}, **quotas({"calls": "2/day"})) as stand:
        assert (await stand.call("u__echo", who="ann")).status == 200
        await stand.reload(quotas=[{"id": "q0", "calls": "2/day", "soft": "50%"}, {"id": "new", "rate": "60/min"}])
        assert (await stand.call("u__echo", who="ann")).status == 200
        assert (await stand.call("u__echo", who="ann")).status == 429
        await stand.reload(quotas=[])
        assert (await stand.call("u__echo", who="ann")).status == 200
        await stand.reload(**quotas({"calls": "2/day"}))  # it was written down
        assert (await stand.call("u__echo", who="ann")).status == 429


async def test_quotas_that_cannot_be_read_leave_everything_as_it_was(tmp_path: Path) -> None:
    async with serve(Modern()) as server, Stand(tmp_path, {"u": http(server)}, **quotas({"calls": "1/day"})) as stand:
        await stand.call("u__echo", who="ann")
        stand.write(quotas=[{"id": "q0", "calls": "5/day", "to": {"roles": ["[x"]}}])
        await stand.gateway.reload()
        assert (await stand.call("u__echo", who="ann")).status == 429


async def test_without_quotas_nothing_is_done_for_a_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(Modern()) as server, Stand(tmp_path, {"u": http(server)}, **PEOPLE) as stand:
        monkeypatch.setattr(stand.house.counting, "quotas", None)
        assert (await stand.call("u__echo", who="ann")).status == 200


async def test_a_task_counts_once_and_asking_about_it_only_by_rate(tmp_path: Path) -> None:
    settings = quotas({"calls": "1/day"}, {"rate": "4/hour"})
    async with open_stand(tmp_path, ModernTasks(), **settings) as stand:
        client = ModernClient(stand)
        task = await client.started()
        for _ in range(3):
            assert (await client.about("get", task["taskId"])).status == 200
        refused(await client.about("get", task["taskId"]), 429, CODE)
        assert not over(await client.about("cancel", task["taskId"]))  # ending something is never refused
        refused(await client.call("jobs__slow"), 429, CODE)
        assert (await used(stand))["calls"] == 1


@pytest.mark.slow
async def test_a_task_of_the_gateways_own_keeps_its_place_while_it_runs(tmp_path: Path) -> None:
    """A legacy client that makes tasks of its calls runs no more of them at once than others may."""
    server_of = ModernTasks()
    async with open_stand(tmp_path, server_of, **quotas({"concurrency": 1})) as stand:
        client = await stand.legacy("ann", "2025-11-25")
        reply = await client.call("jobs__long", {}, task={"ttl": 60_000})
        assert reply.json["result"]["task"]["status"] == "working", reply
        assert over(await client.call("jobs__quick", {}, id=2))
        server_of.gate.set()
        await until(lambda: not _taken(stand))
        assert not over(await client.call("jobs__quick", {}, id=3))


async def test_over_stdio(tmp_path: Path) -> None:
    async with serve(Modern()) as server, Stand(tmp_path, {"u": http(server)}, **quotas({"calls": "2/day"})) as stand:
        assert (await stand.call("u__echo", who="ann")).status == 200
        who = await stand.house.recogniser.recognise(b"Bearer the-key-of-ann")
        (theirs, stdin), (stdout, ours) = os.pipe(), os.pipe()
        with os.fdopen(theirs, "rb") as reads, os.fdopen(ours, "wb") as writes, os.fdopen(stdout, "rb") as answers:
            front = asyncio.create_task(StdioFront(stand.house, who, "", (reads, writes)).serve())
            os.write(stdin, b"".join(json.dumps(calling("u__echo", {}, id=at)).encode() + b"\n" for at in (1, 2)))
            said = [json.loads(await asyncio.to_thread(answers.readline)) for _ in range(2)]
            os.close(stdin)
            await front
        assert sorted("result" in each for each in said) == [False, True]
        (error,) = [each["error"] for each in said if "error" in each]
        assert error["code"] == CODE and error["data"]["retry_after"] > 0


async def test_what_the_admin_api_says(tmp_path: Path) -> None:
    settings = quotas({"calls": "2/day", "per": ["agent"]}, prices={"u/*": 0.5})
    async with serve(Modern()) as server, Stand(tmp_path, {"u": http(server)}, **settings) as stand:
        for _ in range(3):
            await stand.call("u__echo", who="ann")
        await stand.call("u__echo", who="ben")
        await stand.records(4)
        token = (tmp_path / "data" / "operator.token").read_text().strip()

        async def get(path: str, bearer: str) -> Reply:
            admin = stand.gateway.admin_url if hasattr(stand.gateway, "admin_url") else stand.house.urls["admin"]
            port = int(admin.rstrip("/").rpartition(":")[2])
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(
                f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {bearer}\r\n"
                "Connection: close\r\n\r\n".encode()
            )
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            writer.close()
            return Reply(int(head.split(b" ")[1]), {}, body)

        said = (await get("/api/v1/usage", token)).json
        assert [(each["name"], each["calls"], each["ok"], each["refused"], each["cost"]) for each in said["usage"]] == [
            ("ann", 3, 2, 1, 1.0), ("ben", 1, 1, 0, 0.5),
        ]  # fmt: skip
        assert said["usage"][0]["tokens"] > 0
        for by, name in (("agent", "ann"), ("server", "u"), ("tool", "u/echo")):
            assert (await get(f"/api/v1/usage?by={by}&since=1h", token)).json["usage"][0]["name"] == name
        assert (await get("/api/v1/usage?by=Tool", token)).status == 400
        assert (await get("/api/v1/usage?until=1h", token)).json["usage"] == []
        own = (await get("/api/v1/usage", "the-key-of-ben")).json  # a caller reads what is its own
        assert [each["name"] for each in own["usage"]] == ["ben"]
        assert (await get("/api/v1/quotas", "the-key-of-ben")).status == 403
        shown = (await get("/api/v1/quotas", token)).json
        (quota,) = shown["quotas"]
        assert (quota["id"], quota["measure"], quota["limit"], shown["store"]) == ("q0", "calls", "2/day", "local")
        assert [(each["key"][0], each["used"], each["limit"]) for each in quota["counters"]] == [
            ("ann", 2, 2),
            ("ben", 1, 2),
        ]
        usage = await _command(stand, "usage", "--by", "tool", "-o", "json", "--token", token)
        assert [(each["name"], each["calls"], each["cost"]) for each in json.loads(usage)] == [("u/echo", 4, 1.5)]
        lines = (await _command(stand, "usage", "--quotas", "--token", token)).splitlines()
        assert [line.split("\t")[:5] for line in lines[-2:]] == [
            ["q0", "calls 2/day", "ann default", "2", "100%"], ["q0", "calls 2/day", "ben default", "1", "50%"],
        ]  # fmt: skip


async def _command(stand: Stand, *arguments: str) -> str:
    more = ("--url", f"http://127.0.0.1:{stand.port}", "--admin-url", stand.house.urls["admin"])
    process = await asyncio.create_subprocess_exec(
        *python("-m", "callgate", *arguments, *more), env=environment(), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 0
    return out.decode()


@pytest.mark.servers
@pytest.mark.key("quotas_store")
async def test_two_gateways_with_a_store_have_one_limit(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    async with redis(tmp_path) as store, serve(Modern()) as server:
        settings = quotas({"calls": "5/day"}, quotas_store={"url": store.url, "timeout": "20s"})
        async with (
            Stand(tmp_path / "one", {"u": http(server)}, **settings) as one,
            Stand(tmp_path / "two", {"u": http(server)}, **settings) as two,
        ):
            said = await asyncio.gather(*((one, two)[at % 2].call("u__echo", who="ann") for at in range(20)))
            assert sorted(each.status for each in said) == [200] * 5 + [429] * 15
            assert "callgate_quota_store_away 0" in one.house.metrics.render()


@pytest.mark.parametrize("state", [7, None, "x" * 100, {"deep": []}])
async def test_a_server_of_the_old_era_that_says_it_asks_crashes_nothing_and_leaves_nothing(
    tmp_path: Path, state: Any
) -> None:
    """Nobody of that era comes back with a state, so none is remembered, whatever it is."""
    says = Script(says={"odd": {**text("x"), "resultType": "input_required", "requestState": state}})
    settings = quotas({"calls": "9/day", "concurrency": 1})
    async with serve(Legacy(says)) as server, Stand(tmp_path, {"u": http(server, "legacy")}, **settings) as stand:
        old = await stand.legacy("ann")
        for _ in range(2):
            assert "result" in (await old.call("u__odd")).json
        assert len(stand.house.counting.quotas.legs) == 0
        assert await used(stand) == {"calls": 2}
