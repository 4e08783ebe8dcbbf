"""Policy at a running gateway: what tools do, layers, shadow, scopes, results, and a swap while calls run."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from callgate.config import load
from callgate.errors import ConfigError
from callgate.gateway.policies import policy_of, warnings
from tests.fuzz.messages import modern
from tests.gateway.stand import Stand, allow, deny, keys, refused
from tests.gateway.tasking import ModernClient, open_stand
from tests.gateway.test_scopes import challenge_of
from tests.gateway.upstreams import Legacy, Modern, Script, http, serve, text, tool
from tests.identity.oauth.office import office
from tests.servers.tasks_http import ModernTasks, said

pytestmark = pytest.mark.anyio

LIAR = [tool("wipe", annotations={"readOnlyHint": True, "destructiveHint": False})]
READERS = {"rules": [allow("u/*", when="tool.readOnly"), allow("u/*", id="ops", operations=["read"])]}


def liar() -> Modern:
    return Modern(Script(), LIAR)


def read(folder: Path, **settings: Any) -> Any:
    file = folder / "other.yaml"
    file.write_text(json.dumps({"data_dir": str(folder), **settings}))
    return load(file, env={}, cwd=folder, system=folder / "none.yaml")


@pytest.mark.rule("POL-6")
@pytest.mark.key("servers.annotations")
async def test_a_server_that_is_not_believed_cannot_lie_its_way_through_an_allow_rule(tmp_path: Path) -> None:
    async with serve(liar()) as server:
        entry = http(server) | {"annotations": "ignored"}
        async with Stand(tmp_path, {"u": entry}, policy=READERS) as stand:
            assert await stand.tools() == []
            refused(await stand.call("u__wipe"), 200, -31403)
            await stand.reload(servers={"u": http(server) | {"annotations": "trusted"}})
            assert await stand.tools() == ["u__wipe"]
            assert (await stand.call("u__wipe")).error is None


@pytest.mark.rule("POL-6")
@pytest.mark.key(
    "servers.classify.operation", "servers.classify.read_only", "servers.classify.destructive",
    "servers.classify.idempotent", "servers.classify.open_world",
)  # fmt: skip
@pytest.mark.parametrize(
    ("said", "when"),
    [
        ({"operation": "delete"}, "tool.operation == 'delete'"),
        ({"read_only": False}, "!tool.readOnly"),
        ({"read_only": False, "destructive": False}, "!tool.destructive && !tool.readOnly"),
        ({"idempotent": True}, "tool.idempotent"),
        ({"open_world": False}, "!tool.openWorld"),
    ],
)
async def test_what_the_operator_says_of_a_tool_counts_from_the_next_call_on(
    tmp_path: Path, said: dict[str, Any], when: str
) -> None:
    """The server is not started anew, and what it shows of its tools stays as it is."""
    rules = {"rules": [allow("u/wipe"), deny("u/wipe", when=when)]}
    async with serve(liar()) as server, Stand(tmp_path, {"u": http(server)}, policy=rules) as stand:
        assert (await stand.call("u__wipe")).error is None
        running = stand.house.upstreams._servers["u"]
        await stand.reload(servers={"u": http(server) | {"classify": {"wi*": said}}})
        refused(await stand.call("u__wipe"), 200, -31403)
        assert await stand.tools() == []
        assert stand.house.upstreams._servers["u"] is running
        await stand.reload(servers={"u": http(server)})
        assert (await stand.call("u__wipe")).error is None


@pytest.mark.rule("POL-6")
def test_where_other_machines_call_nobody_is_believed_unsaid_and_the_log_says_so(tmp_path: Path) -> None:
    more = {"policy": READERS, "identity": {"keys": keys("ann")}, "servers": {"u": {"url": "http://127.0.0.1:9/"}}}
    there = read(tmp_path, listen="0.0.0.0:8080", **more)
    policy = policy_of(there, loopback=False)
    [line] = warnings(policy, there.settings)
    assert "allowed, ops" in line and "not believed: u" in line
    here = read(tmp_path, listen="127.0.0.1:8080", **more)
    assert warnings(policy, here.settings) == []
    for url, believed in (("https://mcp.example.org", False), ("http://[::1]:9", True), ("http://localhost:9", True)):
        proxied = read(tmp_path, listen="127.0.0.1:8080", public_url=url, **more)
        assert bool(warnings(policy, proxied.settings)) != believed


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"operation": "write", "read_only": True}, "contradicts `operation: write`"),
        ({"operation": "read", "destructive": True}, "destroys nothing"),
        ({"operation": "wipe"}, "must be one of"),
    ],
)
def test_classifications_that_contradict_themselves(tmp_path: Path, said: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        read(tmp_path, servers={"u": {"url": "http://127.0.0.1:9/", "classify": {"*": said}}})


@pytest.mark.key("policy.file", "policy.narrows")
async def test_a_file_that_narrows_takes_away_at_a_running_gateway(tmp_path: Path) -> None:
    (tmp_path / "org.json").write_text(json.dumps({"rules": [allow("u/echo", "u/log")]}))
    (tmp_path / "team.json").write_text(json.dumps({"default": "deny", "rules": [allow("u/echo", "u/ask", id="team")]}))
    files = ["org.json", {"file": "team.json", "narrows": True}]
    async with serve(Modern()) as server, Stand(tmp_path, {"u": http(server)}, policy=files) as stand:
        assert await stand.tools() == ["u__echo"]
        assert (await stand.call("u__echo")).error is None
        for name in ("u__log", "u__ask"):
            refused(await stand.call(name), 200, -31403)
        record = (await stand.records(3))[1]
        assert record["reason"] == "no rule of team.json allows u/log"
        await stand.reload(policy=["org.json", {"file": "team.json"}])
        assert (await stand.call("u__log")).error is None


@pytest.mark.rule("POL-11")
async def test_shadow_rules_only_leave_their_mark_in_the_record(tmp_path: Path) -> None:
    rules = [
        allow("u/*"),
        deny("u/log", id="tried", shadow=True),
        {"id": "cut", "result": ["u/echo"], "block": True, "shadow": True},
    ]
    async with serve(Modern()) as server, Stand(tmp_path, {"u": http(server)}, policy={"rules": rules}) as stand:
        for name in ("u__log", "u__echo", "u__ask"):
            assert (await stand.call(name, {"a": 1, "b": 2, "text": "x"})).error is None
        records = await stand.records(3)
        assert [each.get("shadow") for each in records] == [
            {"effect": "deny", "rule": "tried"}, {"effect": "block", "rule": "cut"}, None,
        ]  # fmt: skip
        assert {each["rule"] for each in records} == {"allowed"}


@pytest.mark.rule("POL-11")
def test_a_policy_that_is_only_tried_out_does_not_open_the_door_to_other_machines(tmp_path: Path) -> None:
    only = {"mode": "shadow", "rules": [allow("u/*")]}
    there = read(tmp_path, listen="0.0.0.0:8080", policy=only, identity={"keys": keys("ann")})
    with pytest.raises(ConfigError, match="in shadow mode"):
        policy_of(there, loopback=False)
    assert not policy_of(there, loopback=True).enforced


@pytest.mark.rule("POL-4", "RS-4")
async def test_a_rule_that_needs_scopes_is_told_with_all_of_them(tmp_path: Path) -> None:
    async with office(tmp_path, {"oauth": {"scope_includes": {"admin": ["write"]}}}) as stand:
        rules = [{"id": "r", "allow": ["u/*"], "needs": {"scopes": ["write"]}}]
        await stand.reload(policy={"rules": rules})
        token = await stand.own("planner", scope="read")
        reply = await stand.call_with(token)
        assert challenge_of(reply)["scope"] == "read write"
        assert reply.json["error"]["data"]["kind"] == "scope"
        record = (await stand.records(1))[-1]
        assert (record["outcome"], record["rule"]) == ("denied", "r")
        for scope in ("read write", "admin"):  # the broader one stands for it
            assert (await stand.call_with(await stand.own("planner", scope=scope))).status == 200


HIDE = {"id": "hide", "result": ["*/*"], "redact": ["$.secret"]}
SAYS = json.dumps({"secret": "hunter2-hunter2", "open": 1})


async def test_results_are_treated_in_both_eras_for_every_method(tmp_path: Path) -> None:
    for era, server in (
        ("modern", Modern(Script({"tell": text(SAYS)}))),
        ("legacy", Legacy(Script({"tell": text(SAYS)}))),
    ):
        folder = tmp_path / era
        folder.mkdir()
        async with (
            serve(server) as upstream,
            Stand(folder, {"u": http(upstream, era)}, policy={"rules": [allow("*/*"), HIDE]}) as stand,
        ):
            session = await stand.legacy()
            for reply in (await stand.call("u__tell"), await session.call("u__tell")):
                assert json.loads(reply.json["result"]["content"][0]["text"]) == {"secret": "[redacted]", "open": 1}
            own = await stand.ask(
                stand.request(modern("vendor/x", {"secret": "hunter2-hunter2"}), path="/servers/u/mcp")
            )
            assert b"hunter2" not in own.body


async def test_the_result_of_a_task_is_treated_however_it_is_fetched(tmp_path: Path) -> None:
    server = ModernTasks()
    async with open_stand(tmp_path, server, policy={"rules": [allow("*/*"), HIDE]}) as stand:
        client = ModernClient(stand)
        task = await client.started()
        server.jobs.last.finish(said(SAYS))
        ended = await client.result("get", task["taskId"])
        assert json.loads(ended["result"]["content"][0]["text"])["secret"] == "[redacted]"


async def test_large_arguments_are_no_way_around_a_rule_over_the_result_of_a_task(tmp_path: Path) -> None:
    """They are not kept with the task, so a rule that looks at them is in doubt, and applies."""
    server = ModernTasks()
    when = "has(args.of) && args.of == 'hr'"
    async with open_stand(tmp_path, server, policy={"rules": [allow("*/*"), {**HIDE, "when": when}]}) as stand:
        client = ModernClient(stand)
        for arguments, kept in (({"of": "hr", "pad": "x" * 2_000}, False), ({"of": "hr"}, False), ({"of": "it"}, True)):
            task = (await client.call("jobs__slow", arguments=arguments)).json["result"]
            server.jobs.last.finish(said(SAYS))
            ended = await client.result("get", task["taskId"])
            assert ("hunter2" in json.dumps(ended)) is kept, arguments


async def test_a_blocked_result_is_a_denial_with_its_rule_in_the_record(tmp_path: Path) -> None:
    rules = [allow("u/*"), {"id": "no", "result": ["u/tell"], "block": True}]
    script = Script({"tell": text(SAYS)})
    async with serve(Modern(script)) as server, Stand(tmp_path, {"u": http(server)}, policy={"rules": rules}) as stand:
        reply = await stand.call("u__tell")
        assert reply.error == -31403
        assert b"hunter2" not in reply.body and b'"no"' not in reply.body
        record = (await stand.records(1))[0]
        assert (record["outcome"], record["rule"], record["reason"]) == ("denied", "no", "result blocked by no")
        assert len(script.called) == 1


async def test_a_large_result_is_cut_off_the_event_loop(tmp_path: Path) -> None:
    rules = [allow("u/*"), {"id": "short", "result": ["u/*"], "truncate": "4KiB"}]
    script = Script({"tell": text("x" * 300_000)})
    async with serve(Modern(script)) as server, Stand(tmp_path, {"u": http(server)}, policy={"rules": rules}) as stand:
        result = await stand.result("u__tell")
        assert len(json.dumps(result)) < 6000
        assert result["_meta"]["callgate/truncated"]["bytes"] > 300_000


async def test_lists_mark_what_would_not_simply_be_allowed(tmp_path: Path) -> None:
    rules = [
        allow("u/echo"),
        allow("u/log", id="b", when="args.n < 3"),
        {"id": "c", "ask": ["u/ask"], "to": {"subjects": ["anonymous"]}},
    ]
    async with serve(Modern()) as server, Stand(tmp_path, {"u": http(server)}, policy={"rules": rules}) as stand:
        listed = (await stand.modern("tools/list")).json["result"]["tools"]
        marks = {each["name"]: each.get("_meta", {}).get("callgate/decision") for each in listed}
        assert marks == {"u__ask": "ask", "u__echo": None, "u__log": "arguments"}


@pytest.mark.slow
@pytest.mark.rule("POL-7")
async def test_no_call_is_lost_or_misjudged_while_a_policy_of_a_thousand_rules_is_swapped(tmp_path: Path) -> None:
    """Calls run all the time; every answer is that of one of the two policies, as its record says, whole."""
    filler = [deny(f"other{at}/*", id=f"f{at}", when=f"args.n == {at}") for at in range(998)]
    one = [allow("u/echo", id="one-yes"), deny("u/log", id="one-no"), *filler]
    two = [allow("u/log", id="two-yes"), deny("u/echo", id="two-no"), *filler]
    async with serve(Modern()) as server, Stand(tmp_path, {"u": http(server)}, policy={"rules": one}) as stand:
        done, answers = asyncio.Event(), []

        async def client(name: str) -> None:
            while not done.is_set():
                answers.append((name, (await stand.call(name, {"text": "x"})).error))

        clients = [asyncio.create_task(client(name)) for name in ("u__echo", "u__log") for _ in range(4)]
        versions = [stand.house.policy.version]
        for rules in (two, one, two, one):
            await stand.reload(policy={"rules": rules})
            versions.append(stand.house.policy.version)
            await asyncio.sleep(0.1)
        done.set()
        await asyncio.gather(*clients)
        records = await stand.records(len(answers))
    assert len(records) == len(answers)
    assert {error for _, error in answers} == {None, -31403}
    assert len(set(versions)) == 2
    says = {versions[0]: {"echo": ("ok", "one-yes"), "log": ("denied", "one-no")},
            versions[1]: {"echo": ("denied", "two-no"), "log": ("ok", "two-yes")}}  # fmt: skip
    for each in records:
        assert (each["outcome"], each["rule"]) == says[each["policy"]][each["tool"]]
    for name in ("echo", "log"):
        refusals = sum(error is not None for which, error in answers if which == f"u__{name}")
        assert refusals == sum(each["outcome"] == "denied" for each in records if each["tool"] == name)
