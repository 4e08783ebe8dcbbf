"""FastMCP's client: ``python -m tests.matrix.clients.fastmcp4 [--mode modern] --features … (--url URL | -- COMMAND…)``.

Where FastMCP has no words of its own (subscriptions), its documented way down is taken: ``client.session``.
"""

# mypy: ignore-errors
# FastMCP is not installed in our own environment.

from __future__ import annotations

import asyncio
import warnings
from contextlib import asynccontextmanager
from importlib.metadata import version

import mcp_types as t
from fastmcp import Client
from fastmcp.client.elicitation import ElicitResult
from fastmcp.client.transports import StdioTransport
from mcp.client.subscriptions import listen

from tests.matrix.clients.features import MODEL_SAYS, ROOT, asked, form_answer, tell

LOG_LEVEL = "io.modelcontextprotocol/logLevel"


class Session:
    def __init__(self, asked) -> None:
        self.prefix = asked.prefix
        self.modern = asked.mode == "modern"
        self.meta = {}
        self.heard = []
        self.library = f"fastmcp {version('fastmcp')}"
        self.version = ""
        transport = asked.url or StdioTransport(
            asked.command[0], asked.command[1:], env=asked.environment, keep_alive=False
        )
        self.inner = Client(
            transport,
            mode="auto" if self.modern else "legacy",
            elicitation_handler=fill_in,
            sampling_handler=think,
            roots=[ROOT],
            message_handler=self.hear,
        )

    async def hear(self, message) -> None:
        if isinstance(message, Exception):
            return
        plain = message.model_dump(by_alias=True, mode="json", exclude_none=True)
        self.heard.append((plain["method"], plain.get("params", {})))

    async def call(self, tool, arguments, on_progress=None):
        async def report(done, total, message) -> None:
            on_progress(done, total)

        result = await self.inner.call_tool_mcp(
            f"{self.prefix}{tool}",
            arguments,
            progress_handler=report if on_progress else None,
            meta=self.meta or None,
        )
        return result.model_dump(by_alias=True, mode="json")

    async def abandon(self, tool, arguments, begun) -> None:
        call = asyncio.create_task(self.inner.call_tool_mcp(f"{self.prefix}{tool}", arguments))
        await begun()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)

    async def tools(self):
        return [tool.name for tool in await self.inner.list_tools()]

    async def resources(self):
        return [str(resource.uri) for resource in await self.inner.list_resources()]

    async def complete(self, prompt, argument, value):
        ref = t.PromptReference(type="ref/prompt", name=prompt)
        return (await self.inner.complete(ref, {"name": argument, "value": value})).values

    async def log_level(self, level) -> None:
        if self.modern:
            self.meta = {LOG_LEVEL: level}
        else:
            await self.inner.set_logging_level(level)

    @asynccontextmanager
    async def listening(self, uri):
        if self.modern:
            wanted = [uri] if uri else []
            async with listen(self.inner.session, tools_list_changed=True, resource_subscriptions=wanted):
                yield
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # deprecated, and exactly that is why it is tested
                if uri:
                    await self.inner.session.subscribe_resource(uri)
                yield
                if uri:
                    await self.inner.session.unsubscribe_resource(uri)


async def fill_in(message, response_type, params, context):
    answer = form_answer(message)
    return ElicitResult(action=answer["action"], content=answer.get("content"))


async def think(messages, params, context) -> str:
    return MODEL_SAYS


@asynccontextmanager
async def connect(asked):
    session = Session(asked)
    async with session.inner:
        session.version = session.inner.protocol_version
        yield session


if __name__ == "__main__":
    asyncio.run(tell(asked(), connect))
