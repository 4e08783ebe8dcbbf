"""What a tool does, and whose word counts for it.

A server's annotations are claims. They count only where the operator believes the server (``servers.X.annotations``);
else a tool is what the specification says of one without annotations: not read-only, destructive, its operation
unknown. What the operator says of a tool (``servers.X.classify``) comes before both (rule POL-6).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import translate
from typing import Any
from urllib.parse import urlsplit

import msgspec

from callgate.config import Server, Settings, ToolClass, parse_address
from callgate.types import Operation


def believed(settings: Settings) -> bool:
    """Whether ``annotations: auto`` means that servers are believed: where only this machine calls, whose user runs
    them.
    """
    listen = parse_address(settings.listen)
    host = urlsplit(settings.public_url or "").hostname
    public = parse_address(f"[{host}]:1" if host and ":" in host else f"{host}:1") if host else listen
    return all(each is not None and each.loopback for each in (listen, public))


class Facts(msgspec.Struct, frozen=True):
    """What policy goes by for one tool."""

    read_only: bool = False
    destructive: bool = True
    idempotent: bool = False
    open_world: bool = True
    operation: Operation = ""


class Classes:
    """Whose word counts for the tools of one server. Equal for equal settings."""

    __slots__ = ("_key", "_said", "believed")

    def __init__(self, server: Server | None = None, *, believed: bool = True) -> None:
        self.believed = believed if server is None or server.annotations == "auto" else server.annotations == "trusted"
        tools = server.classify if server is not None else {}
        self._key = (self.believed, tuple(tools.items()))
        self._said = tuple((re.compile(translate(glob)), each) for glob, each in tools.items())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Classes) and self._key == other._key

    def __hash__(self) -> int:
        return hash((self.believed, len(self._said)))

    def facts(self, name: str, annotations: Any) -> Facts:
        """What counts for a tool of this name with these annotations."""
        hints = annotations if self.believed and isinstance(annotations, dict) else {}
        said = self._merged(name)
        read_only = _operation_reads(said)
        if read_only is None:
            read_only = hints.get("readOnlyHint") is True
        destructive = said.destructive
        if destructive is None:
            destructive = _usually(said.operation)
        if destructive is None:
            destructive = False if said.read_only else hints.get("destructiveHint") is not False
        return Facts(
            read_only,
            destructive,
            hints.get("idempotentHint") is True if said.idempotent is None else said.idempotent,
            hints.get("openWorldHint") is not False if said.open_world is None else said.open_world,
            said.operation or _operation(read_only, said.destructive, hints),
        )

    def _merged(self, name: str) -> ToolClass:
        """Everything that the operator says of the tool; what stands later in the file comes first."""
        merged: dict[str, Any] = {}
        for glob, said in self._said:
            if glob.fullmatch(name):
                own = {key: value for key, value in msgspec.structs.asdict(said).items() if value is not None}
                if "operation" in own:  # speaks of these, too
                    merged = {key: value for key, value in merged.items() if key not in ("read_only", "destructive")}
                elif own.keys() & {"read_only", "destructive"}:
                    merged.pop("operation", None)
                merged |= own
        return ToolClass(**merged)


def _operation_reads(said: ToolClass) -> bool | None:
    return said.read_only if said.operation is None else said.operation == "read"


def _usually(operation: str | None) -> bool | None:
    return None if operation is None else operation in ("delete", "execute")


def _operation(read_only: bool, destructive: bool | None, hints: Mapping[str, Any]) -> Operation:
    """The operation that annotations tell: nothing is told by what the specification only assumes."""
    if read_only:
        return "read"
    said = hints.get("destructiveHint") if destructive is None else destructive
    return "" if not isinstance(said, bool) else "delete" if said else "write"


BELIEVED = Classes()
