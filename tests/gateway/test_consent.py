"""A server wants its user to agree before it takes a call: what each kind of client is told, and what happens then."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from callgate.gateway import consent
from tests.fuzz.messages import modern, rpc
from tests.fuzz.raw import Reply
from tests.gateway.askers import Client, state
from tests.gateway.consenting import Consenting, Tab, consenting, with_keys
from tests.gateway.stand import refused

pytestmark = pytest.mark.anyio

URL: dict[str, Any] = {"elicitation": {"url": {}}}
YES = {"sign_in": {"action": "accept"}}
ERAS = pytest.mark.parametrize("era", ["modern", "legacy"])


def question(reply: Reply) -> dict[str, Any]:
    """The one question in an ``input_required`` result."""
    assert reply.json["result"]["resultType"] == "input_required", reply
    [(key, asked)] = reply.json["result"]["inputRequests"].items()
    assert (key, asked["method"]) == ("sign_in", "elicitation/create")
    params: dict[str, Any] = asked["params"]
    return params


def base(stand: Consenting) -> str:
    return f"http://127.0.0.1:{stand.port}"


@ERAS
@pytest.mark.rule("ELI-1", "ELI-5")
@pytest.mark.parametrize(
    ("path", "name", "meta"), [("/mcp", "u__hello", {"callgate/server": "u"}), ("/servers/u/mcp", "hello", None)]
)
async def test_a_modern_client_opens_the_page_and_its_call_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, era: str, path: str, name: str, meta: Any
) -> None:
    async with consenting(tmp_path, monkeypatch, era) as stand:
        client = Client(stand, URL, path=path)
        first = await client.call(name, {"a": 1})
        asked = question(first)
        assert (asked["mode"], asked.get("_meta")) == ("url", meta)
        assert "`u`" in asked["message"]
        assert asked["url"].startswith(base(stand) + "/oauth/connect/")
        assert "elicitationId" not in asked  # the modern era has none
        page = await Tab(stand).agree(asked["url"])
        assert (page.status, b"Connected to u" in page.body) == (200, True)
        last = await client.back(first, name, YES, {"a": 1})
        assert last.json["result"]["content"] == [{"type": "text", "text": "hello"}]
        assert (await client.call(name, {"a": 1})).json["result"]["content"]  # and it is not asked again


@pytest.mark.parametrize(
    ("method", "name"), [("prompts/get", "u__review"), ("resources/read", "callgate+u:file:///pub/a.txt")]
)
async def test_prompts_and_resources_ask_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, name: str
) -> None:
    async with consenting(tmp_path, monkeypatch) as stand:
        if method == "resources/read":
            listed = (await stand.modern("resources/list")).json["result"]["resources"]
            name = listed[0]["uri"]
        client = Client(stand, URL, method=method)
        first = await client.call(name)
        await Tab(stand).agree(question(first)["url"])
        assert "error" not in (await client.back(first, name, YES)).json


async def test_who_comes_back_before_the_page_is_done_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with consenting(tmp_path, monkeypatch) as stand:
        client = Client(stand, URL)
        first = await client.call("u__hello")
        waits = asyncio.create_task(client.back(first, "u__hello", YES))
        await asyncio.sleep(0.1)
        assert not waits.done()
        await Tab(stand).agree(question(first)["url"])
        assert (await waits).json["result"]["content"]


async def test_nobody_waits_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consent, "PATIENCE", 0.05)
    async with consenting(tmp_path, monkeypatch) as stand:
        client = Client(stand, URL)
        first = await client.call("u__hello")
        second = await client.back(first, "u__hello", YES)
        assert question(second)["url"] == question(first)["url"]
        assert state(second) != state(first)


async def test_whoever_declines_has_run_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with consenting(tmp_path, monkeypatch) as stand:
        client = Client(stand, URL)
        first = await client.call("u__hello")
        reply = refused(await client.back(first, "u__hello", {"sign_in": {"action": "decline"}}), 400, -32602)
        assert "declined" in reply.json["error"]["message"]


@ERAS
@pytest.mark.rule("ELI-1")
async def test_a_legacy_client_gets_the_error_of_its_version_and_is_told_when_the_page_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, era: str
) -> None:
    async with consenting(tmp_path, monkeypatch, era) as stand:
        client = await stand.legacy(**URL)
        stream = await client.listen()
        error = (await client.call("u__hello")).json["error"]
        assert error["code"] == -32042
        [asked] = error["data"]["elicitations"]
        assert asked["mode"] == "url" and "`u`" in asked["message"]
        assert asked["elicitationId"] not in asked["url"]
        await Tab(stand).agree(asked["url"])
        told = await stream.event()
        assert told["method"] == "notifications/elicitation/complete"
        assert told["params"] == {"elicitationId": asked["elicitationId"]}
        assert (await client.call("u__hello", id=2)).json["result"]["content"]
        await stream.close()


async def test_other_sessions_are_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with consenting(tmp_path, monkeypatch, **with_keys("ann", "bob")) as stand:
        ann, bob = await stand.legacy("ann", **URL), await stand.legacy("bob", **URL)
        stream = await bob.listen()
        [asked] = (await ann.call("u__hello")).json["error"]["data"]["elicitations"]
        stand.connections.grants.add(("u", stand.connections.tickets[asked["url"].rpartition("/")[2]].user))
        stand.house.consents.given("u", "somebody else", asked["url"].rpartition("/")[2])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await stream.event()
        await stream.close()


@pytest.mark.parametrize("capabilities", [{}, {"elicitation": {}}, {"elicitation": {"form": {}}}, {"roots": {}}])
async def test_a_modern_client_that_opens_no_pages_is_told_where_its_user_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, Any]
) -> None:
    async with consenting(tmp_path, monkeypatch) as stand:
        said = (await Client(stand, capabilities).call("u__hello")).json["result"]
        assert said["isError"] is True and said["resultType"] == "complete"
        [content] = said["content"]
        url = said["_meta"]["callgate/consent"]["url"]
        assert url in content["text"] and "`u`" in content["text"]
        await Tab(stand).agree(url)
        assert (await Client(stand, capabilities).call("u__hello")).json["result"].get("isError") is None


@pytest.mark.parametrize("version", ["2025-03-26", "2025-06-18", "2025-11-25"])
async def test_a_legacy_client_that_opens_no_pages_is_told_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    capabilities: dict[str, Any] = {} if version == "2025-11-25" else URL  # older versions know no such error
    async with consenting(tmp_path, monkeypatch) as stand:
        client = await stand.legacy(version=version, **capabilities)
        said = (await client.call("u__hello")).json["result"]
        assert said["isError"] is True
        assert f"{base(stand)}/oauth/connect/" in said["content"][0]["text"]


@pytest.mark.parametrize("capabilities", [{}, URL])
async def test_methods_that_ask_nothing_fail_with_the_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, Any]
) -> None:
    async with consenting(tmp_path, monkeypatch) as stand:
        message = modern(
            "completion/complete",
            {"ref": {"type": "ref/prompt", "name": "u__review"}, "argument": {"name": "a", "value": "b"}},
        )
        message["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"] = capabilities
        error = (await stand.ask(stand.request(message))).json["error"]
        assert (error["code"], error["data"]["server"]) == (-31401, "u")
        assert error["data"]["url"] in error["message"]
        assert "ticket" not in error["data"]


async def test_a_prompt_for_a_client_that_opens_no_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with consenting(tmp_path, monkeypatch) as stand:
        error = (await Client(stand, {}, method="prompts/get").call("u__review")).json["error"]
        assert error["code"] == -31401 and error["data"]["url"] in error["message"]


@pytest.mark.rule("ELI-4")
@pytest.mark.parametrize("capabilities", [{}, URL, {"elicitation": {"form": {}}}, {"elicitation": {}}])
async def test_no_form_ever_asks_for_a_credential_and_the_address_tells_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, Any]
) -> None:
    async with consenting(tmp_path, monkeypatch, **with_keys("ann@example.org")) as stand:
        reply = await Client(stand, capabilities, who="ann@example.org").call("u__hello")
        body = reply.body.decode()
        assert "requestedSchema" not in body and '"form"' not in body
        assert "ann" not in body and "example.org" not in body
        url = next(word for word in body.replace('"', " ").split() if word.startswith("http"))
        # Whoever has nothing but the address is nobody.
        page = await Tab(stand).get(url.partition(f":{stand.port}")[2])
        assert b'action="/oauth/prove"' in page.body and b"as.example.net" not in page.body


@pytest.mark.rule("ELI-2", "MRTR-6")
async def test_the_state_of_one_user_is_worth_nothing_to_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with consenting(tmp_path, monkeypatch, **with_keys("ann", "bob")) as stand:
        ann, bob = Client(stand, URL, who="ann"), Client(stand, URL, who="bob")
        first = await ann.call("u__hello")
        refused(await bob.back(first, "u__hello", YES), 400, -32602)
        refused(await ann.back(first, "u__hello", YES, {"changed": 1}), 400, -32602)
        broken = state(first)[:-2] + ("AA" if not state(first).endswith("AA") else "BB")
        refused(await ann.call("u__hello", inputResponses=YES, requestState=broken), 400, -32602)


@pytest.mark.rule("ELI-1")
async def test_each_demand_is_recorded_once_and_without_its_ticket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with consenting(tmp_path, monkeypatch) as stand:
        client = Client(stand, URL)
        first = await client.call("u__hello")
        await client.call("u__hello")
        await Client(stand, {}).call("u__hello")
        await Client(stand, {}, method="prompts/get").call("u__review")
        url = question(first)["url"]
        await Tab(stand).agree(url)
        rows = await stand.records(6)
        steps = [row for row in rows if row["method"] == "oauth/connect"]
        assert [(row["server"], row["outcome"], row["reason"]) for row in steps] == [
            ("u", "ok", "the user was asked to agree"),
            ("u", "ok", "the user agreed"),
        ]
        assert url.rpartition("/")[2] not in repr(rows)


async def test_policy_has_its_say_before_anybody_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = {"version": 1, "default": "deny", "rules": []}
    async with consenting(tmp_path, monkeypatch, policy=policy) as stand:
        refused(await Client(stand, URL).call("u__hello"), 200, -31403)
        assert stand.connections.tickets == {}


async def test_a_call_that_goes_on_after_the_page_is_judged_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with consenting(tmp_path, monkeypatch) as stand:
        client = Client(stand, URL)
        first = await client.call("u__hello")
        waits = asyncio.create_task(client.back(first, "u__hello", YES))
        await asyncio.sleep(0.1)
        await stand.reload(policy={"version": 1, "default": "deny", "rules": []})
        await Tab(stand).agree(question(first)["url"])
        refused(await waits, 200, -31403)


async def test_a_legacy_task_of_such_a_call_says_where_to_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with consenting(tmp_path, monkeypatch) as stand:
        client = await stand.legacy(**URL)
        reply = await client.post(rpc("tools/call", {"name": "u__hello", "arguments": {}, "task": {"ttl": 1000}}))
        assert reply.json["error"]["code"] == -32042, reply
