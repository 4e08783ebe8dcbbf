"""The compiled catalog: what each door shows. Lists and look-ups read it and never wait for a server."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from callgate.catalog.names import hashed_name
from callgate.catalog.parts import Part, encode
from callgate.catalog.view import NO_HINT, PROMPTS, RESOURCES, TEMPLATES, TOOLS, Hint, View
from callgate.config import VirtualServer
from callgate.types import PROMPT, RESOURCE, Tool

EVERYTHING = ""
#: The kinds of entries that a door's lists may change in, and the lists that hold them.
KINDS = {"tools": (TOOLS,), "prompts": (PROMPTS,), "resources": (RESOURCES, TEMPLATES)}


def virtual_door(name: str) -> str:
    return f"virtual:{name}"


def server_door(name: str) -> str:
    return f"server:{name}"


class Choice(msgspec.Struct, frozen=True):
    """What a virtual server shows: matchers over ``server/tool``, ``server/prompt`` and ``server/URI``."""

    tools: re.Pattern[str]
    prompts: re.Pattern[str] | None
    resources: re.Pattern[str] | None
    reads: re.Pattern[str] | None

    @classmethod
    def of(cls, virtual: VirtualServer) -> Choice:
        return cls(
            matcher(virtual.tools),
            matcher(virtual.prompts) if virtual.prompts else None,
            matcher(virtual.resources) if virtual.resources else None,
            matcher(glob.partition("/")[0] for glob in virtual.resources) if virtual.resources else None,
        )

    def shows(self, entry: Tool, method: str) -> bool:
        if method == TOOLS:
            return bool(self.tools.fullmatch(entry.native))
        pattern, prefix = (self.prompts, PROMPT) if method == PROMPTS else (self.resources, RESOURCE)
        return bool(pattern and pattern.fullmatch(f"{entry.server}/{entry.name.removeprefix(prefix)}"))

    def has(self, method: str) -> bool:
        """Whether anything of this list is chosen at all."""
        return (self.prompts if method == PROMPTS else self.resources) is not None


def compile_views(
    parts: Mapping[str, Part], order: Sequence[str], virtual: Mapping[str, VirtualServer], down: Collection[str] = ()
) -> dict[str, View]:
    """Compile every door: servers in configured order, entries by name, so that lists are deterministic.

    The entries of the servers in ``down`` are resolved but not listed. ``version`` is left at 0 for the catalog to set.
    """
    present = {name: parts[name] for name in order if name in parts}
    doors = [*map(server_door, order), EVERYTHING, *map(virtual_door, virtual)]
    return {door: compile_view(door, present, virtual, down) for door in doors}


def compile_view(
    door: str, parts: Mapping[str, Part], virtual: Mapping[str, VirtualServer], down: Collection[str] = ()
) -> View:
    """Compile one door; ``parts`` are in configured order."""
    kind, _, name = door.partition(":")
    if kind == "server":
        view = _server_view(name, parts.get(name))
    elif kind == "virtual":
        view = _aggregate(door, parts.values(), Choice.of(virtual[name]))
        view = msgspec.structs.replace(view, description=virtual[name].description)
    else:
        view = _aggregate(door, parts.values(), None)
    return _without(view, down) if down or _holds(view) else view


def changes(before: Mapping[str, View], after: Mapping[str, View]) -> dict[str, frozenset[str]]:
    """The doors whose lists differ, and in which kinds; a door that is new differs in everything it shows."""
    found = {}
    for door, view in after.items():
        old = before.get(door)
        kinds = frozenset(
            kind
            for kind, methods in KINDS.items()
            if any(view.entries(method) != (old.entries(method) if old else ()) for method in methods)
        )
        if kinds:
            found[door] = kinds
    return found


def _without(view: View, down: Collection[str]) -> View:
    others = {method: _up(entries, down) for method, entries in view.others.items()}
    return msgspec.structs.replace(view, tools=_up(view.tools, down), others=others)


def _up(entries: Iterable[Tool], down: Collection[str]) -> tuple[Tool, ...]:
    return tuple(entry for entry in entries if entry.server not in down and not entry.withheld)


def _holds(view: View) -> bool:
    """Whether the guard holds an entry back: it is found by name, so that a call is told why."""
    return any(entry.withheld for entries in (view.tools, *view.others.values()) for entry in entries)


def _server_view(name: str, part: Part | None) -> View:
    if part is None:
        return View(server_door(name), (), {}, {}, {}, (name,))
    return View(
        door=server_door(name),
        tools=part.tools,
        names={tool.name: tool for tool in part.tools},
        by_native={tool.native: tool.name for tool in part.tools},
        definitions=part.native,
        servers=(name,),
        others=part.others,
        older={tool: native for tool, (native, _) in part.older.items()},
        prompts={prompt.name.removeprefix(PROMPT): prompt for prompt in part.others.get(PROMPTS, ())},
        listed=_by_native(part.others.get(RESOURCES, ())),
        templates=_by_native(part.others.get(TEMPLATES, ())),
        reads=frozenset({name} if RESOURCES in part.others else ()),
        hints={method: part.listing.hints.get(method, NO_HINT) for method in (TOOLS, *part.others)},
    )


def _aggregate(door: str, parts: Iterable[Part], choice: Choice | None) -> View:
    gathered = _Gathered(choice)
    for part in parts:
        gathered.add(part)
    return gathered.view(door)


class _Gathered:
    """The entries of several servers, under the names that tell them apart."""

    def __init__(self, choice: Choice | None) -> None:
        self.choice = choice
        self.names: dict[str, Tool] = {}
        self.definitions: dict[str, bytes] = {}
        self.older: dict[str, bytes] = {}
        self.prompts: dict[str, Tool] = {}
        self.others: dict[str, tuple[Tool, ...]] = {}
        self.bodies: dict[str, dict[str, bytes]] = {}
        self.reads: set[str] = set()
        self.servers: list[str] = []
        self.hints: dict[str, Hint] = {}

    def add(self, part: Part) -> None:
        server, choice = part.listing.server, self.choice
        shows = self._add_tools(part)
        for method in part.others:
            if choice is None or choice.has(method):
                shows = self._add_others(part, method) or shows
        if RESOURCES in part.others and (choice is None or (choice.reads and choice.reads.fullmatch(server))):
            self.reads.add(server)
        if choice is None or shows or server in self.reads:
            self.servers.append(server)

    def _add_tools(self, part: Part) -> bool:
        # A host cannot tell whose app calls here, so that one could call another server's tools (rule APP-2).
        chosen = [tool for tool in self._chosen(part.tools, TOOLS) if tool.name not in part.apps]
        self._add_hint(part, TOOLS)
        for tool in chosen:
            shown = _distinct(self.names, tool)
            self.names[shown.exposed] = shown
            self.definitions[shown.exposed] = _renamed(part.exposed[tool.name], tool, shown)
            if tool.name in part.older:
                self.older[shown.exposed] = _renamed(part.older[tool.name][1], tool, shown)
        return bool(chosen)

    def _add_others(self, part: Part, method: str) -> bool:
        chosen, bodies = self._chosen(part.others[method], method), self.bodies.setdefault(method, {})
        self._add_hint(part, method)
        shown = []
        for entry in chosen:
            each = _distinct(self.prompts, entry) if method == PROMPTS else entry
            if method == PROMPTS:
                self.prompts[each.exposed] = each
            bodies[entry.native] = _renamed(part.bodies[method][entry.native], entry, each)
            shown.append(each)
        self.others[method] = (*self.others.get(method, ()), *shown)
        return bool(chosen)

    def _add_hint(self, part: Part, method: str) -> None:
        """The least that all servers grant (rule CACHE-10)."""
        ttl, scope = part.listing.hints.get(method, NO_HINT)
        least, narrowest = self.hints.get(method, (ttl, scope))
        self.hints[method] = min(ttl, least), "private" if narrowest == "private" else scope

    def _chosen(self, entries: tuple[Tool, ...], method: str) -> tuple[Tool, ...]:
        choice = self.choice
        return entries if choice is None else tuple(entry for entry in entries if choice.shows(entry, method))

    def view(self, door: str) -> View:
        return View(
            door=door,
            tools=tuple(self.names.values()),
            names=self.names,
            by_native={tool.native: exposed for exposed, tool in self.names.items()},
            definitions=self.definitions,
            servers=tuple(self.servers),
            others=self.others,
            older=self.older,
            bodies=self.bodies,
            prompts=self.prompts,
            listed=_by_native(self.others.get(RESOURCES, ())),
            templates=_by_native(self.others.get(TEMPLATES, ())),
            reads=frozenset(self.reads),
            wanted=self.choice.resources if self.choice else None,
            hints=self.hints,
        )


def _distinct(taken: Collection[str], entry: Tool) -> Tool:
    """A server that imitates another's hashed name gets a longer hash; the imitated entry keeps its name."""
    if entry.exposed not in taken:
        return entry
    name = entry.name.removeprefix(PROMPT)
    return msgspec.structs.replace(entry, exposed=hashed_name(entry.server, name, digits=16))


def _renamed(body: bytes, entry: Tool, shown: Tool) -> bytes:
    return body if shown is entry else encode(msgspec.json.decode(body) | {"name": shown.exposed})


def _by_native(entries: Iterable[Tool]) -> dict[str, Tool]:
    return {entry.native: entry for entry in entries}


def matcher(globs: Iterable[str]) -> re.Pattern[str]:
    """Matches what one of the globs matches."""
    return re.compile("|".join(fnmatch.translate(glob) for glob in globs))
