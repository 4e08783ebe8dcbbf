"""A dual-era server on the official Python SDK 2.x: ``python -m tests.matrix.servers.py2 --notes FILE [--port N]``."""

from __future__ import annotations

import asyncio
import warnings
from pathlib import Path
from typing import Any

import mcp.types as t
from mcp.server import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ResourceUpdated, ToolsListChanged
from mcp.shared.message import ServerMessageMetadata
from mcp.types.version import MODERN_PROTOCOL_VERSIONS

from tests.matrix.vocabulary import (
    FORM,
    KEPT,
    LINGER_SECONDS,
    PROMPT,
    RESOURCE,
    SAMPLE,
    STEP_SECONDS,
    URI,
    Offer,
    completions,
    told,
)

Context = ServerRequestContext[Any, Any]
Outcome = t.CallToolResult | t.InputRequiredResult
LEVELS: list[t.LoggingLevel] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"]
QUESTIONS: dict[str, t.InputRequest] = {
    "ask_form": t.ElicitRequest.model_validate({"method": "elicitation/create", "params": FORM}),
    "ask_model": t.CreateMessageRequest.model_validate({"method": "sampling/createMessage", "params": SAMPLE}),
    "ask_roots": t.ListRootsRequest(),
}
ANSWERS: dict[str, type[t.ElicitResult] | type[t.CreateMessageResult] | type[t.ListRootsResult]] = {
    "ask_form": t.ElicitResult,
    "ask_model": t.CreateMessageResult,
    "ask_roots": t.ListRootsResult,
}


class Matrix:
    """The handlers; levels and subscriptions belong to legacy sessions, a bus tells modern listeners."""

    def __init__(self, notes: Path) -> None:
        self.offer = Offer(notes)
        self.bus = InMemorySubscriptionBus()
        self.levels: dict[int, t.LoggingLevel] = {}
        self.watching: dict[int, Any] = {}
        self.server: Server[Any] = Server(
            "matrix-py2",
            version="1.0.0",
            on_list_tools=self.list_tools,
            on_call_tool=self.call_tool,
            on_list_resources=self.list_resources,
            on_read_resource=self.read_resource,
            on_subscribe_resource=self.subscribe,
            on_unsubscribe_resource=self.unsubscribe,
            on_subscriptions_listen=ListenHandler(self.bus),
            on_list_prompts=self.list_prompts,
            on_completion=self.complete,
        )
        # Registered here and not in the constructor, which warns that logging is deprecated: that is known.
        self.server.add_request_handler("logging/setLevel", t.SetLevelRequestParams, self.set_level)

    async def list_tools(self, ctx: Context, params: t.PaginatedRequestParams | None) -> t.ListToolsResult:
        tools, after = self.offer.page(params.cursor if params else None)
        return t.ListToolsResult(tools=[t.Tool.model_validate(tool) for tool in tools], next_cursor=after)

    async def call_tool(self, ctx: Context, params: t.CallToolRequestParams) -> Outcome:
        if params.name in QUESTIONS:
            return await self.ask(ctx, params)
        run = getattr(self, params.name, None)
        if run is None:
            raise ValueError(f"no tool is called {params.name}")
        done: str | t.CallToolResult = await run(ctx, **(params.arguments or {}))
        return said(done) if isinstance(done, str) else done

    async def ask(self, ctx: Context, params: t.CallToolRequestParams) -> Outcome:
        """Modern: the question is the result. Legacy: it is a request on the stream of the call."""
        name = params.name
        if not is_modern(ctx):
            related = ServerMessageMetadata(related_request_id=ctx.request_id)
            return said(spoken(await ctx.session.send_request(QUESTIONS[name], ANSWERS[name], metadata=related)))
        answer = (params.input_responses or {}).get(name)
        if answer is None:
            return t.InputRequiredResult(input_requests={name: QUESTIONS[name]})
        return said(spoken(answer))

    async def echo(self, ctx: Context, text: str) -> t.CallToolResult:
        content: list[t.ContentBlock] = [t.TextContent(type="text", text=text)]
        return t.CallToolResult(content=content, structured_content={"text": text}, _meta={KEPT: text})

    async def count(self, ctx: Context) -> str:
        for done in (1, 2, 3):
            await ctx.session.report_progress(done, 3)
            await asyncio.sleep(STEP_SECONDS)
        return "counted"

    async def linger(self, ctx: Context, marker: str) -> str:
        self.offer.note(f"started {marker}")
        try:
            await asyncio.sleep(LINGER_SECONDS)
        except asyncio.CancelledError:
            self.offer.note(f"cancelled {marker}")
            raise
        return "nobody cancelled"

    async def noted(self, ctx: Context, line: str) -> str:
        return str(self.offer.noted(line))

    async def grow(self, ctx: Context, name: str) -> str:
        self.offer.grow(name)
        await self.bus.publish(ToolsListChanged())
        if not is_modern(ctx):
            await ctx.session.send_tool_list_changed()
        return "grown"

    async def touch(self, ctx: Context) -> str:
        await self.bus.publish(ResourceUpdated(uri=URI))
        for session in list(self.watching.values()):
            await session.send_resource_updated(URI)
        return "touched"

    async def chat(self, ctx: Context) -> str:
        lowest = LEVELS.index(self.levels.get(connection(ctx), "debug"))
        says: list[tuple[t.LoggingLevel, str]] = [("debug", "quiet"), ("warning", "loud")]
        for level, text in says:
            if LEVELS.index(level) >= lowest:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # logging is deprecated, and still works
                    sending = ctx.session.send_log_message(level, text, related_request_id=ctx.request_id)
                await sending
        return "chatted"

    async def slow(self, ctx: Context, seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "done"

    async def list_resources(self, ctx: Context, params: t.PaginatedRequestParams | None) -> t.ListResourcesResult:
        return t.ListResourcesResult(resources=[t.Resource.model_validate(RESOURCE)])

    async def read_resource(self, ctx: Context, params: t.ReadResourceRequestParams) -> t.ReadResourceResult:
        content = t.TextResourceContents(uri=params.uri, mime_type="text/plain", text="watched")
        return t.ReadResourceResult(contents=[content])

    async def subscribe(self, ctx: Context, params: t.SubscribeRequestParams) -> t.EmptyResult:
        self.watching[connection(ctx)] = ctx.session
        return t.EmptyResult()

    async def unsubscribe(self, ctx: Context, params: t.UnsubscribeRequestParams) -> t.EmptyResult:
        self.watching.pop(connection(ctx), None)
        return t.EmptyResult()

    async def list_prompts(self, ctx: Context, params: t.PaginatedRequestParams | None) -> t.ListPromptsResult:
        return t.ListPromptsResult(prompts=[t.Prompt.model_validate(PROMPT)])

    async def complete(self, ctx: Context, params: t.CompleteRequestParams) -> t.CompleteResult:
        values = completions(params.argument.value)
        return t.CompleteResult(completion=t.Completion(values=values, total=len(values)))

    async def set_level(self, ctx: Context, params: t.SetLevelRequestParams) -> t.EmptyResult:
        self.levels[connection(ctx)] = params.level
        return t.EmptyResult()


def is_modern(ctx: Context) -> bool:
    return ctx.protocol_version in MODERN_PROTOCOL_VERSIONS


def connection(ctx: Context) -> int:
    """What stays the same for a legacy session; the session object itself is made for each request."""
    return id(ctx.session._connection)


def spoken(answer: object) -> str:
    if isinstance(answer, t.ElicitResult):
        return f"{answer.action} {(answer.content or {}).get('name')}"
    if isinstance(answer, t.CreateMessageResult) and isinstance(answer.content, t.TextContent):
        return answer.content.text
    if isinstance(answer, t.ListRootsResult):
        return " ".join(str(root.uri) for root in answer.roots)
    return f"an answer of another kind: {answer!r}"


def said(text: str) -> t.CallToolResult:
    return t.CallToolResult(content=[t.TextContent(type="text", text=text)])


async def serve_stdio(server: Server[Any]) -> None:
    from mcp.server.stdio import stdio_server

    async with stdio_server() as (reading, writing):
        await server.run(reading, writing, server.create_initialization_options())


async def serve_http(server: Server[Any], port: int) -> None:
    from tests.matrix.servers.listening import serve

    await serve(server.streamable_http_app(), port)


if __name__ == "__main__":
    asked = told()
    matrix = Matrix(asked.notes)
    asyncio.run(serve_stdio(matrix.server) if asked.port is None else serve_http(matrix.server, asked.port))
