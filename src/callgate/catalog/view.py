"""What one door shows, and what a name or URI said at that door stands for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

import msgspec

from callgate.catalog.uri_form import native
from callgate.catalog.uris import flaw
from callgate.errors import NotFound
from callgate.types import PROMPT, RESOURCE, Era, Tool

TOOLS, PROMPTS = "tools/list", "prompts/list"
RESOURCES, TEMPLATES = "resources/list", "resources/templates/list"

Hint = tuple[int, Literal["public", "private"]]
NO_HINT: Hint = (0, "private")


class View(msgspec.Struct, frozen=True):
    """What one door shows: its tools in order, by the name it exposes, and their definitions as JSON.

    ``names`` and ``definitions`` are keyed by the exposed name (the native one behind a server's own door);
    ``by_native`` maps ``server/tool`` to the exposed name. ``tools`` and ``others`` leave out what is still found by
    name: the entries of servers that are down, so that a call to them is told why. ``older`` holds the definitions
    that clients of the legacy era must get in another form.

    ``others`` holds the entries of every other list by its method, ``bodies`` their definitions under their exposed
    names and URIs (aggregates only). ``prompts`` is keyed by the exposed name, ``listed`` and ``templates`` by
    ``server/resource:URI``. Resources of the servers in ``reads`` can be read, those that ``wanted`` matches
    (``server/URI``). ``hints`` hold the lifetime in milliseconds and the cache scope that all servers grant each list.
    ``version`` changes with the content.
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
    older: Mapping[str, bytes] = msgspec.field(default_factory=dict)
    bodies: Mapping[str, Mapping[str, bytes]] = msgspec.field(default_factory=dict)
    prompts: Mapping[str, Tool] = msgspec.field(default_factory=dict)
    listed: Mapping[str, Tool] = msgspec.field(default_factory=dict)
    templates: Mapping[str, Tool] = msgspec.field(default_factory=dict)
    reads: frozenset[str] = frozenset()
    wanted: re.Pattern[str] | None = None
    hints: Mapping[str, Hint] = msgspec.field(default_factory=dict)

    @property
    def aggregate(self) -> bool:
        """Whether several servers stand behind the door, so that names and URIs say whose they are."""
        return not self.door.startswith("server:")

    def entries(self, method: str) -> tuple[Tool, ...]:
        """The entries of a list, before policy; ``method`` is the list's method."""
        return self.tools if method == TOOLS else self.others.get(method, ())

    def definition(self, method: str, tool: Tool, era: Era = "modern") -> bytes:
        """How an entry is listed at this door, as JSON."""
        if method != TOOLS:
            bodies = self.bodies.get(method)
            return tool.definition if bodies is None else bodies[tool.native]
        exposed = self.by_native[tool.native]
        older = self.older.get(exposed) if era == "legacy" else None
        return self.definitions[exposed] if older is None else older

    def readable(self, name: str) -> Tool | None:
        """The prompt (``prompt:NAME``) or resource (``resource:URI``), as this door names it; a resource need not be
        listed, its template may be.

        Raises ``NotFound`` for a URI that was not listed and can be read in two ways.
        """
        if name.startswith(PROMPT):
            return self.prompts.get(name.removeprefix(PROMPT))
        return self._resource(name.removeprefix(RESOURCE)) if name.startswith(RESOURCE) else None

    def completable(self, name: str) -> Tool | None:
        """The prompt, resource or resource template whose arguments are completed."""
        if name.startswith(RESOURCE):
            server, uri = self.native(name.removeprefix(RESOURCE))
            template = self.templates.get(f"{server}/{RESOURCE}{uri}")
            if template is not None:
                return template
        return self.readable(name)

    def native(self, uri: str) -> tuple[str, str]:
        """The server that a URI said at this door belongs to (``""``: none), and the URI as that server knows it."""
        return (native(uri) or ("", uri)) if self.aggregate else (self.servers[0], uri)

    def _resource(self, exposed: str) -> Tool | None:
        server, uri = self.native(exposed)
        listed = self.listed.get(f"{server}/{RESOURCE}{uri}")
        if listed is not None:
            return listed
        if server not in self.reads:
            return None
        if flaw(uri):
            raise self.unknown_resource(exposed)
        if self.wanted is not None and not self.wanted.fullmatch(f"{server}/{uri}"):
            return None
        held = self._of_held_template(server, uri)
        if held is not None:
            return held
        return Tool(server, RESOURCE + uri, exposed, b"{}", read_only=True, destructive=False, operation="read")

    def _of_held_template(self, server: str, uri: str) -> Tool | None:
        """The template that a URI was made of, where the guard holds it back and no other one begins like the URI."""
        mine = [each for each in self.templates.values() if each.server == server]
        found = None
        for each in mine if any(each.withheld for each in mine) else ():
            start = each.name.removeprefix(RESOURCE).partition("{")[0]
            if start and uri.lower().startswith(start.lower()):  # servers may not tell them apart
                if not each.withheld:
                    return None
                found = each
        return found

    def unknown_resource(self, exposed: str) -> NotFound:
        """What is said of a URI that leads nowhere: the same whether or not its server exists."""
        wrong = flaw(self.native(exposed)[1])
        if wrong:
            return NotFound(f"Unknown resource: it is not listed, and its URI {wrong}.")
        return NotFound(f"Unknown resource: {exposed[:128]}.")
