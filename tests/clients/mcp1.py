"""The official client, 1.x, in its own environment: ``python -m tests.clients.mcp1 (--url URL | -- COMMAND…)``."""

# mypy: ignore-errors
# Our own environment holds mcp 2.x, whose types are not those of this script.

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from importlib.metadata import version

from mcp import ClientSession, McpError, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

from tests.clients.report import SECONDS, Asked, Report, asked


@asynccontextmanager
async def connection(ask: Asked):
    if ask.url:
        async with streamable_http_client(ask.url) as (reading, writing, _), ClientSession(reading, writing) as session:
            yield session
    else:
        server = StdioServerParameters(command=ask.command[0], args=ask.command[1:], env=ask.environment)
        async with stdio_client(server) as (reading, writing), ClientSession(reading, writing) as session:
            yield session


async def look(ask: Asked) -> Report:
    report = Report(f"mcp {version('mcp')}")
    async with connection(ask) as session:
        hello = await session.initialize()
        report.version = str(hello.protocolVersion)
        report.server = hello.serverInfo.name
        report.tools = await tools(session)
        await call(session, ask.prefix, report)
        await go_wrong(session, ask.prefix, report)
        await session.send_ping()
        report.pinged = True
    return report


async def tools(session) -> list[str]:
    names: list[str] = []
    page = await session.list_tools()
    names += [tool.name for tool in page.tools]
    while page.nextCursor is not None:
        page = await session.list_tools(page.nextCursor)
        names += [tool.name for tool in page.tools]
    return names


async def call(session, prefix: str, report: Report) -> None:
    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        report.progress.append((progress, total))

    result = await session.call_tool(f"{prefix}echo", {"text": "häuschen"})
    report.structured = result.structuredContent
    report.echoed = "".join(block.text for block in result.content if block.type == "text")
    await session.call_tool(f"{prefix}test_tool_with_progress", {}, progress_callback=on_progress)


async def go_wrong(session, prefix: str, report: Report) -> None:
    result = await session.call_tool(f"{prefix}test_error_handling", {})
    if result.isError:
        report.failed = "".join(block.text for block in result.content if block.type == "text")
    try:
        await session.call_tool(f"{prefix}no_such_tool", {})
    except McpError as error:
        report.unknown = error.error.code


if __name__ == "__main__":
    asyncio.run(asyncio.wait_for(look(asked()), SECONDS)).tell()
