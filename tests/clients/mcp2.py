"""The official client, 2.x: ``python -m tests.clients.mcp2 [--mode legacy] (--url URL | -- COMMAND…)``."""

from __future__ import annotations

import asyncio
from importlib.metadata import version

from mcp import Client, StdioServerParameters
from mcp.shared.exceptions import MCPError
from mcp.types import TextContent

from tests.clients.report import SECONDS, Asked, Report, asked


def client(ask: Asked) -> Client:
    legacy = ask.mode == "legacy"
    if ask.url:
        return Client(ask.url, mode="legacy") if legacy else Client(ask.url)
    server = StdioServerParameters(command=ask.command[0], args=ask.command[1:], env=ask.environment)
    return Client(server, mode="legacy") if legacy else Client(server)


async def look(ask: Asked) -> Report:
    report = Report(f"mcp {version('mcp')}")
    async with client(ask) as session:
        report.version = session.protocol_version
        report.server = session.server_info.name if session.server_info else ""
        report.tools = await tools(session)
        await call(session, ask.prefix, report)
        await go_wrong(session, ask.prefix, report)
        if ask.mode == "legacy":
            await session.send_ping()
            report.pinged = True
    return report


async def tools(session: Client) -> list[str]:
    names: list[str] = []
    cursor: str | None = None
    while True:
        page = await session.list_tools(cursor=cursor)
        names += [tool.name for tool in page.tools]
        cursor = page.next_cursor
        if cursor is None:
            return names


async def call(session: Client, prefix: str, report: Report) -> None:
    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        report.progress.append((progress, total))

    result = await session.call_tool(f"{prefix}echo", {"text": "häuschen"})
    report.structured = result.structured_content
    report.echoed = "".join(block.text for block in result.content if isinstance(block, TextContent))
    await session.call_tool(f"{prefix}test_tool_with_progress", {}, progress_callback=on_progress)


async def go_wrong(session: Client, prefix: str, report: Report) -> None:
    result = await session.call_tool(f"{prefix}test_error_handling", {})
    if result.is_error:
        report.failed = "".join(block.text for block in result.content if isinstance(block, TextContent))
    try:
        await session.call_tool(f"{prefix}no_such_tool", {})
    except MCPError as error:
        report.unknown = error.error.code


if __name__ == "__main__":
    asyncio.run(asyncio.wait_for(look(asked()), SECONDS)).tell()
