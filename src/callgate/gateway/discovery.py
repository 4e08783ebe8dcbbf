"""What a door says of itself: ``server/discover`` (modern) and ``initialize`` (legacy). Neither waits for a server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from callgate import __version__
from callgate.catalog import DECLARED, TASKS, View, offers_tasks
from callgate.errors import ProtocolError
from callgate.gateway.ladder import LEGACY_VERSIONS, MODERN_VERSIONS, PREFIX
from callgate.gateway.session import Session, Transport
from callgate.gateway.wire import INVALID_PARAMS, encode
from callgate.types import Front, Listing, Principal

if TYPE_CHECKING:
    from callgate.gateway.house import House

#: Instructions of all servers together are cut at this many characters.
INSTRUCTIONS_LIMIT = 8192


def discover(house: House, view: View, who: Principal, front: Front) -> bytes:
    """The ``server/discover`` result: capabilities that callgate itself can keep, for every server behind the door."""
    shown, listings = _shown(house, view, who, front), _listings(house, view, who)
    result: dict[str, Any] = {
        "supportedVersions": list(MODERN_VERSIONS),
        "capabilities": _capabilities(listings, view, shown, modern=True),
        "resultType": "complete",
        "ttlMs": 0,
        "cacheScope": "private",
        "_meta": {PREFIX + "serverInfo": _info(house, view, shown)},
    }
    seen = [each for each in listings if each.server in shown]
    return encode(_instructed(result, view, seen, _invitation(house, who, front)))


def initialize(
    house: House, view: View, who: Principal, params: dict[str, Any], transport: Transport
) -> tuple[Session, bytes]:
    """Open a session and give the ``initialize`` result; an unknown version is answered with the newest legacy one."""
    asked, capabilities = params.get("protocolVersion"), params.get("capabilities", {})
    if not isinstance(asked, str) or not isinstance(capabilities, dict):
        raise ProtocolError(
            "initialize needs `protocolVersion` (a string) and `capabilities` (an object).", INVALID_PARAMS
        )
    version = asked if asked in LEGACY_VERSIONS else LEGACY_VERSIONS[-1]
    session = house.sessions.open(who, view.door, version, capabilities, transport)
    shown, listings = _shown(house, view, who, session.front), _listings(house, view, who)
    result: dict[str, Any] = {
        "protocolVersion": version,
        "capabilities": _capabilities(listings, view, shown, modern=False),
        "serverInfo": _info(house, view, shown),
    }
    seen = [each for each in listings if each.server in shown]
    return session, encode(_instructed(result, view, seen, _invitation(house, who, session.front)))


def _listings(house: House, view: View, who: Principal) -> list[Listing]:
    """What is known of the servers behind the door; of personal ones, what they list to this caller."""
    listings = [house.catalog.parts[name].listing for name in view.servers if name in house.catalog.parts]
    return [house.personal.listing(who.key, each.server) or each for each in listings]


def _capabilities(listings: list[Listing], view: View, shown: set[str], *, modern: bool) -> dict[str, Any]:
    """What the servers behind the door offer and callgate can relay. Tools always; logging where a server logs, or has
    not yet said whether it does.
    """
    offered = [each.capabilities for each in listings]
    found: dict[str, Any] = {"tools": {"listChanged": True}}
    if "prompts/list" in view.others:
        found["prompts"] = {"listChanged": True}
    if "resources/list" in view.others:
        subscribe = any(_member(each, "resources").get("subscribe") is True for each in offered)
        found["resources"] = {"listChanged": True, **({"subscribe": True} if subscribe else {})}
    if len(listings) < len(view.servers) or any("logging" in each for each in offered):
        found["logging"] = {}
    if any("completions" in each for each in offered):
        found["completions"] = {}
    seen = [each for each in listings if each.server in shown]
    return found | _beyond(view, seen, modern=modern)


def _beyond(view: View, seen: list[Listing], *, modern: bool) -> dict[str, Any]:
    """What goes beyond the core: everything at a server's own door, where methods of all kinds reach the server; on an
    aggregate only what names its server by itself (rule EXT-2). MCP Apps do not: an app calls tools by the names of its
    own server, which an aggregate does not know (rule APP-1).
    """
    found: dict[str, Any] = {}
    for each in () if view.aggregate else (listing.capabilities for listing in seen):
        extensions = {name: value for name, value in _member(each, "extensions").items() if name != TASKS}
        found |= {"extensions": extensions} if extensions else {}
        found |= {"experimental": each["experimental"]} if "experimental" in each else {}
    if any(map(offers_tasks, seen)):  # of either era: callgate speaks both to both
        if modern:
            found["extensions"] = {**found.get("extensions", {}), TASKS: {}}
        else:
            found["tasks"] = DECLARED
    return found


def _member(capabilities: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = capabilities.get(name)
    return value if isinstance(value, dict) else {}


def _shown(house: House, view: View, who: Principal, front: Front) -> set[str]:
    """The servers of which the caller may see something; nothing is said of the others."""
    entries = [*view.tools, *(entry for entries in view.others.values() for entry in entries)]
    return {entry.server for entry in house.policy.visible(who, entries, front)}


def _info(house: House, view: View, shown: set[str]) -> dict[str, Any]:
    kind, _, name = view.door.partition(":")
    if kind == "server" and name in house.catalog.parts and name in shown:
        own = house.catalog.parts[name].listing.server_info
        if isinstance(own.get("name"), str) and isinstance(own.get("version"), str):
            return dict(own)
    return {"name": f"callgate/{name}" if name else "callgate", "version": __version__}


def _invitation(house: House, who: Principal, front: Front) -> str:
    """Which servers wait for the caller to sign in to them, and where that is done."""
    waiting = house.personal.missing(who, front)
    if not waiting:
        return ""
    names = ", ".join(f"`{name}`" for name in waiting)
    return f"Not shown before the user has signed in to them at {house.public_url}/oauth/connections: {names}."


def _instructed(result: dict[str, Any], view: View, seen: list[Listing], invitation: str) -> dict[str, Any]:
    """Add the instructions of the servers of which the caller may see something."""
    parts = [text for text in (view.description, invitation) if text]
    for each in seen:
        if each.instructions:
            parts.append(each.instructions if not view.aggregate else f"[{each.server}] {each.instructions}")
    if parts:
        result["instructions"] = "\n\n".join(parts)[:INSTRUCTIONS_LIMIT]
    return result
