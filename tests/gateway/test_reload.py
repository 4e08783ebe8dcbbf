"""A running gateway takes over another configuration, whole or not at all."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.stand import Stand, allow, deny, keys, refused, until
from tests.gateway.upstreams import Modern, Script, http, serve, text, waiting

pytestmark = pytest.mark.anyio


@pytest.mark.key("policy")
@pytest.mark.rule("POL-7", "POL-8")
async def test_a_policy_counts_from_the_next_call_and_list_on(tmp_path: Path) -> None:
    rules = [allow("u/echo", "u/log", id="first")]
    async with serve(Modern()) as server, Stand(tmp_path, {"u": http(server)}, policy={"rules": rules}) as stand:
        session = await stand.legacy()
        assert await stand.tools() == ["u__echo", "u__log"]
        assert (await stand.call("u__echo")).error is None
        await stand.reload(policy={"rules": [*rules, deny("u/echo", id="second")]})
        assert await stand.tools() == ["u__log"]
        assert (await stand.call("u__echo")).error == -31403
        assert (await session.call("u__echo")).error == -31403
        versions = [(each["rule"], each["policy"]) for each in await stand.records(3)]
        assert [rule for rule, _ in versions] == ["first", "second", "second"]
        assert versions[0][1] != versions[1][1] == versions[2][1] == stand.house.policy.version


@pytest.mark.rule("POL-7")
@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"policy": {"rules": [{"id": "x", "allow": ["u/*"], "when": "nothing.here"}]}}, "nothing"),
        ({"policy": {"rules": [{"id": "x", "alow": ["u/*"]}]}}, "alow"),
        ({"policy": {"rules": [allow("u/*")], "tests": [{"call": "u/echo", "expect": "deny"}]}}, "expects deny"),
        ({"servers": {"u": {"comand": "x"}}}, "comand"),
        ({"servers": {"u": {"command": "x", "cwd": "not/there"}}}, "not/there"),
        ({"identity": {"jwt": [{"issuer": "i", "audience": "a", "jwks_file": "missing.json"}]}}, "missing.json"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
async def test_a_mistake_changes_nothing_and_is_told(
    tmp_path: Path, wrong: dict[str, Any], told: str, caplog: pytest.LogCaptureFixture
) -> None:
    right = {"policy": {"rules": [allow("u/echo")]}, "identity": {"anonymous": True}}
    async with serve(Modern()) as server, Stand(tmp_path, {"u": http(server)}, **right) as stand:
        good = dict(stand.settings)
        before = stand.house.policy, stand.house.settings, stand.house.recogniser
        await stand.reload(**wrong)
        assert (stand.house.policy, stand.house.settings, stand.house.recogniser) == before
        assert await stand.tools() == ["u__echo"]
        assert (await stand.call("u__echo")).status == 200
        problems = (await stand.ask(stand.page("/readyz"))).json
        assert problems["ready"]
        assert told in problems["problems"]["configuration"]
        assert told in caplog.text
        stand.settings = good
        await stand.reload()
        assert (await stand.ask(stand.page("/readyz"))).json["problems"] == {}


@pytest.mark.rule("POL-7")
async def test_a_mistake_found_late_changes_nothing_either(tmp_path: Path) -> None:
    """What is wrong with an issuer is found when the tokens' checker is made, after the policy was compiled."""
    async with serve(Modern()) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        before = stand.house.loaded, stand.house.settings, stand.house.policy, stand.house.recogniser
        jwt = {"issuer": "https://idp.example.org", "audience": "", "jwks_uri": "https://idp.example.org/keys"}
        await stand.reload(identity={"jwt": [jwt]}, policy={"rules": [deny("u/*")]})
        assert "needs an audience" in stand.house.trouble
        after = stand.house.loaded, stand.house.settings, stand.house.policy, stand.house.recogniser
        assert after == before
        assert (await stand.call("u__echo")).error is None


@pytest.mark.key("servers", "servers.url", "servers.disabled")
async def test_servers_come_go_and_change(tmp_path: Path) -> None:
    async with (
        serve(Modern(Script({"a": text("one")}))) as one,
        serve(Modern(Script({"a": text("two")}))) as two,
        Stand(tmp_path, {"x": http(one)}) as stand,
    ):
        assert (await stand.result("x__a"))["content"][0]["text"] == "one"
        await stand.reload(servers={"x": http(one), "y": http(two)})
        await until(lambda: not stand.house.catalog.unlisted())
        await stand.house.catalog.idle()
        assert "y__a" in await stand.tools()
        assert (await stand.result("y__a"))["content"][0]["text"] == "two"
        await stand.reload(servers={"x": http(two)})
        assert "y__a" not in await stand.tools()
        refused(await stand.call("y__a"), 400, -32602)
        assert (await stand.result("x__a"))["content"][0]["text"] == "two"
        refused(await stand.modern("tools/list", path="/servers/y/mcp"), 404)
        await stand.reload(servers={"x": {**http(two), "disabled": True}})
        assert await stand.tools() == []
        refused(await stand.call("x__a"), 400, -32602)


async def test_a_call_may_go_on_while_its_server_leaves(tmp_path: Path) -> None:
    began, gate = asyncio.Event(), asyncio.Event()
    async with (
        serve(Modern(Script(acts={"slow": waiting(gate, began)}))) as server,
        Stand(tmp_path, {"x": http(server)}) as stand,
    ):
        running = asyncio.create_task(stand.call("x__slow"))
        await began.wait()
        await stand.reload(servers={})
        gate.set()
        assert (await running).json["result"]["content"][0]["text"] == "at last"


@pytest.mark.key("identity.keys", "identity.keys.roles", "identity.keys.groups")
async def test_keys_come_and_go(tmp_path: Path) -> None:
    policy = {"rules": [allow("u/echo", to={"roles": ["r"]}, id="r"), allow("u/log", to={"groups": ["g"]}, id="g")]}
    identity = {"keys": keys("ann", roles=["r"])}
    async with (
        serve(Modern()) as server,
        Stand(tmp_path, {"u": http(server)}, policy=policy, identity=identity) as stand,
    ):
        session = await stand.legacy(who="ann")
        assert await stand.tools(who="ann") == ["u__echo"]
        refused(await stand.modern("tools/list", who="bob"), 401)
        changed = [{**keys("ann")[0], "groups": ["g"]}, *keys("bob")]
        await stand.reload(identity={"keys": changed})
        assert await stand.tools(who="ann") == ["u__log"]
        assert await stand.tools(who="bob") == []
        assert (await session.ask("ping")).status == 200
        await stand.reload(identity={"keys": keys("bob")})
        refused(await session.ask("ping"), 401)


async def test_what_cannot_change_while_running_stays_and_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Stand(tmp_path) as stand:
        await stand.reload(limits={"max_body": 10}, list_page_size=1)
        assert stand.house.settings.limits.max_body > 10
        assert "only taken over at the next start: limits, list_page_size" in caplog.text
        assert (await stand.modern("tools/list")).status == 200


async def test_two_reloads_at_once_end_with_what_was_written_last(tmp_path: Path) -> None:
    async with serve(Modern()) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        for count in range(1, 6):
            stand.write(policy={"rules": [allow("u/echo", id=f"rule-{count}")]})
            first = asyncio.create_task(stand.gateway.reload())
            await asyncio.sleep(0)
            stand.write(policy={"rules": [allow("u/echo", id=f"last-{count}")]})
            await asyncio.gather(first, stand.gateway.reload())
            assert (await stand.call("u__echo")).status == 200
            assert (await stand.records(count))[-1]["rule"] == f"last-{count}"


async def test_no_call_sees_half_of_a_change(tmp_path: Path) -> None:
    """Rule and key change together: the old key never meets the new rules, nor the new key the old ones."""
    async with serve(Modern()) as server:
        one = {
            "identity": {"keys": keys("ann")},
            "policy": {"rules": [allow("u/*", id="one", to={"subjects": ["ann"]})]},
        }
        two = {
            "identity": {"keys": keys("bob")},
            "policy": {"rules": [allow("u/*", id="two", to={"subjects": ["bob"]})]},
        }
        async with Stand(tmp_path, {"u": http(server)}, **one) as stand:
            done = False

            async def knock(who: str) -> set[int]:
                seen: set[int] = set()
                while not done:
                    reply = await stand.call("u__echo", who=who)
                    seen.add(reply.error or reply.status)
                return seen

            knocking = [asyncio.create_task(knock(who)) for who in ("ann", "bob")]
            for _ in range(5):
                await stand.reload(**two)
                await stand.reload(**one)
            done = True
            for each in knocking:
                assert await each == {200, -31401}
