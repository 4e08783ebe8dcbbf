"""The ``mcp.json`` of AI clients, taken as it is.

``{"mcpServers": {…}}`` is what most clients write, ``{"servers": {…}, "inputs": […]}`` what VS Code writes. Each
client adds keys of its own to the entries: what callgate knows is taken, the rest is left alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from callgate.errors import ConfigError

from .decode import fields
from .model import Server, Settings
from .node import Node, Span, copy_map

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_URLS = ("url", "serverUrl", "httpUrl", "uri")
_TYPES = {
    "stdio": "stdio", "local": "stdio",
    "http": "http", "remote": "http", "sse": "sse",
    "streamable-http": "streamable-http", "streamablehttp": "streamable-http", "streamable_http": "streamable-http",
}  # fmt: skip
_FOR_COMMAND, _FOR_URL = {"args", "env", "cwd"}, {"headers", "ca_file", "proxy"}
# Durations of other clients are milliseconds here and seconds there; only names of our own are taken.
_KEPT = set(fields(Server)) - {"type", "url", "disabled"}
_VARIABLE = re.compile(r"\$\{(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_INPUT = re.compile(r"\$\{(input|command|config):[^}]*\}")


def adapt(root: Node, env: Mapping[str, str], notes: list[str]) -> Node:
    """``root`` as a ``callgate.yaml`` would say it; unchanged when it is not the file of a client.

    What a user should know (renamed servers, values to fill in) goes to ``notes``.
    Raises ``ConfigError`` when the file mixes both kinds.
    """
    key = _form(root)
    if not key:
        return root
    servers = root.items[key]
    if servers.kind != "map":
        return copy_map(root, {"servers": servers}, {"servers": root.keys[key]})
    entries = Node("map", servers.source, servers.span)
    for name, entry in servers.fields():
        called = _called(name, entries, notes)
        entries.put(called, _Entry(called, env, notes).adapt(entry), servers.keys[name])
    return copy_map(root, {"servers": entries}, {"servers": root.keys[key]})


def _form(root: Node) -> str:
    """The key that holds the servers when this is the file of a client, else ``""``."""
    if root.kind != "map":
        return ""
    if "mcpServers" in root.items:
        ours = [key for key in root.items if key in fields(Settings) and key != "inputs"]
        if ours:
            hint = f"callgate.yaml calls it `servers`; rename it, or remove `{ours[0]}`"
            raise ConfigError("`mcpServers` is the name in client files", hint=hint, place=root.key_place("mcpServers"))
        return "mcpServers"
    json = root.source.name.lower().endswith((".json", ".jsonc"))
    if json and "servers" in root.items and set(root.items) <= {"servers", "inputs", "$schema"}:
        named = "callgate" not in root.source.name.lower().replace("\\", "/").rpartition("/")[2]
        return "servers" if named or "inputs" in root.items else ""
    return ""


def _called(name: str, taken: Node, notes: list[str]) -> str:
    """A name that callgate allows: clients allow any text."""
    if NAME.fullmatch(name) and name not in taken.items:
        return name
    base = re.sub(r"[^A-Za-z0-9_.-]+", "-", name.rstrip("/")).strip("-_.")[-60:].lstrip("-_.") or "server"
    called, number = base, 2
    while called in taken.items:
        called, number = f"{base}-{number}", number + 1
    notes.append(f"server `{name}` is called `{called}` here")
    return called


class _Entry:
    def __init__(self, name: str, env: Mapping[str, str], notes: list[str]) -> None:
        self.name = name
        self.env = env
        self.notes = notes

    def adapt(self, entry: Node) -> Node:
        if entry.kind != "map":
            return entry
        fresh = Node("map", entry.source, entry.span)
        address = next((key for key in _URLS if key in entry.items), None)
        skip = _FOR_COMMAND if address and "command" not in entry.items else _FOR_URL
        for key, value in entry.fields():
            span = entry.keys[key]
            if key == address:
                fresh.put("url", self.filled(value), span)
            elif key == "type":
                self.put_type(fresh, value, span)
            elif key in ("disabled", "enabled") and isinstance(value.data, bool):
                off = value.data if key == "disabled" else not value.data
                fresh.put("disabled", Node("scalar", value.source, value.span, off, str(off).lower()), span)
            elif key in _KEPT and key not in skip and not (value.kind == "scalar" and value.data is None):
                fresh.put(key, self.filled(value, reference=key in ("env", "headers")), span)
        return fresh

    def put_type(self, fresh: Node, value: Node, span: Span) -> None:
        known = _TYPES.get(str(value.data).lower())
        if known is None:
            return
        fresh.put("type", Node("scalar", value.source, value.span, known, known), span)

    def filled(self, node: Node, *, reference: bool = False) -> Node:
        """``node`` with ``${NAME}`` filled from the environment; a value that is nothing else becomes ``env:NAME``."""
        if node.kind == "scalar":
            return self.filled_scalar(node, reference) if isinstance(node.data, str) and "${" in node.data else node
        fresh = Node(node.kind, node.source, node.span)
        for key, child in node.items.items():
            fresh.put(key, self.filled(child, reference=reference), node.keys.get(str(key)))
        return fresh

    def filled_scalar(self, node: Node, reference: bool) -> Node:
        text = str(node.data)
        whole = _VARIABLE.fullmatch(text)
        if whole and reference and whole[2] is None:
            text = f"env:{whole[1]}"
        else:
            text = _VARIABLE.sub(self.variable, text)
        if found := _INPUT.search(text):
            self.notes.append(f"server `{self.name}` asks for {found.group()}; write a value or `env:NAME` instead")
        return Node("scalar", node.source, node.span, text, text)

    def variable(self, found: re.Match[str]) -> str:
        value = self.env.get(found[1]) or found[2]
        if value is None:
            self.notes.append(f"server `{self.name}` uses {found.group()}, which is not set")
            return found.group()
        return value
