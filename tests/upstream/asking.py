"""Clients that answer, for tests of servers that ask."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import msgspec

from callgate.config.model import Server
from callgate.types import Answer, Question

SCRIPT = str(Path(__file__).parent.parent / "servers" / "asking_stdio.py")
FORMS: dict[str, Any] = {"capabilities": {"elicitation": {"form": {}}}}
#: A legacy client in one of its sessions, and a modern client; both can be asked.
LEGACY: dict[str, Any] = {"era": "legacy", "version": "2025-11-25", **FORMS}


def asking(*habits: str, **more: Any) -> Server:
    return Server(command=sys.executable, args=("-S", SCRIPT, *habits), **more)


class Client:
    """Answers every question with its name; ``open`` lets those through that wait (it is set from the start)."""

    def __init__(self, name: str = "client") -> None:
        self.name = name
        self.questions: list[Question] = []
        self.cancelled = 0
        self.open = asyncio.Event()
        self.open.set()

    async def ask(self, question: Question) -> Answer:
        self.questions.append(question)
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return Answer(result=msgspec.json.encode({"action": "accept", "content": {"by": self.name}}))
