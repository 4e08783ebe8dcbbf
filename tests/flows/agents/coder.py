"""The coder: a Pydantic AI agent that uses the tools behind callgate. Its model follows a script.

stdin: the token that it is handed, on one line. stdout: one JSON line with its own token and what the tool said.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

from pydantic_ai import Agent
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from tokens import own_token


def think(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """Call the tool that is asked for; then say what it said."""
    returned = [part for message in messages for part in message.parts if isinstance(part, ToolReturnPart)]
    if returned:
        return ModelResponse(parts=[TextPart(str(returned[-1].content))])
    if os.environ["TOOL"] not in [tool.name for tool in info.function_tools]:
        return ModelResponse(parts=[TextPart("I was shown no such tool.")])
    return ModelResponse(parts=[ToolCallPart(os.environ["TOOL"], {})])


async def main() -> None:
    token = own_token(sys.stdin.readline().strip())
    toolset = MCPToolset(f"{os.environ['GATEWAY']}/mcp", headers={"Authorization": f"Bearer {token}"})
    agent = Agent(FunctionModel(think), toolsets=[toolset])
    result = await agent.run("Count the rows of the table.")
    print(json.dumps({"token": token, "said": result.output}))


if __name__ == "__main__":
    asyncio.run(main())
