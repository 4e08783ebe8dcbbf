"""What the client does in each scenario. The suite's server watches how it does it; here is only what."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from typing import Any, Literal, NamedTuple

from mcp import Client
from mcp.client.context import ClientRequestContext
from mcp.shared.exceptions import MCPError
from mcp.types import (
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequestFormParams,
    ElicitRequestParams,
    ElicitResult,
    ListRootsResult,
    Request,
    RequestParams,
    Result,
    TextContent,
)
from mcp.types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError


class Told(NamedTuple):
    """What the suite tells the client: the revision that it speaks, and values that a scenario brings."""

    revision: str
    context: dict[str, Any]

    @property
    def mode(self) -> Literal["auto", "legacy"]:
        return "auto" if self.revision in MODERN_PROTOCOL_VERSIONS else "legacy"


Play = Callable[[str, Told], Coroutine[Any, Any, None]]
SCENARIOS: dict[str, Play] = {}


def scenario(*names: str) -> Callable[[Play], Play]:
    def enter(play: Play) -> Play:
        SCENARIOS.update(dict.fromkeys(names, play))
        return play

    return enter


async def sample(context: ClientRequestContext, params: CreateMessageRequestParams) -> CreateMessageResult:
    return CreateMessageResult(role="assistant", content=TextContent(type="text", text="sampled"), model="none")


async def roots(context: ClientRequestContext) -> ListRootsResult:
    return ListRootsResult(roots=[])


async def accept(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
    """Agree to everything, with the defaults of the form (SEP-1034) and yes where there is none to a yes or no."""
    fields = params.requested_schema.get("properties", {}) if isinstance(params, ElicitRequestFormParams) else {}
    filled = {name: field["default"] for name, field in fields.items() if "default" in field}
    agreed = {name: True for name, field in fields.items() if field.get("type") == "boolean"}
    return ElicitResult(action="accept", content={**agreed, **filled})


async def attempt(client: Client, name: str, arguments: dict[str, Any] | None = None) -> None:
    """Call a tool, whatever comes of it: the scenario is about how the suite's server is asked."""
    try:
        await client.call_tool(name, arguments or {})
    except (MCPError, ValidationError) as refused:
        print(f"{name}: {refused}", file=sys.stderr)


@scenario("initialize", "json-schema-ref-no-deref")
async def list_tools(url: str, told: Told) -> None:
    async with Client(url, mode=told.mode) as client:
        await client.list_tools()


@scenario("tools_call")
async def add_numbers(url: str, told: Told) -> None:
    async with Client(url, mode=told.mode) as client:
        await client.list_tools()
        await client.call_tool("add_numbers", {"a": 5, "b": 3})


@scenario("request-metadata")
async def everything_declared(url: str, told: Told) -> None:
    async with Client(
        url, mode=told.mode, sampling_callback=sample, list_roots_callback=roots, elicitation_callback=accept
    ) as client:
        await client.list_tools()
        await attempt(client, "add_numbers", {"a": 5, "b": 3})


@scenario("http-standard-headers")
async def every_method(url: str, told: Told) -> None:
    """Every method whose headers the suite looks at; it skips what it does not see."""
    async with Client(url, mode=told.mode) as client:
        for tool in (await client.list_tools()).tools:
            await client.call_tool(tool.name)
        for resource in (await client.list_resources()).resources:
            await client.read_resource(resource.uri)
        for prompt in (await client.list_prompts()).prompts:
            await client.get_prompt(prompt.name)


@scenario("http-custom-headers")
async def given_calls(url: str, told: Told) -> None:
    async with Client(url, mode=told.mode) as client:
        offered = {tool.name for tool in (await client.list_tools()).tools}
        for call in told.context["toolCalls"]:
            if call["name"] in offered:
                await attempt(client, call["name"], call.get("arguments"))


SAMPLES = {"string": "x", "integer": 0, "number": 0, "boolean": False, "object": {}, "array": [], "null": None}


def fitting(schema: dict[str, Any]) -> dict[str, Any]:
    """The required arguments of a tool, each with some value of its type.

    >>> fitting({"properties": {"n": {"type": "integer"}, "s": {"type": "string"}}, "required": ["n"]})
    {'n': 0}
    """
    fields = schema.get("properties", {})
    return {name: SAMPLES.get(fields.get(name, {}).get("type"), "x") for name in schema.get("required", [])}


@scenario("http-invalid-tool-headers")
async def whatever_is_listed(url: str, told: Told) -> None:
    """Call every tool that is shown; those with broken ``x-mcp-header`` must not be."""
    async with Client(url, mode=told.mode) as client:
        for tool in (await client.list_tools()).tools:
            await attempt(client, tool.name, fitting(tool.input_schema))


@scenario("sse-retry")
async def reconnect(url: str, told: Told) -> None:
    async with Client(url, mode=told.mode) as client:
        await client.list_tools()
        await client.call_tool("test_reconnection")


@scenario("elicitation-sep1034-client-defaults")
async def defaults(url: str, told: Told) -> None:
    async with Client(url, mode=told.mode, elicitation_callback=accept) as client:
        await client.list_tools()
        await client.call_tool("test_client_elicitation_defaults")


@scenario("sep-2322-client-request-state")
async def rounds(url: str, told: Told) -> None:
    async with Client(url, mode=told.mode, elicitation_callback=accept) as client:
        await client.list_tools()
        for name in ("echo_state", "unrelated", "no_state"):
            await client.call_tool(f"test_mrtr_{name}")
        # The SDK takes no answer without a resultType. Here it only must not call again.
        await attempt(client, "test_mrtr_no_result_type")


class ListSkills(Request[RequestParams, Literal["skills/list"]]):
    method: Literal["skills/list"] = "skills/list"
    params: RequestParams = RequestParams()


@scenario("sep-2640-client-no-prefetch")
async def list_skills(url: str, told: Told) -> None:
    """List the skills and read none of their files; who sits in between must not read them either."""
    async with Client(url, mode=told.mode) as client:
        await client.session.send_request(ListSkills(), Result)


@scenario("json-schema-2020-12-preservation")
async def echo_schema(url: str, told: Told) -> None:
    """Send back the schema that was listed; the suite compares it with what it gave."""
    async with Client(url, mode=told.mode) as client:
        listed = {tool.name: tool for tool in (await client.list_tools()).tools}
        await client.call_tool("json_schema_echo", {"schema": listed["json_schema_2020_12_tool"].input_schema})
