"""The compiled catalog: what each door shows. Lists and look-ups read it and never wait for a server."""

from __future__ import annotations

import fnmatch
import logging
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from callgate.catalog.headers import BadAnnotation, header_arguments
from callgate.catalog.names import exposed_name, hashed_name
from callgate.catalog.uris import flaw
from callgate.config import VirtualServer
from callgate.errors import NotFound
from callgate.types import JSON, PROMPT, RESOURCE, Listing, Tool

log = logging.getLogger("callgate.catalog")
encode = msgspec.json.Encoder().encode

EVERYTHING = ""


def virtual_door(name: str) -> str:
    return f"virtual:{name}"


def server_door(name: str) -> str:
    return f"server:{name}"


class View(msgspec.Struct, frozen=True):
    """What one door shows: its tools in order, by the name it exposes, and their definitions as JSON.

    ``names`` and ``definitions`` are keyed by the exposed name (the native one behind a server's own door);
    ``by_native`` maps ``server/tool`` to the exposed name. ``tools`` leaves out what ``names`` still resolves:
    the tools of servers that are down, so that a call to them is told why. ``others`` holds the entries of every
    other list by its method (a server's own door only). ``version`` changes with the content.
    """

    door: str
    tools: tuple[Tool, ...]
    names: Mapping[str, Tool]
    by_native: Mapping[str, str]
    definitions: Mapping[str, bytes]
    servers: tuple[str, ...]
    others: Mapping[str, tuple[Tool, ...]] = msgspec.field(default_factory=dict)
    description: str = ""
    version: int = 0

    def entries(self, method: str) -> tuple[Tool, ...]:
        """The entries of a list, before policy; ``method`` is the list's method."""
        return self.tools if method == "tools/list" else self.others.get(method, ())

    def readable(self, name: str) -> Tool | None:
        """The prompt or resource of a server's own door; a resource need not be listed, its template may be.

        Raises ``NotFound`` for a URI that was not listed and can be read in two ways.
        """
        if name.startswith(RESOURCE) and "resources/list" in self.others:
            wrong = flaw(name.removeprefix(RESOURCE))
            if wrong and all(entry.name != name for entry in self.others["resources/list"]):
                raise NotFound(f"Unknown resource: it is not listed, and its URI {wrong}.")
            return Tool(self.servers[0], name, name, b"{}", read_only=True, destructive=False)
        return next((tool for tool in self.others.get("prompts/list", ()) if tool.name == name), None)

    def definition(self, tool: Tool) -> bytes:
        """How an entry is listed at this door, as JSON."""
        exposed = self.by_native.get(tool.native)
        return tool.definition if exposed is None else self.definitions[exposed]


class Part(msgspec.Struct, frozen=True):
    """One server's compiled tools, with each definition encoded under its native and its exposed name."""

    listing: Listing
    tools: tuple[Tool, ...]
    native: Mapping[str, bytes]
    exposed: Mapping[str, bytes]
    others: Mapping[str, tuple[Tool, ...]]


def compile_part(listing: Listing) -> Part:
    """Compile what one server listed; tools that must not be shown are left out with a line in the log."""
    tools: dict[str, Tool] = {}
    native: dict[str, bytes] = {}
    exposed: dict[str, bytes] = {}
    for definition in listing.tools:
        tool = _tool(listing.server, definition)
        if tool is None or tool.name in tools:
            log.warning("server %s: tool %r is left out", listing.server, definition.get("name"))
            continue
        tools[tool.name] = tool
        native[tool.name] = tool.definition
        exposed[tool.name] = encode({**definition, "name": tool.exposed})
    ordered = tuple(tools[name] for name in sorted(tools))
    return Part(listing, ordered, native, exposed, _others(listing))


def _others(listing: Listing) -> dict[str, tuple[Tool, ...]]:
    lists = {
        "prompts/list": (listing.prompts, PROMPT, "name"),
        "resources/list": (listing.resources, RESOURCE, "uri"),
        "resources/templates/list": (listing.templates, RESOURCE, "uriTemplate"),
    }
    return {
        method: tuple(_entry(listing.server, prefix + each[key], each) for each in entries)
        for method, (entries, prefix, key) in lists.items()
        if method.partition("/")[0] in listing.capabilities
    }


def _entry(server: str, name: str, definition: JSON) -> Tool:
    """A prompt, resource or template. Getting one is reading."""
    return Tool(server, name, name, encode(definition), read_only=True, destructive=False)


def _tool(server: str, definition: Mapping[str, Any]) -> Tool | None:
    name = definition.get("name")
    if not isinstance(name, str) or not name or name.startswith((PROMPT, RESOURCE)):
        return None  # a tool must not pass for a prompt or resource in a rule
    try:
        mirrored = header_arguments(definition.get("inputSchema"))
    except BadAnnotation as why:
        log.warning("server %s: tool %r: %s", server, name, why)
        return None
    hints = definition.get("annotations")
    hints = hints if isinstance(hints, dict) else {}
    description = definition.get("description")
    return Tool(
        server=server,
        name=name,
        exposed=exposed_name(server, name),
        definition=encode(definition),
        description=description if isinstance(description, str) else "",
        read_only=hints.get("readOnlyHint") is True,
        destructive=hints.get("destructiveHint") is not False,
        idempotent=hints.get("idempotentHint") is True,
        open_world=hints.get("openWorldHint") is not False,
        header_arguments=mirrored,
    )


def compile_views(
    parts: Mapping[str, Part], order: Sequence[str], virtual: Mapping[str, VirtualServer], down: Collection[str] = ()
) -> dict[str, View]:
    """Compile every door: servers in configured order, tools by name, so that lists are deterministic.

    The tools of the servers in ``down`` are resolved but not listed. ``version`` is left at 0 for the catalog to set.
    """
    present = [parts[name] for name in order if name in parts]
    views = {server_door(name): _server_view(name, parts.get(name)) for name in order}
    views[EVERYTHING] = _aggregate(EVERYTHING, present, None)
    for name, selection in virtual.items():
        view = _aggregate(virtual_door(name), present, _matcher(selection.tools))
        views[view.door] = msgspec.structs.replace(view, description=selection.description)
    return {door: _without(view, down) for door, view in views.items()} if down else views


def _without(view: View, down: Collection[str]) -> View:
    return msgspec.structs.replace(view, tools=tuple(tool for tool in view.tools if tool.server not in down))


def _server_view(name: str, part: Part | None) -> View:
    tools = part.tools if part else ()
    return View(
        door=server_door(name),
        tools=tools,
        names={tool.name: tool for tool in tools},
        by_native={tool.native: tool.name for tool in tools},
        definitions=part.native if part else {},
        servers=(name,),
        others=part.others if part else {},
    )


def _aggregate(door: str, parts: Iterable[Part], wanted: re.Pattern[str] | None) -> View:
    names: dict[str, Tool] = {}
    definitions: dict[str, bytes] = {}
    servers: list[str] = []
    for part in parts:
        chosen = [tool for tool in part.tools if wanted is None or wanted.fullmatch(tool.native)]
        if chosen or wanted is None:
            servers.append(part.listing.server)
        for tool in chosen:
            entry = part.exposed[tool.name]
            if tool.exposed in names:
                tool, entry = _disambiguated(tool, entry)
            names[tool.exposed] = tool
            definitions[tool.exposed] = entry
    by_native = {tool.native: exposed for exposed, tool in names.items()}
    return View(door, tuple(names.values()), names, by_native, definitions, tuple(servers))


def _disambiguated(tool: Tool, entry: bytes) -> tuple[Tool, bytes]:
    """A server that imitates another's hashed name gets a longer hash; the imitated tool keeps its name."""
    name = hashed_name(tool.server, tool.name, digits=16)
    renamed = msgspec.json.decode(entry) | {"name": name}
    return msgspec.structs.replace(tool, exposed=name), encode(renamed)


def _matcher(globs: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(fnmatch.translate(glob) for glob in globs))
