"""What a name stands for: from the tool, prompt or resource that a client names to a server's own entry.

A caller learns nothing by guessing: a URI of a server that it may see nothing of is answered like one of a server
that does not exist. The record says what it was.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from callgate.catalog import SEPARATOR, View, flaw
from callgate.errors import Denied, NotFound, UpstreamUnavailable, nearest
from callgate.gateway.guarding import kept_tool, owned
from callgate.gateway.task_ids import unknown as unknown_task
from callgate.types import METHOD, PROMPT, RESOURCE, Tool

if TYPE_CHECKING:
    from callgate.gateway.house import House
    from callgate.gateway.pipeline import Asked

COMPLETE = "completion/complete"
ABOUT_TASKS = frozenset({"tasks/get", "tasks/result", "tasks/update", "tasks/cancel"})


def entry(asked: Asked, view: View) -> Tool | None:
    """The prompt or resource that a request names. What the server is sent names it as the server does."""
    if asked.method in ABOUT_TASKS:  # judged as the tool whose call made the task
        if not asked.name:
            raise unknown_task()
        return view.names.get(asked.name)
    if asked.name.startswith(METHOD):  # at a server's own door only (``calling.forward``)
        return Tool(view.servers[0], asked.name, asked.name, b"{}")
    completes = asked.method == COMPLETE
    found = view.completable(asked.name) if completes else view.readable(asked.name)
    if found is not None and view.aggregate:
        member, prefix = ("name", PROMPT) if found.name.startswith(PROMPT) else ("uri", RESOURCE)
        named = {member: found.name.removeprefix(prefix)}
        params = asked.params
        asked.params = {**params, "ref": {**params["ref"], **named}} if completes else {**params, **named}
    return found


async def resolve(asked: Asked, house: House) -> Tool:
    """The entry behind a name that nobody has listed yet: its server, if still starting, is waited for."""
    if house.guard.on and (kept := owned(asked, house)):
        return await kept_tool(kept, asked, house)
    server = house.catalog.server_of(asked.front.door, asked.name)
    if server is not None and server in house.catalog.unlisted():
        await house.upstreams.settled(server, house.settings.servers[server].connect_timeout)
    await house.personal.prepare(asked.principal, asked.front.door, asked.front.session or "")
    await house.catalog.idle()  # it may have been listed and not yet be shown
    found = house.known(asked)
    if found is not None:
        return found
    if server is not None and server in house.catalog.unlisted():
        _tell_of(server, asked, house)
    if server is not None and house.personal.unread(asked.principal, server):
        tool = _guessed(server, asked, house)
        if _chosen(tool, asked, house) and house.policy.visible(asked.principal, [tool], asked.front):
            return tool  # the server will say what its user has to do first
    raise unknown(asked, house)


def unknown(asked: Asked, house: House) -> NotFound:
    """What is said of a name that leads nowhere, with the nearest one that the caller may see."""
    view, name = house.view_of(asked.front, asked.principal), asked.name
    if name.startswith(RESOURCE):
        missing = view.unknown_resource(name.removeprefix(RESOURCE))
        missing.hint = _meant(name.removeprefix(RESOURCE), view, asked, house)
        return missing
    if name.startswith(PROMPT):
        kind, name, known, entries = "prompt", name.removeprefix(PROMPT), view.prompts, view.entries("prompts/list")
    else:
        kind, known, entries = "tool", view.names, view.tools
    shown = {each.native for each in house.policy.visible(asked.principal, entries, asked.front)}
    close = nearest(name, [exposed for exposed, each in known.items() if each.native in shown])
    return NotFound(f"Unknown {kind}: {name[:128]}.", hint=f"Did you mean {close}?" if close else "")


def _meant(uri: str, view: View, asked: Asked, house: House) -> str:
    """The listed resource that a wrong URI may stand for: on aggregates, often one in its server's own words."""
    if flaw(view.native(uri)[1]):
        return ""  # nothing more is said of those (``View.readable``)
    shown = house.policy.visible(asked.principal, view.entries("resources/list"), asked.front)
    if view.aggregate and (bare := next((each.exposed for each in shown if each.name == RESOURCE + uri), "")):
        return f"At this endpoint it is called {bare}."
    close = nearest(uri, [each.exposed if view.aggregate else each.name.removeprefix(RESOURCE) for each in shown])
    return f"Did you mean {close}?" if close else ""


def veiled(error: Denied, asked: Asked, house: House) -> Denied:
    """A denial as its caller may read it: at an aggregate, a prompt or resource of a server that the caller may see
    nothing of is as unknown as one of a server that does not exist.
    """
    view, tool = house.view_of(asked.front, asked.principal), asked.tool
    if tool is None or not view.aggregate or not asked.name.startswith((PROMPT, RESOURCE)):
        return error
    entries = [*view.tools, *(each for entries in view.others.values() for each in entries)]
    theirs = [each for each in entries if each.server == tool.server]
    if house.policy.visible(asked.principal, [tool, *theirs], asked.front):
        return error
    missing = unknown(asked, house)
    said = error.data or {}
    blank = Denied(missing.message, hint=missing.hint, data={name: said[name] for name in ("callId",) if name in said})
    blank.rpc_code = missing.rpc_code
    return blank


def _tell_of(server: str, asked: Asked, house: House) -> None:
    """Raise ``UpstreamUnavailable`` with the reason why a server has listed nothing yet, to callers it is meant for."""
    tool = _guessed(server, asked, house)
    if _chosen(tool, asked, house) and house.policy.visible(asked.principal, [tool], asked.front):
        asked.tool = tool
        why = next((each.reason for each in house.statuses() if each.name == server), "") or "it is starting"
        raise UpstreamUnavailable(f"Server `{server}` is not available: {why.rstrip('.')}.")


def _guessed(server: str, asked: Asked, house: House) -> Tool:
    """The entry that a name would stand for."""
    name = asked.name
    if name.startswith(RESOURCE):
        name = RESOURCE + house.view_of(asked.front, asked.principal).native(name.removeprefix(RESOURCE))[1]
    elif name.startswith(PROMPT):
        name = PROMPT + name.removeprefix(PROMPT).removeprefix(server + SEPARATOR)
    else:
        name = name.removeprefix(server + SEPARATOR)
    return Tool(server, name, asked.name, b"{}")


def _chosen(tool: Tool, asked: Asked, house: House) -> bool:
    """Whether a door would show an entry, as far as its settings say."""
    kind, _, door = asked.front.door.partition(":")
    if kind != "virtual":
        return True
    virtual = house.settings.virtual_servers[door]
    globs, prefix = virtual.tools, ""
    if tool.name.startswith(PROMPT):
        globs, prefix = virtual.prompts, PROMPT
    elif tool.name.startswith(RESOURCE):
        globs, prefix = virtual.resources, RESOURCE
    return any(fnmatchcase(f"{tool.server}/{tool.name.removeprefix(prefix)}", glob) for glob in globs)
