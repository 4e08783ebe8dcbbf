"""Notes to read and to write: a child process on stdio that speaks the legacy era.

python -m callgate.demo.servers.notes
"""

from __future__ import annotations

from callgate.demo.servers.protocol import DemoTool, Offer, ToolFailure
from callgate.demo.servers.stdio import serve


class Notes:
    def __init__(self) -> None:
        self._notes = {"welcome": "Be kind, be brief.", "private/pay": "Ask Kim."}

    def offer(self) -> Offer:
        name = {"name": str}
        tools = [
            DemoTool("list", "The names of all notes.", {}, self.names, reads=True),
            DemoTool("read", "One note.", name, self.read, reads=True),
            DemoTool("write", "Write a note.", {**name, "text": str}, self.write),
            DemoTool("delete", "Delete a note.", name, self.delete),
        ]
        return Offer("notes", tools, modern=False)

    def names(self) -> dict[str, list[str]]:
        return {"names": sorted(self._notes)}

    def read(self, name: str) -> dict[str, str]:
        if name not in self._notes:
            raise ToolFailure(f"There is no note {name}.")
        return {"text": self._notes[name]}

    def write(self, name: str, text: str) -> dict[str, str]:
        self._notes[name] = text
        return {"written": name}

    def delete(self, name: str) -> dict[str, str]:
        self.read(name)
        del self._notes[name]
        return {"deleted": name}


if __name__ == "__main__":
    serve(Notes().offer())
