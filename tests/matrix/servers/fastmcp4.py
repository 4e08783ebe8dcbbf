"""A dual-era server on FastMCP 4: ``python -m tests.matrix.servers.fastmcp4 --notes FILE [--port N]``.

FastMCP offers no subscriptions to resources and, on modern connections, no ``subscriptions/listen``.
"""

# mypy: ignore-errors
# FastMCP is not installed in our own environment.

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Annotated

import mcp_types as t
from fastmcp import Context, FastMCP
from fastmcp.tools import ToolResult
from fastmcp.utilities.tasks import TaskConfig
from fastmcp_tasks import TasksExtension
from pydantic import Field

from tests.matrix.vocabulary import (
    COUNT,
    FORM,
    KEPT,
    LINGER_SECONDS,
    MANY,
    PAGE,
    PROMPT,
    SAMPLE,
    STEP_SECONDS,
    URI,
    Offer,
    completions,
    told,
)

MODERN = "2026-07-28"
server = FastMCP("matrix-fastmcp4", version="1.0.0", list_page_size=PAGE)
server.add_extension(TasksExtension(url="memory://", minimum_check_interval=timedelta(milliseconds=20)))
offer: Offer


@server.tool(output_schema={"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]})
async def echo(text: str) -> ToolResult:
    return ToolResult(content=text, structured_content={"text": text}, meta={KEPT: text})


@server.tool(output_schema=None)
async def count(ctx: Context) -> str:
    for done in (1, 2, 3):
        await ctx.report_progress(done, 3)
        await asyncio.sleep(STEP_SECONDS)
    return "counted"


@server.tool(output_schema=None)
async def linger(marker: str) -> str:
    offer.note(f"started {marker}")
    try:
        await asyncio.sleep(LINGER_SECONDS)
    except asyncio.CancelledError:
        offer.note(f"cancelled {marker}")
        raise
    return "nobody cancelled"


@server.tool(output_schema=None)
async def noted(line: str) -> str:
    return str(offer.noted(line))


@server.tool(output_schema=None)
async def ask_form(ctx: Context):
    question = t.ElicitRequest.model_validate({"method": "elicitation/create", "params": FORM})
    answer = await ask(ctx, question, t.ElicitResult)
    if isinstance(answer, t.InputRequiredResult):
        return answer
    return f"{answer.action} {(answer.content or {}).get('name')}"


@server.tool(output_schema=None)
async def ask_model(ctx: Context):
    question = t.CreateMessageRequest.model_validate({"method": "sampling/createMessage", "params": SAMPLE})
    answer = await ask(ctx, question, t.CreateMessageResult)
    return answer if isinstance(answer, t.InputRequiredResult) else answer.content.text


@server.tool(output_schema=None)
async def ask_roots(ctx: Context):
    answer = await ask(ctx, t.ListRootsRequest(), t.ListRootsResult)
    return answer if isinstance(answer, t.InputRequiredResult) else " ".join(str(root.uri) for root in answer.roots)


async def ask(ctx: Context, question, answers):
    """Modern: the question is the result. Legacy: it is a request on the stream of the call."""
    from mcp.shared.message import ServerMessageMetadata

    if ctx.request_context.protocol_version != MODERN:
        related = ServerMessageMetadata(related_request_id=ctx.request_id)
        return await ctx.session.send_request(question, answers, metadata=related)
    return (ctx.input_responses or {}).get("asked") or t.InputRequiredResult(input_requests={"asked": question})


@server.tool(output_schema=None)
async def grow(name: str, ctx: Context) -> str:
    server.tool(one_of_many, name=name, output_schema=None)
    await ctx.send_notification(t.ToolListChangedNotification())
    return "grown"


@server.tool(output_schema=None)
async def chat(ctx: Context) -> str:
    await ctx.debug("quiet")
    await ctx.warning("loud")
    return "chatted"


@server.tool(output_schema=None, task=TaskConfig(mode="optional", poll_interval=timedelta(milliseconds=50)))
async def slow(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "done"


@server.resource(URI, mime_type="text/plain")
def watched() -> str:
    return "watched"


@server.prompt(name=PROMPT["name"], description=PROMPT["description"])
def greet(city: Annotated[str, Field(description="Which one")]) -> str:
    return f"Hello, {city}!"


@server.completion
async def complete(ref, argument, context) -> list[str]:
    return completions(argument.value)


def one_of_many() -> str:
    return "one of many"


if __name__ == "__main__":
    asked = told()
    offer = Offer(asked.notes)
    for number in range(COUNT):
        server.tool(one_of_many, name=f"{MANY}{number:04}", output_schema=None)
    if asked.port is None:
        asyncio.run(server.run_stdio_async(show_banner=False, log_level="error"))
    else:
        from tests.matrix.servers.listening import serve

        asyncio.run(serve(server.http_app("/mcp"), asked.port))
