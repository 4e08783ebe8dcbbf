"""The planner: a LangGraph graph that looks at the tools behind callgate and hands the work to the coder.

stdin: the user's token, on one line. stdout: one JSON line with its own token, the tools that it sees, and what the
coder reported.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_mcp_adapters.client import MultiServerMCPClient
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from tokens import own_token


def plan(state: MessagesState) -> dict[str, list[AnyMessage]]:
    """The model of the graph, which follows a script: first delegate, then report."""
    last = state["messages"][-1]
    if isinstance(last, ToolMessage):
        return {"messages": [AIMessage(str(last.content))]}
    call = {"name": "ask_the_coder", "args": {"task": "count the rows"}, "id": "1", "type": "tool_call"}
    return {"messages": [AIMessage("", tool_calls=[call])]}


def after(state: MessagesState) -> str:
    last = state["messages"][-1]
    return "tools" if isinstance(last, AIMessage) and last.tool_calls else END


async def main() -> None:
    mine = own_token(sys.stdin.readline().strip())
    connection = {
        "transport": "streamable_http",
        "url": f"{os.environ['GATEWAY']}/mcp",
        "headers": {"Authorization": f"Bearer {mine}"},
    }
    seen = [each.name for each in await MultiServerMCPClient({"callgate": connection}).get_tools()]

    @tool
    def ask_the_coder(task: str) -> str:
        """Hand a task to the coder, with this agent's token and nothing else."""
        env = {**os.environ, "AGENT": os.environ["NEXT"], "AGENT_SECRET": os.environ["NEXT_SECRET"]}
        done = subprocess.run(
            [sys.executable, os.environ["NEXT_SCRIPT"]], input=f"{mine}\n", capture_output=True, text=True, env=env,
            timeout=100,
        )  # fmt: skip
        return done.stdout.strip() or json.dumps({"failed": done.stderr[-2000:]})

    graph = StateGraph(MessagesState)
    graph.add_node("plan", plan)
    graph.add_node("tools", ToolNode([ask_the_coder]))
    graph.add_edge(START, "plan")
    graph.add_conditional_edges("plan", after)
    graph.add_edge("tools", "plan")
    final = await graph.compile().ainvoke({"messages": [HumanMessage("How many rows are there?")]})
    print(json.dumps({"token": mine, "tools": seen, "coder": json.loads(str(final["messages"][-1].content))}))


if __name__ == "__main__":
    asyncio.run(main())
