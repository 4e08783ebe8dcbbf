"""Scope step-up: a token of ours that does not say enough is told, once, what would be enough (RS-4, RS-5)."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import msgspec
import pytest

from callgate.catalog import expose
from callgate.config import Identity
from callgate.errors import ConfigError, InsufficientScope
from callgate.gateway import StdioFront
from callgate.gateway.scopes import ScopeRules
from callgate.types import Call, Front, Tool
from tests.fuzz.messages import LEGACY, dump, initialize, modern, post, rpc
from tests.fuzz.raw import Reply
from tests.gateway import tellers
from tests.gateway.library import ModernLibrary
from tests.gateway.stand import allow, calling
from tests.gateway.upstreams import http, serve
from tests.identity.oauth.booth import booth
from tests.identity.oauth.office import Office, agent, claims_of, office, secret_of
from tests.identity.provider import ec_key
from tests.identity.signin.idp import SECRET, Browser

pytestmark = pytest.mark.anyio

REQUIRED = {"u/delete_*": ["write"], "u/delete_all": ["admin"], "*/*": ["read"]}
CODE = -31413


@asynccontextmanager
async def bounded(
    folder: Path, required: Mapping[str, Any] | None = None, includes: Mapping[str, Any] | None = None
) -> AsyncIterator[Office]:
    oauth = {"required_scopes": REQUIRED if required is None else required, "scope_includes": includes or {}}
    async with office(folder, {"oauth": oauth}) as stand:
        yield stand


def challenge_of(reply: Reply) -> dict[str, str]:
    """The parameters of the challenge; a refusal for scopes has exactly one."""
    assert reply.status == 403, reply
    scheme, _, rest = reply.headers["www-authenticate"].partition(" ")
    return {"scheme": scheme, **dict(part.split("=", 1) for part in rest.replace('"', "").split(", "))}


@pytest.mark.rule("RS-4")
@pytest.mark.key("identity.oauth.required_scopes")
async def test_a_call_without_its_scopes_is_told_all_of_them(tmp_path: Path) -> None:
    async with bounded(tmp_path) as stand:
        token = await stand.own("planner", scope="read")
        assert (await stand.call_with(token)).status == 200
        reply = await stand.call_with(token, "u__delete_all")
        assert challenge_of(reply) == {
            "scheme": "Bearer", "realm": "callgate", "error": "insufficient_scope", "scope": "read write admin",
            "resource_metadata": f"{stand.base}/.well-known/oauth-protected-resource/mcp",
        }  # fmt: skip
        error = reply.json["error"]
        assert (error["code"], error["data"]["kind"], error["data"]["scope"]) == (CODE, "scope", "read write admin")
        assert reply.headers["callgate-call-id"] == error["data"]["callId"]
        enough = await stand.own("planner", scope=challenge_of(reply)["scope"])
        assert (await stand.call_with(enough, "u__delete_all")).status == 200


@pytest.mark.rule("RS-4")
async def test_the_challenge_keeps_what_the_token_has_and_never_says_offline_access(tmp_path: Path) -> None:
    async with bounded(tmp_path, {"u/hello": ["write"]}) as stand:
        registry = stand.settings["identity"]
        registry["agents"]["planner"]["scopes"].append("offline_access")
        await stand.reload(identity=registry)
        reply = await stand.call_with(await stand.own("planner", scope="admin offline_access"))
        assert challenge_of(reply)["scope"] == "admin write"


async def test_the_record_says_that_it_was_denied_and_why(tmp_path: Path) -> None:
    async with bounded(tmp_path) as stand:
        reply = await stand.call_with(await stand.own("planner", scope="read"), "u__delete_all")
        record = (await stand.records(2))[-1]
        assert (record["outcome"], record["error_code"], record["subject"]) == ("denied", CODE, "agent:planner")
        assert (record["server"], record["tool"], record["id"]) == (
            "u",
            "delete_all",
            reply.json["error"]["data"]["callId"],
        )
        assert "scopes" in record["reason"] and not record.get("rule")


async def test_scopes_open_nothing_that_the_policy_denies(tmp_path: Path) -> None:
    async with bounded(tmp_path) as stand:
        reply = await stand.call_with(await stand.own("outsider", scope="read"))
        assert reply.status == 200 and reply.json["error"]["code"] == -31403


@pytest.mark.rule("RS-5")
@pytest.mark.key("identity.oauth.scope_includes")
async def test_a_broader_scope_stands_for_the_narrower_ones_at_any_depth(tmp_path: Path) -> None:
    includes = {"admin": ["write"], "write": ["read"]}
    async with bounded(tmp_path, {"u/*": ["read"]}, includes) as stand:
        for scope in ("read", "write", "admin"):
            assert (await stand.call_with(await stand.own("planner", scope=scope))).status == 200
    async with bounded(tmp_path, {"u/*": ["write"]}, includes) as stand:
        assert challenge_of(await stand.call_with(await stand.own("planner", scope="read")))["scope"] == "read write"
    async with bounded(tmp_path, {"u/*": ["read"]}) as stand:  # nothing is broader by its name
        challenge_of(await stand.call_with(await stand.own("planner", scope="write")))


async def test_scopes_that_include_each_other_end(tmp_path: Path) -> None:
    async with bounded(tmp_path, {"u/*": ["read"]}, {"read": ["write"], "write": ["read"]}) as stand:
        assert (await stand.call_with(await stand.own("planner", scope="write"))).status == 200
        challenge_of(await stand.call_with(await stand.own("planner", scope="admin")))


@pytest.mark.rule("RS-4", "RS-10")
async def test_lists_show_what_needs_more_scopes(tmp_path: Path) -> None:
    async with bounded(tmp_path) as stand:
        token = await stand.own("planner", scope="read")
        listed = await stand.ask(stand.request(modern("tools/list"), ("Authorization", f"Bearer {token}")))
        assert {"u__delete_all", "u__hello"} <= {tool["name"] for tool in listed.json["result"]["tools"]}


@pytest.mark.rule("RS-4")
async def test_a_legacy_session_gets_the_same_403_and_goes_on(tmp_path: Path) -> None:
    async with bounded(tmp_path) as stand:
        bearer = ("Authorization", f"Bearer {await stand.own('planner', scope='read')}")
        opened = await stand.ask(post(stand.port, dump(initialize(LEGACY)), [bearer]))
        session = ("Mcp-Session-Id", opened.headers["mcp-session-id"])

        async def call(tool: str, *more: tuple[str, str]) -> Reply:
            message = rpc("tools/call", {"name": tool, "arguments": {}})
            return await stand.ask(post(stand.port, dump(message), [session, *more]))

        reply = await call("u__delete_all", bearer)
        assert challenge_of(reply)["scope"] == "read write admin" and reply.json["error"]["code"] == CODE
        assert (await call("u__hello", bearer)).status == 200
        more = ("Authorization", f"Bearer {await stand.own('planner', scope='read write admin')}")
        assert (await call("u__delete_all", more)).status == 200  # the same session with the better token
        assert (await call("u__delete_all", bearer)).status == 403


async def test_in_a_batch_it_is_an_error_among_answers(tmp_path: Path) -> None:
    async with bounded(tmp_path) as stand:
        bearer = ("Authorization", f"Bearer {await stand.own('planner', scope='read')}")
        opened = await stand.ask(post(stand.port, dump(initialize("2025-03-26")), [bearer]))
        session = ("Mcp-Session-Id", opened.headers["mcp-session-id"])
        batch = [rpc("tools/call", {"name": name, "arguments": {}}, name) for name in ("u__hello", "u__delete_all")]
        reply = await stand.ask(post(stand.port, dump(batch), [session, bearer]))
        said = {each["id"]: each for each in reply.json}
        assert reply.status == 200 and "result" in said["u__hello"]
        assert said["u__delete_all"]["error"]["code"] == CODE


@pytest.mark.rule("RS-4")
async def test_each_endpoint_names_its_own_metadata(tmp_path: Path) -> None:
    async with bounded(tmp_path) as stand:
        for path, tool in (("/mcp/coder", "u__delete_all"), ("/servers/u/mcp", "delete_all")):
            token = await stand.own("planner", scope="read", resource=stand.base + path)
            reply = await stand.ask(stand.request(calling(tool, {}), ("Authorization", f"Bearer {token}"), path=path))
            assert challenge_of(reply)["resource_metadata"].endswith(f"/.well-known/oauth-protected-resource{path}")


async def test_over_stdio_it_is_a_plain_error(tmp_path: Path) -> None:
    async with bounded(tmp_path) as stand:
        token = await stand.own("planner", scope="read")
        who = await stand.house.recogniser.recognise(f"Bearer {token}".encode())
        reading, writing = os.pipe()
        out = io.BytesIO()
        out.close = lambda: None  # type: ignore[method-assign]
        os.write(writing, dump(calling("u__delete_all")) + b"\n")
        os.close(writing)
        with os.fdopen(reading, "rb") as stdin:
            await StdioFront(stand.house, who, "", (stdin, out)).serve()
        error = json.loads(out.getvalue())["error"]
        assert error["code"] == CODE and error["data"]["scope"] == "read write admin"


async def test_only_tokens_of_ours_have_scopes_to_look_at(tmp_path: Path) -> None:
    async with bounded(tmp_path) as stand:
        foreign = stand.idp.token(ec_key("first"), roles=["dev"], scope="nothing")
        assert (await stand.call_with(foreign, "u__delete_all")).status == 200


@pytest.mark.rule("RS-4", "DEL-3")
async def test_an_exchange_does_not_add_a_scope(tmp_path: Path) -> None:
    async with bounded(tmp_path, {"u/delete_*": ["admin"]}) as stand:
        token = await stand.through("planner", "coder")
        assert "admin" not in claims_of(token)["scope"].split()
        assert challenge_of(await stand.call_with(token, "u__delete_all"))["scope"] == "read write admin"


async def test_a_scope_claim_is_words_and_not_a_pattern(tmp_path: Path) -> None:
    """Scopes are compared whole: one that only begins like another, or is written in capitals, is another one."""
    rules = ScopeRules(_identity({"git/*": ["write"]}, scopes=["write", "writer", "WRITE", "*"]))
    for scope in ("writer", "WRITE", "*", "wri", "write,", ""):
        assert "write" in rules.lacking(scope, _tool("git", "push"))
    assert rules.lacking("writer write", _tool("git", "push")) == ()


async def test_the_server_part_of_a_glob_is_the_server(tmp_path: Path) -> None:
    rules = ScopeRules(_identity({"git/*": ["write"]}))
    assert rules.required(_tool("other", "git/push")) == ()
    assert rules.required(_tool("git", "prompt:review")) == ("write",)


@pytest.mark.rule("RS-4")
async def test_prompts_and_resources_need_scopes_too(tmp_path: Path) -> None:
    async with serve(ModernLibrary()) as server, bounded(tmp_path, {"lib/*": ["write"]}) as stand:
        await stand.reload(servers={**stand.settings["servers"], "lib": http(server, "modern")})
        await stand.house.warmed(10)
        planner = await stand.own("planner", scope="read")
        outsider = await stand.own("outsider", scope="read")

        async def ask(token: str, method: str, **params: str) -> Reply:
            more = [("Mcp-Name", params["uri"])] if "uri" in params else []
            return await stand.ask(stand.request(modern(method, params), ("Authorization", f"Bearer {token}"), *more))

        for method, params in (
            ("prompts/get", {"name": "lib__review"}),
            ("resources/read", {"uri": expose("lib", "file:///pub/a.txt")}),
        ):
            assert challenge_of(await ask(planner, method, **params))["scope"] == "read write"
            # Who may see nothing of a server is not told what it may have, nor that it is there.
            reply = await ask(outsider, method, **params)
            missing = await ask(
                outsider, method, **{name: value.replace("lib", "no") for name, value in params.items()}
            )
            assert "www-authenticate" not in reply.headers and reply.status == missing.status != 403
            assert reply.json["error"]["code"] == missing.json["error"]["code"]


async def test_what_was_permitted_before_is_measured_by_the_token_of_now(tmp_path: Path) -> None:
    """News about a subscription or task go to who came last, and a running call is judged anew."""
    async with bounded(tmp_path) as stand:
        house = stand.house
        for scope, allowed in (("read write admin", True), ("read", False)):
            token = await stand.own("planner", scope=scope)
            who = await house.recogniser.recognise(f"Bearer {token}".encode())
            tool = house.catalog.views[""].names["u__delete_all"]
            call = Call(1, who, tool, {}, Front(), 0)
            assert house.still_allowed(call) is allowed
            with contextlib.nullcontext() if allowed else pytest.raises(InsufficientScope):
                house.judged_anew(call)


async def test_a_server_that_comes_back_is_asked_by_the_token_of_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session subscribed with a better token than the one that it has now."""
    required = {"lib/resource:*": ["write"]}
    async with tellers.serve(tellers.Teller()) as server, bounded(tmp_path, required) as stand:
        await stand.reload(servers={**stand.settings["servers"], "lib": http(server, "modern")})
        await stand.house.warmed(10)
        tokens = [await stand.own("planner", scope=scope) for scope in ("read write", "read")]
        better, worse = (("Authorization", f"Bearer {token}") for token in tokens)
        opened = await stand.ask(post(stand.port, dump(initialize(LEGACY)), [better]))
        session = ("Mcp-Session-Id", opened.headers["mcp-session-id"])
        message = rpc("resources/subscribe", {"uri": expose("lib", "note:1")})
        assert (await stand.ask(post(stand.port, dump(message), [session, worse]))).status == 403
        assert "result" in (await stand.ask(post(stand.port, dump(message), [session, better]))).json
        asked: list[str] = []

        async def watch(permitted: Any, conduct: Any) -> None:
            asked.append(permitted.call.principal.claims["scope"])

        monkeypatch.setattr(stand.house.upstreams, "watch", watch)
        await stand.house.subscriptions.begin_again("lib")
        assert asked == ["read write"]
        await stand.ask(post(stand.port, dump(rpc("ping", {})), [session, worse]))
        await stand.house.subscriptions.begin_again("lib")
        assert asked == ["read write"]


@pytest.mark.rule("RS-3", "RS-4")
@pytest.mark.key("identity.oauth.required_scopes")
async def test_a_client_begins_without_the_scopes_of_single_tools(tmp_path: Path) -> None:
    async with bounded(tmp_path, {"*/*": ["read"], "u/delete_*": ["write"]}, {"admin": ["write"]}) as stand:
        document = (await stand.get("/.well-known/oauth-protected-resource/mcp")).json
        assert document["scopes_supported"] == ["read"]
        assert 'scope="read"' in (await stand.modern("tools/list")).headers["www-authenticate"]
        server = (await stand.get("/.well-known/oauth-authorization-server")).json
        assert {"read", "write", "admin"} <= set(server["scopes_supported"])


async def test_a_change_of_the_configuration_counts_at_the_next_call(tmp_path: Path) -> None:
    async with bounded(tmp_path, {}) as stand:
        token = await stand.own("planner", scope="read")
        assert (await stand.call_with(token)).status == 200
        identity = stand.settings["identity"]
        identity["oauth"]["required_scopes"] = {"u/hello": ["admin"]}
        await stand.reload(identity=identity)
        assert (await stand.call_with(token)).status == 403


@pytest.mark.parametrize(
    ("required", "includes", "says"),
    [
        ({"git": ["read"]}, {}, "no `/`"),
        ({"git/[a": ["read"]}, {}, "never closed"),
        ({"git/*": []}, {}, "names no scope"),
        ({"git/*": ["raed"]}, {}, "raed"),
        ({"git/*": ['re"ad']}, {}, "not a scope"),
        ({"git/*": ["read write"]}, {}, "not a scope"),
        ({}, {"amdin": ["read"]}, "amdin"),
        ({}, {"read": ["two words"]}, "not a scope"),
    ],
)
async def test_rules_that_cannot_be_meant_are_refused(required: Any, includes: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ScopeRules(_identity(required, includes))


def _identity(required: Any, includes: Any = None, scopes: Any = ("read", "write", "admin")) -> Identity:
    oauth = {
        "required_scopes": required,
        "scope_includes": includes or {},
        "scopes": dict.fromkeys(scopes, "what it is for"),
    }
    return msgspec.convert({"oauth": oauth}, Identity)


def _tool(server: str, name: str) -> Tool:
    return Tool(server, name, f"{server}__{name}", b"{}")


class Kept:
    """What the SDK keeps: tokens, and the client that it is."""

    def __init__(self, client: Any = None) -> None:
        self.tokens: Any = None
        self.client = client
        self.scopes: list[set[str]] = []

    async def get_tokens(self) -> Any:
        return self.tokens

    async def set_tokens(self, tokens: Any) -> None:
        self.tokens = tokens
        self.scopes.append(set(tokens.scope.split()))

    async def get_client_info(self) -> Any:
        return self.client

    async def set_client_info(self, info: Any) -> None:
        self.client = info


async def stepping_up(url: str, provider: Any) -> None:
    """With the official SDK: a list that the first token is enough for, and a call that it is not."""
    import httpx2
    from mcp import ClientSession
    from mcp.client.streamable_http import streamable_http_client

    async with (
        asyncio.timeout(30),
        httpx2.AsyncClient(auth=provider) as http,
        streamable_http_client(url, http_client=http) as streams,
        ClientSession(streams[0], streams[1]) as session,
    ):
        await session.initialize()
        assert "u__hello" in {tool.name for tool in (await session.list_tools()).tools}
        assert not (await session.call_tool("u__hello", {})).is_error


STEPS = {"*/*": ["read"], "u/hello": ["write"]}


@pytest.mark.slow
@pytest.mark.rule("RS-4")
async def test_an_agent_with_the_python_sdk_steps_up_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It meets the 403, asks for the union of scopes, and makes the call again."""
    from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider

    monkeypatch.setenv("IDP_SECRET", SECRET)
    async with booth(tmp_path, required_scopes=STEPS) as stand:
        planner = agent("planner", scopes=["read", "write"])
        policy = {"version": 1, "rules": [allow("*/*", to={"roles": ["planner"]})]}
        await stand.reload(identity={**stand.settings["identity"], "agents": {"planner": planner}}, policy=policy)
        kept, url = Kept(), f"{stand.base}/mcp"
        sdk = ClientCredentialsOAuthProvider(url, kept, "planner", secret_of("planner"), issuer=stand.base)
        await stepping_up(url, sdk)
    assert kept.scopes == [{"read"}, {"read", "write"}]


@pytest.mark.slow
@pytest.mark.rule("RS-4")
async def test_a_person_with_the_python_sdk_steps_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same through the authorization code, with a browser: the second consent is about the scope that is new."""
    from mcp.client.auth import OAuthClientProvider
    from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata

    monkeypatch.setenv("IDP_SECRET", SECRET)
    apps = {"sdk": {"redirect_uris": ["http://127.0.0.1:3030/callback"]}}
    async with booth(tmp_path, apps=apps, required_scopes=STEPS) as stand:
        browser = Browser()
        arrived: list[dict[str, str]] = []

        async def redirected(url: str) -> None:
            page = await browser.go(url, until="127.0.0.1:3030")
            if "127.0.0.1:3030" not in browser.at:
                form = dict(re.findall(r'name="([^"]*)" value="([^"]*)"', page.body.decode()))
                [action] = set(re.findall(r'action="([^"]*)"', page.body.decode()))
                answer = await browser.post(stand.base + action, {**form, "decision": "allow"})
                browser.at = answer.headers["location"]
            arrived.append(dict(parse_qsl(browser.at.partition("?")[2])))

        async def came() -> Any:
            back = arrived[-1]
            return AuthorizationCodeResult(code=back["code"], state=back["state"], iss=back["iss"])

        uris: Any = apps["sdk"]["redirect_uris"]
        metadata = OAuthClientMetadata(redirect_uris=uris, token_endpoint_auth_method="none")
        client = OAuthClientInformationFull(client_id="sdk", redirect_uris=uris, token_endpoint_auth_method="none")
        kept = Kept(client)
        await stepping_up(
            f"{stand.base}/mcp", OAuthClientProvider(f"{stand.base}/mcp", metadata, kept, redirected, came)
        )
    assert kept.scopes == [{"read"}, {"read", "write"}] and len(arrived) == 2
