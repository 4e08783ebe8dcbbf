"""FastMCP's client, in an environment of its own: ``python -m tests.clients.fastmcp4 (--url URL | -- COMMAND…)``."""

# mypy: ignore-errors
# FastMCP is not installed in our own environment.

from __future__ import annotations

import asyncio
from importlib.metadata import version

from fastmcp import Client
from fastmcp.client.transports import StdioTransport
from mcp.shared.exceptions import MCPError

from tests.clients.report import SECONDS, Asked, Report, asked


def client(ask: Asked) -> Client:
    if ask.url:
        return Client(ask.url, mode=ask.mode)
    transport = StdioTransport(ask.command[0], ask.command[1:], env=ask.environment, keep_alive=False)
    return Client(transport, mode=ask.mode)


async def look(ask: Asked) -> Report:
    report = Report(f"fastmcp {version('fastmcp')}")
    async with client(ask) as session:
        report.version = session.protocol_version
        report.server = session.server_info.name if session.server_info else ""
        report.tools = [tool.name for tool in await session.list_tools()]
        await call(session, ask.prefix, report)
        await go_wrong(session, ask.prefix, report)
        if ask.mode == "legacy":
            report.pinged = await session.ping()
    return report


async def call(session: Client, prefix: str, report: Report) -> None:
    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        report.progress.append((progress, total))

    result = await session.call_tool(f"{prefix}echo", {"text": "häuschen"})
    report.structured = result.structured_content
    report.echoed = "".join(block.text for block in result.content if block.type == "text")
    await session.call_tool(f"{prefix}test_tool_with_progress", {}, progress_handler=on_progress)


async def go_wrong(session: Client, prefix: str, report: Report) -> None:
    result = await session.call_tool(f"{prefix}test_error_handling", {}, raise_on_error=False)
    if result.is_error:
        report.failed = "".join(block.text for block in result.content if block.type == "text")
    try:
        await session.call_tool(f"{prefix}no_such_tool", {})
    except MCPError as error:
        report.unknown = error.error.code


if __name__ == "__main__":
    asyncio.run(asyncio.wait_for(look(asked()), SECONDS)).tell()
