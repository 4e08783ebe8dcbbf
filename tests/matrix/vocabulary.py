"""What all servers of the matrix offer under the same names. Standard library only: every environment imports it."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VOCABULARY: dict[str, Any] = json.loads(Path(__file__).with_name("vocabulary.json").read_text("utf-8"))
TOOLS: list[dict[str, Any]] = VOCABULARY["tools"]
MANY: str = VOCABULARY["many"]["name"]
COUNT: int = VOCABULARY["many"]["count"]
PAGE: int = VOCABULARY["many"]["page"]
WORDS: list[str] = VOCABULARY["words"]
KEPT: str = VOCABULARY["kept"]
RESOURCE: dict[str, Any] = VOCABULARY["resource"]
URI: str = RESOURCE["uri"]
PROMPT: dict[str, Any] = VOCABULARY["prompt"]
FORM: dict[str, Any] = VOCABULARY["form"]
SAMPLE: dict[str, Any] = VOCABULARY["sample"]
LINGER_SECONDS = 30.0
STEP_SECONDS = 0.02
"""How long one step of ``count`` takes. TypeScript clients lose progress that arrives in one chunk with the result."""


@dataclass
class Told:
    """How a server shall serve (``port`` or stdio), and the file into which it notes what happened."""

    port: int | None
    notes: Path


def told() -> Told:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    parser.add_argument("--notes", type=Path, required=True)
    given = parser.parse_args()
    return Told(given.port, given.notes)


class Offer:
    """The tools of one server process; ``grow`` adds to them."""

    def __init__(self, notes: Path) -> None:
        self.notes = notes
        self.tools = [*TOOLS, *(plain_tool(f"{MANY}{number:04}") for number in range(COUNT))]

    def grow(self, name: str) -> None:
        self.tools.append(plain_tool(name))

    def page(self, cursor: str | None) -> tuple[list[dict[str, Any]], str | None]:
        """The tools from this cursor on, and the cursor of the next page."""
        start = int(cursor or 0)
        end = start + PAGE
        return self.tools[start:end], str(end) if end < len(self.tools) else None

    def note(self, line: str) -> None:
        """Note a line where every process of this server can read it."""
        with self.notes.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")

    def noted(self, line: str) -> int:
        return self.notes.read_text("utf-8").splitlines().count(line) if self.notes.exists() else 0


def plain_tool(name: str) -> dict[str, Any]:
    return {"name": name, "description": "One of many.", "inputSchema": {"type": "object"}}


def completions(start: str) -> list[str]:
    return [word for word in WORDS if word.startswith(start)]
