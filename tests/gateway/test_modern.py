"""The modern era at the front door: every request stands alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.messages import PREFIX, dump, modern, post, routing
from tests.gateway.stand import Stand, allow, calling, key_of, keys, refused
from tests.gateway.upstreams import Modern, Script, http, serve, text, tool

pytestmark = pytest.mark.anyio

VERSION = PREFIX + "protocolVersion"
CAPABILITIES = PREFIX + "clientCapabilities"


async def test_discover_says_what_the_gateway_is_and_can(tmp_path: Path) -> None:
    async with serve(Modern()) as server, Stand(tmp_path, {"m": http(server)}) as stand:
        result = (await stand.modern("server/discover")).json["result"]
    assert result["supportedVersions"] == ["2026-07-28"]
    assert result["_meta"][PREFIX + "serverInfo"]["name"] == "callgate"
    assert "tools" in result["capabilities"]
    assert result["instructions"] == "[m] be kind"


@pytest.mark.rule("CACHE-1", "CACHE-6")
async def test_cacheable_results_carry_their_hints(tmp_path: Path) -> None:
    """Also when the server gives none, or a negative one."""
    async with (
        serve(Modern(ttl_ms=-5)) as one,
        serve(Modern()) as two,
        Stand(tmp_path, {"one": http(one), "two": http(two)}) as stand,
    ):
        for method in ("server/discover", "tools/list"):
            result = (await stand.modern(method)).json["result"]
            assert result["resultType"] == "complete"
            assert result["ttlMs"] == 0
            assert result["cacheScope"] == "private"


async def test_a_virtual_server_introduces_itself_and_its_servers_only(tmp_path: Path) -> None:
    async with serve(Modern()) as one, serve(Modern()) as two:
        doors = {"half": {"tools": ["one/echo"], "description": "only the half of it"}}
        async with Stand(tmp_path, {"one": http(one), "two": http(two)}, virtual_servers=doors) as stand:
            result = (await stand.modern("server/discover", path="/mcp/half")).json["result"]
            assert result["instructions"] == "only the half of it\n\n[one] be kind"
            assert result["_meta"][PREFIX + "serverInfo"]["name"] == "callgate/half"
            assert await stand.tools(path="/mcp/half") == ["one__echo"]
            refused(await stand.call("two__echo", path="/mcp/half"), 400, -32602)


@pytest.mark.rule("APP-1")
async def test_a_servers_own_door_leaves_its_names_and_its_name_as_they_are(tmp_path: Path) -> None:
    async with serve(Modern()) as server, Stand(tmp_path, {"m": http(server)}) as stand:
        path = "/servers/m/mcp"
        assert "echo" in await stand.tools(path=path)
        assert (await stand.result("echo", {"a": 1}, path=path))["echo"]["name"] == "echo"
        info = (await stand.modern("server/discover", path=path)).json["result"]["_meta"][PREFIX + "serverInfo"]
        assert info == {"name": "modern", "version": "1"}


@pytest.mark.parametrize("path", ["/mcp/nobody", "/servers/nobody/mcp", "/servers/off/mcp", "/mcp/a/b", "/"])
async def test_there_is_no_endpoint_elsewhere(tmp_path: Path, path: str) -> None:
    async with Stand(tmp_path, {"off": {"url": "http://127.0.0.1:1/mcp", "disabled": True}}) as stand:
        refused(await stand.modern("tools/list", path=path), 404)


async def test_an_endpoint_is_found_under_any_spelling_of_its_path(tmp_path: Path) -> None:
    async with (
        serve(Modern()) as server,
        Stand(tmp_path, {"m": http(server)}, virtual_servers={"v": {"tools": ["m/*"]}}) as stand,
    ):
        for path in ("/mcp/", "/mcp?x=1", "/%6dcp", "/mcp/%76", "/servers/%6D/mcp/"):
            assert (await stand.modern("tools/list", path=path)).status == 200, path


@pytest.mark.rule("HDR-9")
async def test_a_call_reaches_the_server_under_its_own_name(tmp_path: Path) -> None:
    async with serve(Modern()) as server, Stand(tmp_path, {"m": http(server)}) as stand:
        result = await stand.result("m__echo", {"text": "hello"})
        assert result["echo"]["name"] == "echo"
        assert result["echo"]["arguments"] == {"text": "hello"}
        assert server.requests[-1].headers["mcp-name"] == "echo"


async def test_the_answer_names_the_call(tmp_path: Path) -> None:
    async with serve(Modern()) as server, Stand(tmp_path, {"m": http(server)}) as stand:
        reply = await stand.call("m__echo")
        [record] = await stand.records(1)
        assert reply.headers["callgate-call-id"] == record["id"]


@pytest.mark.rule("ERR-6")
async def test_an_unknown_tool_is_told_with_the_nearest_name(tmp_path: Path) -> None:
    async with serve(Modern()) as server, Stand(tmp_path, {"m": http(server)}) as stand:
        reply = refused(await stand.call("m__ecco"), 400, -32602)
        assert "Did you mean m__echo?" in reply.json["error"]["message"]
        [record] = await stand.records(1)
        assert (record["outcome"], record["id"]) == ("refused", reply.json["error"]["data"]["callId"])


@pytest.mark.rule("POL-10")
async def test_the_nearest_name_is_never_one_that_the_caller_may_not_see(tmp_path: Path) -> None:
    policy = {"rules": [allow("m/log")]}
    async with serve(Modern()) as server, Stand(tmp_path, {"m": http(server)}, policy=policy) as stand:
        reply = await stand.call("m__ecco")
        assert "echo" not in reply.json["error"]["message"]


@pytest.mark.rule("HTTP-9")
@pytest.mark.parametrize("method", ["nothing/here", "ping", "logging/setLevel", "", "tools/List"])
async def test_an_unknown_method_is_404(tmp_path: Path, method: str) -> None:
    async with Stand(tmp_path) as stand:
        refused(await stand.modern(method), 404, -32601)


@pytest.mark.rule("HTTP-10")
@pytest.mark.parametrize("broken", [{VERSION: None}, {CAPABILITIES: None}, {VERSION: 5}, {CAPABILITIES: []}])
async def test_a_required_meta_key_that_is_missing_or_malformed_is_400(tmp_path: Path, broken: dict[str, Any]) -> None:
    message = modern("tools/list")
    message["params"]["_meta"] |= broken
    async with Stand(tmp_path) as stand:
        refused(await stand.ask(stand.request(message)), 400, -32602)


@pytest.mark.rule("HTTP-8")
async def test_a_version_of_the_future_is_told_which_ones_there_are(tmp_path: Path) -> None:
    message = modern("tools/list")
    message["params"]["_meta"][VERSION] = "2030-01-01"
    headers = [("MCP-Protocol-Version", "2030-01-01"), ("Mcp-Method", "tools/list")]
    async with Stand(tmp_path) as stand:
        reply = refused(await stand.ask(post(stand.port, dump(message), headers)), 400, -32022)
    assert reply.json["error"]["data"] == {"supported": ["2026-07-28"], "requested": "2030-01-01"}


@pytest.mark.rule("HTTP-5")
async def test_a_notification_is_accepted_with_nothing_in_the_answer(tmp_path: Path) -> None:
    message = modern("notifications/anything")
    del message["id"]
    async with Stand(tmp_path) as stand:
        reply = await stand.ask(stand.request(message))
        assert (reply.status, reply.body) == (202, b"")
        broken = await stand.ask(post(stand.port, b'{"jsonrpc":"2.0","method":5}', routing(message)))
        assert broken.status == 400


@pytest.mark.rule("HTTP-1")
@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
async def test_only_post_without_a_session(tmp_path: Path, method: str) -> None:
    async with Stand(tmp_path) as stand:
        reply = await stand.ask(stand.page("/mcp", method=method))
        assert refused(reply, 405).headers["allow"] == "DELETE, GET, OPTIONS, POST"


@pytest.mark.rule("HTTP-2")
@pytest.mark.parametrize("name", ["Mcp-Session-Id", "Last-Event-ID"])
async def test_headers_of_sessions_mean_nothing(tmp_path: Path, name: str) -> None:
    async with serve(Modern()) as server, Stand(tmp_path, {"m": http(server)}) as stand:
        reply = await stand.ask(stand.request(calling("m__echo"), (name, "whatever")))
        assert reply.status == 200
        assert "mcp-session-id" not in reply.headers


@pytest.mark.rule("HTTP-4")
@pytest.mark.parametrize(
    "body", [{"jsonrpc": "2.0", "id": 1, "result": {}}, [modern("tools/list")], [], {"jsonrpc": "1.0", "method": "x"}]
)
async def test_the_body_is_one_request_or_notification(tmp_path: Path, body: Any) -> None:
    async with Stand(tmp_path) as stand:
        refused(await stand.ask(post(stand.port, dump(body), routing(modern("tools/list")))), 400)


@pytest.mark.parametrize("id", [None, True, 1.5, [], {}])
async def test_an_id_is_text_or_a_whole_number(tmp_path: Path, id: object) -> None:
    async with Stand(tmp_path) as stand:
        reply = refused(await stand.ask(stand.request(modern("tools/list", id=id))), 400, -32600)
        assert reply.json["id"] is None


@pytest.mark.parametrize("id", ["", "a", 0, -5, 2**53, "1"])
async def test_the_answer_has_the_id_of_the_question(tmp_path: Path, id: object) -> None:
    async with Stand(tmp_path) as stand:
        for method in ("tools/list", "nothing"):
            reply = await stand.ask(stand.request(modern(method, id=id)))
            assert reply.json["id"] == id
            assert type(reply.json["id"]) is type(id)
        broken = json.loads(dump(modern("tools/list", id=id)))
        broken["params"] = [1]
        assert (await stand.ask(post(stand.port, dump(broken), routing(broken)))).json["id"] in (id, None)


@pytest.mark.rule("HTTP-13")
async def test_the_same_routing_header_twice_is_refused(tmp_path: Path) -> None:
    async with Stand(tmp_path) as stand:
        request = stand.request(modern("tools/list"), ("mcp-method", "tools/list"))
        refused(await stand.ask(request), 400, -32020)


@pytest.mark.rule("HTTP-12", "RS-12", "HDR-1")
async def test_a_call_whose_headers_name_another_tool_is_judged_by_nobody_and_made_by_nobody(tmp_path: Path) -> None:
    policy = {"rules": [allow("m/echo")]}
    async with serve(Modern()) as server, Stand(tmp_path, {"m": http(server)}, policy=policy) as stand:
        before = len(server.requests)
        for claimed in ("m__echo", "M__HANG", "", "=?base64?bV9fZWNobw==?="):
            headers = [("MCP-Protocol-Version", "2026-07-28"), ("Mcp-Method", "tools/call"), ("Mcp-Name", claimed)]
            refused(await stand.ask(post(stand.port, dump(calling("m__hang")), headers)), 400, -32020)
        assert len(server.requests) == before
        for name, value in (("Mcp-Method", "tools/list"), ("MCP-Protocol-Version", "2025-11-25")):
            rest = [pair for pair in routing(calling("m__echo")) if pair[0] != name]
            wrong = post(stand.port, dump(calling("m__echo")), [*rest, (name, value)])
            refused(await stand.ask(wrong), 400, -32020)


@pytest.mark.rule("HDR-3", "HDR-2")
async def test_a_name_that_no_header_can_hold_is_encoded(tmp_path: Path) -> None:
    async with serve(Modern(Script({"größe": text("groß")}))) as server, Stand(tmp_path, {"m": http(server)}) as stand:
        message = calling("größe")
        right, wrong = "=?base64?Z3LDtsOfZQ==?=", "=?base64?Z3LDtsOfZQ=?="
        for value, status in ((right, 200), (wrong, 400)):
            headers = [pair for pair in routing(message) if pair[0] != "Mcp-Name"] + [("Mcp-Name", value)]
            reply = await stand.ask(post(stand.port, dump(message), headers, path="/servers/m/mcp"))
            assert reply.status == status
        assert server.requests[-1].headers["mcp-name"] == right


CITY = tool("weather", inputSchema={"properties": {"city": {"type": "string", "x-mcp-header": "City"}}})


@pytest.mark.rule("HDR-7", "HDR-13", "HDR-10")
async def test_mirrored_arguments_are_checked_and_made_anew(tmp_path: Path) -> None:
    async with serve(Modern(Script({"weather": text("fair")}))) as server:
        server.handler.tools = [CITY]  # type: ignore[attr-defined]
        async with Stand(tmp_path, {"m": http(server)}) as stand:
            ask = stand.request(calling("m__weather", {"city": "Oslo"}))
            refused(await stand.ask(ask), 400, -32020)
            for sent, status in (("Oslo", 200), ("oslo", 400), ("=?base64?T3Nsbw==?=", 200)):
                more = ("Mcp-Param-City", sent), ("Mcp-Param-Unknown", "ignored")
                reply = await stand.ask(stand.request(calling("m__weather", {"city": "Oslo"}), *more))
                assert reply.status == status, reply
            assert server.requests[-1].headers["mcp-param-city"] == "Oslo"
            assert (await stand.call("m__weather", {"city": None})).status == 200
            assert "mcp-param-city" not in server.requests[-1].headers


@pytest.mark.rule("HTTP-6")
async def test_what_the_client_sends_and_takes_is_checked(tmp_path: Path) -> None:
    message = modern("tools/list")
    async with Stand(tmp_path) as stand:
        cases = [("Content-Type", "text/plain", 415), ("Accept", "text/html", 406),
                 ("Accept", "text/event-stream", 406),
                 ("Accept", "application/json", 200), ("Accept", "*/*", 200), ("Accept", "APPLICATION/*;q=0.5", 200),
                 ("Content-Type", "Application/JSON; charset=utf-8", 200)]  # fmt: skip
        for name, value, status in cases:
            request = post(stand.port, dump(message), [*routing(message), (name, value)], without=[name])
            assert (await stand.ask(request)).status == status, (name, value)


# Who asks


@pytest.mark.key("identity.keys", "identity.keys.subject", "identity.keys.sha256", "identity.anonymous")
async def test_without_a_credential_where_one_is_needed_the_answer_is_401(tmp_path: Path) -> None:
    async with serve(Modern()) as server, Stand(tmp_path, {"m": http(server)}, identity={"keys": keys("ann")}) as stand:
        reply = refused(await stand.call("m__echo"), 401)
        assert reply.headers["www-authenticate"].startswith("Bearer")
        assert (await stand.call("m__echo", who="ann")).status == 200
        for method in ("GET", "DELETE"):
            asked = await stand.ask(stand.page("/mcp", method=method))
            assert refused(asked, 401).headers["www-authenticate"].startswith("Bearer")
        outcomes = [(each["outcome"], each["subject"]) for each in await stand.records(4)]
        assert sorted(outcomes) == sorted([("refused", "unauthenticated")] * 3 + [("ok", "ann")])


@pytest.mark.key("identity.anonymous")
async def test_a_wrong_key_is_refused_even_where_strangers_are_welcome(tmp_path: Path) -> None:
    identity = {"anonymous": True, "keys": keys("ann")}
    async with Stand(tmp_path, identity=identity) as stand:
        assert (await stand.modern("tools/list")).status == 200
        assert (await stand.modern("tools/list", who="ann")).status == 200
        refused(await stand.modern("tools/list", who="mallory"), 401)


@pytest.mark.rule("RS-9")
async def test_a_key_in_the_address_is_no_credential(tmp_path: Path) -> None:
    async with Stand(tmp_path, identity={"keys": keys("ann")}) as stand:
        for name in ("access_token", "token", "authorization", "key"):
            refused(await stand.modern("tools/list", path=f"/mcp?{name}={key_of('ann')}"), 401)


@pytest.mark.rule("RS-9")
async def test_every_request_of_a_connection_is_recognised_anew(tmp_path: Path) -> None:
    async with Stand(tmp_path, identity={"keys": keys("ann")}) as stand, await stand.connect() as wire:
        for who, status in (("ann", 200), (None, 401), ("ann", 200), ("mallory", 401)):
            wire.send(stand.request(modern("tools/list"), who=who))
            assert (await wire.reply()).status == status


@pytest.mark.rule("RS-8")
@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_the_clients_credential_stays_on_its_own_hop(tmp_path: Path, era: str) -> None:
    from tests.gateway.upstreams import Legacy

    upstream: Any = Modern() if era == "modern" else Legacy()
    config = {"headers": {"X-Own": "secret-of-the-back"}}
    async with serve(upstream) as server:
        servers = {"m": http(server, era, **config)}
        async with Stand(tmp_path, servers, identity={"keys": keys("ann")}) as stand:
            sent = stand.request(
                calling("m__echo"), ("Cookie", "c=front-cookie"), ("X-Api-Key", "front-key"), who="ann"
            )
            assert (await stand.ask(sent)).status == 200
        seen = "\n".join(f"{name}: {value}" for request in server.requests for name, value in request.headers.items())
        seen += "".join(request.body.decode() for request in server.requests)
        for secret in (key_of("ann"), "front-cookie", "front-key"):
            assert secret not in seen
        assert server.requests[-1].headers["x-own"] == "secret-of-the-back"
        assert "authorization" not in server.requests[-1].headers


@pytest.mark.rule("RS-11")
async def test_nobody_becomes_somebody_by_saying_so(tmp_path: Path) -> None:
    policy = {"rules": [allow("m/*", to={"subjects": ["admin"]})]}
    async with serve(Modern()) as server, Stand(tmp_path, {"m": http(server)}, policy=policy) as stand:
        message = calling("m__echo", **{PREFIX + "clientInfo": {"name": "admin", "version": "1", "roles": ["admin"]}})
        refused(await stand.ask(stand.request(message, ("X-Forwarded-User", "admin"))), 200, -31403)
