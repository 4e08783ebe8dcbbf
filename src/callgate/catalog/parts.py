"""One server's listing, compiled: every entry under its native and under its exposed name."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from callgate.catalog.classes import BELIEVED, Classes
from callgate.catalog.headers import BadAnnotation, header_arguments
from callgate.catalog.names import exposed_name
from callgate.catalog.screening import OPEN, Screened, Shown
from callgate.catalog.tasks import as_task, task_support
from callgate.catalog.uri_form import expose
from callgate.catalog.view import PROMPTS, RESOURCES, TEMPLATES
from callgate.types import JSON, METHOD, PROMPT, RESOURCE, Listing, Tool

log = logging.getLogger("callgate.catalog")
encode = msgspec.json.Encoder().encode

#: The list → the member that names an entry, the prefix of its names in policy and audit.
KEYS = {PROMPTS: ("name", PROMPT), RESOURCES: ("uri", RESOURCE), TEMPLATES: ("uriTemplate", RESOURCE)}


class Part(msgspec.Struct, frozen=True):
    """One server's compiled entries. ``native`` and ``exposed`` hold the definitions of its tools by native name,
    ``older`` those of both that legacy clients get in another form (native, exposed); ``apps`` are the tools that only
    the server's own apps may call. ``others`` and ``bodies`` hold
    the entries of every other list and their definitions as aggregates show them (by ``server/kind:name``).
    """

    listing: Listing
    tools: tuple[Tool, ...]
    native: Mapping[str, bytes]
    exposed: Mapping[str, bytes]
    older: Mapping[str, tuple[bytes, bytes]]
    others: Mapping[str, tuple[Tool, ...]]
    bodies: Mapping[str, Mapping[str, bytes]]
    apps: frozenset[str] = frozenset()


def compile_part(listing: Listing, classes: Classes = BELIEVED, screened: Screened | None = None) -> Part:
    """Compile what one server listed; tools that must not be shown are left out with a line in the log. What the guard
    made of the listing (``screened``) counts instead of what was listed.
    """
    screened = OPEN.listing(listing) if screened is None else screened
    tools: dict[str, Tool] = {}
    native: dict[str, bytes] = {}
    exposed: dict[str, bytes] = {}
    older: dict[str, tuple[bytes, bytes]] = {}
    for definition, withheld in screened.tools:
        tool = _tool(listing, definition, classes, withheld)
        if tool is None or tool.name in tools:
            log.warning("server %s: tool %r is left out", listing.server, definition.get("name"))
            continue
        tools[tool.name] = tool
        native[tool.name] = tool.definition
        shown = {**_with_exposed_meta(listing.server, definition), "name": tool.exposed}
        exposed[tool.name] = encode(shown)
        for_old = as_task(listing, for_legacy(definition))
        if for_old is not definition:
            older[tool.name] = encode(for_old), encode(as_task(listing, for_legacy(shown)))
    ordered = tuple(tools[name] for name in sorted(tools))
    others, bodies = _others(listing, screened)
    apps = frozenset(each["name"] for each, _ in screened.tools if _for_apps_only(each))
    return Part(listing, ordered, native, exposed, older, others, bodies, apps)


def _for_apps_only(definition: JSON) -> bool:
    """Whether models must not call a tool: MCP Apps, ``_meta.ui.visibility`` (both may by default)."""
    meta = definition.get("_meta")
    ui = meta.get("ui") if isinstance(meta, dict) else None
    visibility = ui.get("visibility") if isinstance(ui, dict) else None
    return isinstance(visibility, list) and "model" not in visibility and isinstance(definition.get("name"), str)


def for_legacy(definition: JSON) -> JSON:
    """A tool's definition as clients up to 2025-11-25 can take it; itself where nothing stands in their way.

    Until then both schemas say ``"type": "object"``; a strict client drops the whole list over one that does not. An
    ``inputSchema`` always describes an object, so that it can say so; an ``outputSchema`` need not, and is left out.
    """
    older, schema, output = definition, definition.get("inputSchema"), definition.get("outputSchema")
    if not isinstance(schema, dict):
        older = {**older, "inputSchema": {"type": "object"}}
    elif schema.get("type") != "object":
        older = {**older, "inputSchema": {**schema, "type": "object"}}
    if "outputSchema" in definition and not (isinstance(output, dict) and output.get("type") == "object"):
        older = {name: value for name, value in older.items() if name != "outputSchema"}
    return older


def _with_exposed_meta(server: str, definition: JSON) -> JSON:
    """The definition of a tool with the URI of its user interface (MCP Apps) as aggregates write it."""
    meta = definition.get("_meta")
    if not isinstance(meta, dict):
        return definition
    shown = exposed_meta(server, meta)
    return definition if shown is meta else {**definition, "_meta": shown}


def exposed_meta(server: str, meta: JSON) -> JSON:
    """``_meta`` with ``ui.resourceUri`` as aggregates write it, also in its older flat form; itself without one."""
    shown = meta
    ui, flat = meta.get("ui"), meta.get("ui/resourceUri")
    if isinstance(ui, dict) and isinstance(ui.get("resourceUri"), str):
        shown = {**shown, "ui": {**ui, "resourceUri": expose(server, ui["resourceUri"])}}
    if isinstance(flat, str):
        shown = {**shown, "ui/resourceUri": expose(server, flat)}
    return shown


def _others(listing: Listing, screened: Screened) -> tuple[dict[str, tuple[Tool, ...]], dict[str, dict[str, bytes]]]:
    resources: tuple[Shown, ...] = tuple((each, "") for each in listing.resources)
    lists = {PROMPTS: screened.prompts, RESOURCES: resources, TEMPLATES: screened.templates}
    others: dict[str, tuple[Tool, ...]] = {}
    bodies: dict[str, dict[str, bytes]] = {}
    for method, entries in lists.items():
        if method.partition("/")[0] not in listing.capabilities:
            continue
        found: dict[str, Tool] = {}
        bodies[method] = {}
        for definition, withheld in entries:
            entry, body = _entry(listing.server, method, definition, withheld)
            if entry.name in found:
                log.warning("server %s: %s is listed twice; the first one is shown", listing.server, entry.name[:200])
                continue
            found[entry.name] = entry
            bodies[method][entry.native] = body
        others[method] = tuple(found[name] for name in sorted(found))
    return others, bodies


def _entry(server: str, method: str, definition: JSON, withheld: str) -> tuple[Tool, bytes]:
    """A prompt, resource or template, and its definition as aggregates show it. Getting one is reading."""
    key, prefix = KEYS[method]
    name = definition[key]
    exposed = exposed_name(server, name) if method == PROMPTS else expose(server, name)
    entry = Tool(
        server, prefix + name, exposed, encode(definition), read_only=True, destructive=False, operation="read",
        withheld=withheld,
    )  # fmt: skip
    return entry, encode({**definition, key: exposed})


def _tool(listing: Listing, definition: Mapping[str, Any], classes: Classes, withheld: str) -> Tool | None:
    server, name = listing.server, definition.get("name")
    if not isinstance(name, str) or not name or name.startswith((PROMPT, RESOURCE, METHOD)):
        return None  # a tool must not pass for a prompt or resource in a rule
    try:
        mirrored = header_arguments(definition.get("inputSchema"))
    except BadAnnotation as why:
        log.warning("server %s: tool %r: %s", server, name, why)
        return None
    facts = classes.facts(name, definition.get("annotations"))
    description = definition.get("description")
    return Tool(
        server=server,
        name=name,
        exposed=exposed_name(server, name),
        definition=encode(definition),
        description=description if isinstance(description, str) else "",
        read_only=facts.read_only,
        destructive=facts.destructive,
        idempotent=facts.idempotent,
        open_world=facts.open_world,
        header_arguments=mirrored,
        task_support=task_support(listing, definition),
        operation=facts.operation,
        withheld=withheld,
    )


def held_back(part: Part, held: Mapping[str, str]) -> Part:
    """The part with these entries (``server/name``) held back, and why."""
    if not any(tool.native in held for tool in _all(part)):
        return part
    return msgspec.structs.replace(
        part,
        tools=tuple(_held(tool, held) for tool in part.tools),
        others={method: tuple(_held(each, held) for each in entries) for method, entries in part.others.items()},
    )


def withheld(part: Part) -> list[Tool]:
    """The entries that are neither listed nor callable."""
    return [entry for entry in _all(part) if entry.withheld]


def _all(part: Part) -> Iterator[Tool]:
    yield from part.tools
    for entries in part.others.values():
        yield from entries


def _held(entry: Tool, held: Mapping[str, str]) -> Tool:
    why = held.get(entry.native)
    return entry if why is None or entry.withheld else msgspec.structs.replace(entry, withheld=why)
