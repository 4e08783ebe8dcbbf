"""The official Python client, 2.x: ``python -m tests.matrix.clients.py2 [--mode modern] --features … --url URL``."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import mcp.types as t
from mcp import Client, StdioServerParameters
from mcp.client.context import ClientRequestContext

from tests.matrix.clients.features import MODEL_SAYS, ROOT, Asked, Heard, OnProgress, Raw, asked, form_answer, tell

LOG_LEVEL = "io.modelcontextprotocol/logLevel"


class Session:
    def __init__(self, asked: Asked) -> None:
        self.prefix = asked.prefix
        self.modern = asked.mode == "modern"
        self.meta: dict[str, Any] = {}
        self.heard: Heard = []
        self.library = f"mcp {version('mcp')}"
        self.version = ""
        server = (
            StdioServerParameters(command=asked.command[0], args=asked.command[1:], env=asked.environment)
            if asked.command
            else None
        )
        self.inner = Client(
            asked.url or server,  # type: ignore[arg-type]
            mode="auto" if self.modern else "legacy",
            elicitation_callback=fill_in,
            sampling_callback=think,
            list_roots_callback=roots,
            message_handler=self.hear,
        )

    async def hear(self, message: Any) -> None:
        if isinstance(message, Exception):
            return
        plain = message.model_dump(by_alias=True, mode="json", exclude_none=True)
        self.heard.append((plain["method"], plain.get("params", {})))

    async def call(self, tool: str, arguments: Raw, on_progress: OnProgress | None = None) -> Raw:
        async def report(progress: float, total: float | None, message: str | None) -> None:
            if on_progress:
                on_progress(progress, total)

        result = await self.inner.call_tool(
            f"{self.prefix}{tool}",
            arguments,
            progress_callback=report if on_progress else None,
            meta=self.meta or None,  # type: ignore[arg-type]
        )
        return result.model_dump(by_alias=True, mode="json")

    async def abandon(self, tool: str, arguments: Raw, begun: Callable[[], Awaitable[None]]) -> None:
        call = asyncio.create_task(self.inner.call_tool(f"{self.prefix}{tool}", arguments))
        await begun()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)

    async def tools(self) -> list[str]:
        names: list[str] = []
        cursor: str | None = None
        while True:
            page = await self.inner.list_tools(cursor=cursor)
            names += [tool.name for tool in page.tools]
            cursor = page.next_cursor
            if cursor is None:
                return names

    async def resources(self) -> list[str]:
        return [str(resource.uri) for resource in (await self.inner.list_resources()).resources]

    async def complete(self, prompt: str, argument: str, value: str) -> list[str]:
        ref = t.PromptReference(type="ref/prompt", name=prompt)
        return (await self.inner.complete(ref, {"name": argument, "value": value})).completion.values

    async def log_level(self, level: str) -> None:
        if self.modern:
            self.meta = {LOG_LEVEL: level}
        else:
            await self.inner.session.send_request(
                t.SetLevelRequest.model_validate({"method": "logging/setLevel", "params": {"level": level}}),
                t.EmptyResult,
            )

    @asynccontextmanager
    async def listening(self, uri: str | None) -> AsyncIterator[None]:
        if self.modern:
            wanted = [uri] if uri else []
            async with self.inner.listen(tools_list_changed=True, resource_subscriptions=wanted):
                yield
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # deprecated, and exactly that is why it is tested
                if uri:
                    await self.inner.session.subscribe_resource(uri)
                yield
                if uri:
                    await self.inner.session.unsubscribe_resource(uri)


async def fill_in(context: ClientRequestContext, params: t.ElicitRequestParams) -> t.ElicitResult:
    return t.ElicitResult.model_validate(form_answer(params.message))


async def think(context: ClientRequestContext, params: t.CreateMessageRequestParams) -> t.CreateMessageResult:
    said = t.TextContent(type="text", text=MODEL_SAYS)
    return t.CreateMessageResult(role="assistant", model="none", content=said)


async def roots(context: ClientRequestContext) -> t.ListRootsResult:
    return t.ListRootsResult.model_validate({"roots": [{"uri": ROOT}]})


@asynccontextmanager
async def connect(asked: Asked) -> AsyncIterator[Session]:
    session = Session(asked)
    async with session.inner:
        session.version = session.inner.protocol_version
        yield session


if __name__ == "__main__":
    asyncio.run(tell(asked(), connect))
