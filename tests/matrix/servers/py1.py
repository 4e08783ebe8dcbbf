"""A server on the official Python SDK 1.x: ``python -m tests.matrix.servers.py1 --notes FILE [--port N]``."""

# mypy: ignore-errors
# Our own environment holds mcp 2.x, whose types are not those of this script.

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary, WeakSet

import mcp.types as t
from mcp.server.lowlevel import Server

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

LEVELS = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"]


class Announcing(Server):
    """The low-level server cannot say by itself that it announces changes and takes subscriptions."""

    def get_capabilities(self, notification_options, experimental_capabilities):
        able = super().get_capabilities(notification_options, experimental_capabilities)
        able.tools.listChanged = True
        able.resources.subscribe = True
        return able


class Matrix:
    """The handlers; levels and subscriptions belong to sessions."""

    def __init__(self, notes) -> None:
        self.offer = Offer(notes)
        self.levels = WeakKeyDictionary()
        self.watching = WeakSet()
        self.server = Announcing("matrix-py1", version="1.0.0")
        self.server.experimental.enable_tasks()
        self.server.request_handlers |= {
            t.ListToolsRequest: self.list_tools,
            t.CallToolRequest: self.call_tool,
            t.ListResourcesRequest: self.list_resources,
            t.ReadResourceRequest: self.read_resource,
            t.SubscribeRequest: self.subscribe,
            t.UnsubscribeRequest: self.unsubscribe,
            t.ListPromptsRequest: self.list_prompts,
            t.CompleteRequest: self.complete,
            t.SetLevelRequest: self.set_level,
        }

    @property
    def context(self):
        return self.server.request_context

    @property
    def request(self) -> str:
        return str(self.context.request_id)

    async def list_tools(self, asked):
        tools, after = self.offer.page(asked.params.cursor if asked.params else None)
        return t.ServerResult(
            t.ListToolsResult(tools=[t.Tool.model_validate(tool) for tool in tools], nextCursor=after)
        )

    async def call_tool(self, asked):
        run = getattr(self, asked.params.name, None)
        if run is None:
            raise ValueError(f"no tool is called {asked.params.name}")
        done = await run(**(asked.params.arguments or {}))
        return t.ServerResult(said(done) if isinstance(done, str) else done)

    async def echo(self, text: str):
        return t.CallToolResult(content=words(text), structuredContent={"text": text}, _meta={KEPT: text})

    async def count(self) -> str:
        token = self.context.meta.progressToken if self.context.meta else None
        for done in (1, 2, 3) if token is not None else ():
            await self.context.session.send_progress_notification(token, done, 3, related_request_id=self.request)
            await asyncio.sleep(STEP_SECONDS)
        return "counted"

    async def linger(self, marker: str) -> str:
        self.offer.note(f"started {marker}")
        try:
            await asyncio.sleep(LINGER_SECONDS)
        except asyncio.CancelledError:
            self.offer.note(f"cancelled {marker}")
            raise
        return "nobody cancelled"

    async def noted(self, line: str) -> str:
        return str(self.offer.noted(line))

    async def ask_form(self) -> str:
        answer = await self.context.session.elicit(FORM["message"], FORM["requestedSchema"], self.context.request_id)
        return f"{answer.action} {(answer.content or {}).get('name')}"

    async def ask_model(self) -> str:
        messages = [t.SamplingMessage.model_validate(message) for message in SAMPLE["messages"]]
        answer = await self.context.session.create_message(
            messages, max_tokens=SAMPLE["maxTokens"], related_request_id=self.context.request_id
        )
        return answer.content.text

    async def ask_roots(self) -> str:
        return " ".join(str(root.uri) for root in (await self.context.session.list_roots()).roots)

    async def grow(self, name: str) -> str:
        self.offer.grow(name)
        await self.context.session.send_tool_list_changed()
        return "grown"

    async def touch(self) -> str:
        for session in list(self.watching):
            await session.send_resource_updated(URI)
        return "touched"

    async def chat(self) -> str:
        lowest = LEVELS.index(self.levels.get(self.context.session, "debug"))
        for level, text in (("debug", "quiet"), ("warning", "loud")):
            if LEVELS.index(level) >= lowest:
                await self.context.session.send_log_message(level, text, related_request_id=self.request)
        return "chatted"

    async def slow(self, seconds: float):
        async def work(task):
            await asyncio.sleep(seconds)
            return said("done")

        if self.context.experimental.is_task:
            return await self.context.experimental.run_task(work)
        return await work(None)

    async def list_resources(self, asked):
        return t.ServerResult(t.ListResourcesResult(resources=[t.Resource.model_validate(RESOURCE)]))

    async def read_resource(self, asked):
        content = t.TextResourceContents(uri=asked.params.uri, mimeType="text/plain", text="watched")
        return t.ServerResult(t.ReadResourceResult(contents=[content]))

    async def subscribe(self, asked):
        self.watching.add(self.context.session)
        return t.ServerResult(t.EmptyResult())

    async def unsubscribe(self, asked):
        self.watching.discard(self.context.session)
        return t.ServerResult(t.EmptyResult())

    async def list_prompts(self, asked):
        return t.ServerResult(t.ListPromptsResult(prompts=[t.Prompt.model_validate(PROMPT)]))

    async def complete(self, asked):
        values = completions(asked.params.argument.value)
        return t.ServerResult(t.CompleteResult(completion=t.Completion(values=values, total=len(values))))

    async def set_level(self, asked):
        self.levels[self.context.session] = asked.params.level
        return t.ServerResult(t.EmptyResult())


def words(text: str):
    return [t.TextContent(type="text", text=text)]


def said(text: str):
    return t.CallToolResult(content=words(text))


async def serve_stdio(server) -> None:
    from mcp.server.stdio import stdio_server

    async with stdio_server() as (reading, writing):
        await server.run(reading, writing, server.create_initialization_options())


async def serve_http(server, port: int) -> None:
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
    from starlette.applications import Starlette
    from starlette.routing import Route

    from tests.matrix.servers.listening import serve

    manager = StreamableHTTPSessionManager(server)

    class Endpoint:
        async def __call__(self, scope, receive, send) -> None:
            await manager.handle_request(scope, receive, send)

    @asynccontextmanager
    async def lifespan(app):
        async with manager.run():
            yield

    await serve(Starlette(routes=[Route("/mcp", Endpoint())], lifespan=lifespan), port)


if __name__ == "__main__":
    asked = told()
    matrix = Matrix(asked.notes)
    asyncio.run(serve_stdio(matrix.server) if asked.port is None else serve_http(matrix.server, asked.port))
