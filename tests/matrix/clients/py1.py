"""The official Python client, 1.x: ``python -m tests.matrix.clients.py1 --features … (--url URL | -- COMMAND…)``."""

# mypy: ignore-errors
# Our own environment holds mcp 2.x, whose types are not those of this script.

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from importlib.metadata import version

import mcp.types as t
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

from tests.matrix.clients.features import MODEL_SAYS, ROOT, asked, form_answer, tell


class Session:
    def __init__(self, asked, inner) -> None:
        self.prefix = asked.prefix
        self.inner = inner
        self.heard = []
        self.library = f"mcp {version('mcp')}"
        self.version = ""

    async def hear(self, message) -> None:
        if isinstance(message, t.ServerNotification):
            plain = message.root.model_dump(by_alias=True, mode="json", exclude_none=True)
            self.heard.append((plain["method"], plain.get("params", {})))

    async def call(self, tool, arguments, on_progress=None):
        async def report(done, total, message) -> None:
            on_progress(done, total)

        result = await self.inner.call_tool(
            f"{self.prefix}{tool}", arguments, progress_callback=report if on_progress else None
        )
        return result.model_dump(by_alias=True, mode="json")

    async def abandon(self, tool, arguments, begun) -> None:
        """1.x leaves it to the caller to tell the server of a cancellation."""
        number = self.inner._request_id
        call = asyncio.create_task(self.inner.call_tool(f"{self.prefix}{tool}", arguments))
        await asyncio.sleep(0)  # the call takes its number before anything that `begun` asks
        await begun()
        notice = t.CancelledNotification(params=t.CancelledNotificationParams(requestId=number, reason="enough"))
        await self.inner.send_notification(t.ClientNotification(notice))
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)

    async def tools(self):
        names = []
        page = await self.inner.list_tools()
        names += [tool.name for tool in page.tools]
        while page.nextCursor is not None:
            page = await self.inner.list_tools(params=t.PaginatedRequestParams(cursor=page.nextCursor))
            names += [tool.name for tool in page.tools]
        return names

    async def resources(self):
        return [str(resource.uri) for resource in (await self.inner.list_resources()).resources]

    async def complete(self, prompt, argument, value):
        ref = t.PromptReference(type="ref/prompt", name=prompt)
        return (await self.inner.complete(ref, {"name": argument, "value": value})).completion.values

    async def log_level(self, level) -> None:
        await self.inner.set_logging_level(level)

    @asynccontextmanager
    async def listening(self, uri):
        if uri:
            await self.inner.subscribe_resource(uri)
        yield
        if uri:
            await self.inner.unsubscribe_resource(uri)


async def fill_in(context, params):
    return t.ElicitResult.model_validate(form_answer(params.message))


async def think(context, params):
    return t.CreateMessageResult(role="assistant", model="none", content=t.TextContent(type="text", text=MODEL_SAYS))


async def roots(context):
    return t.ListRootsResult(roots=[t.Root(uri=ROOT)])


@asynccontextmanager
async def streams(asked):
    if asked.url:
        async with streamable_http_client(asked.url) as (reading, writing, _):
            yield reading, writing
    else:
        server = StdioServerParameters(command=asked.command[0], args=asked.command[1:], env=asked.environment)
        async with stdio_client(server) as both:
            yield both


@asynccontextmanager
async def connect(asked):
    session = Session(asked, None)
    async with (
        streams(asked) as (reading, writing),
        ClientSession(
            reading,
            writing,
            elicitation_callback=fill_in,
            sampling_callback=think,
            list_roots_callback=roots,
            message_handler=session.hear,
        ) as session.inner,
    ):
        session.version = str((await session.inner.initialize()).protocolVersion)
        yield session


if __name__ == "__main__":
    asyncio.run(tell(asked(), connect))
