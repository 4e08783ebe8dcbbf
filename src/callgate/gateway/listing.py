"""Lists from the compiled snapshot, filtered by the same policy that judges calls.

Pages are cached by everything that decides their content: view version, what the policy lets the caller see, the
era, the position. A filtered list is private (rule CACHE-10). Cursors are sealed, bound to the principal and the
door, and name the last tool shown, so that they survive changes of the list (rule CACHE-11).
"""

from __future__ import annotations

import base64
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from callgate.errors import ProtocolError
from callgate.gateway.caching import of_list
from callgate.gateway.wire import INVALID_PARAMS
from callgate.types import Front, Principal, Tool

if TYPE_CHECKING:
    from callgate.catalog import View
    from callgate.gateway.house import House

#: The member that holds the entries of each list.
MEMBERS = {
    "tools/list": b"tools",
    "prompts/list": b"prompts",
    "resources/list": b"resources",
    "resources/templates/list": b"resourceTemplates",
}
#: The member of ``_meta`` that says what a call must reckon with.
DECISION = "callgate/decision"
#: Bytes of encoded pages that are kept.
CACHE_BYTES = 8 * 1024 * 1024


class Listed(NamedTuple):
    """A list as somebody asked for it."""

    method: str
    view: View
    who: Principal
    front: Front


class Pages:
    """Encoded pages by key, bounded by their size; the least recently used go first."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Any, bytes] = OrderedDict()
        self._bytes = 0

    def get(self, key: Any) -> bytes | None:
        page = self._kept.get(key)
        if page is not None:
            self._kept.move_to_end(key)
        return page

    def put(self, key: Any, page: bytes) -> None:
        self._bytes += len(page) - len(self._kept.pop(key, b""))
        self._kept[key] = page
        while self._bytes > CACHE_BYTES:
            self._bytes -= len(self._kept.popitem(last=False)[1])

    def clear(self) -> None:
        self._kept.clear()
        self._bytes = 0


class Cursors:
    """Opaque positions in a list: sealed with AES-GCM, bound to the list, the principal and the door."""

    def __init__(self, key: Callable[[], bytes]) -> None:
        self._key = key
        self._seal: Any = None

    def seal(self, position: str, asked: Listed) -> str:
        nonce = os.urandom(12)
        sealed = self._cipher().encrypt(nonce, position.encode(), _bound(asked))
        return base64.urlsafe_b64encode(nonce + sealed).decode()

    def open(self, cursor: object, asked: Listed) -> str:
        """The position of a cursor; raises ``ProtocolError`` (-32602) for one that is not this caller's."""
        try:
            raw = base64.b64decode(str(cursor).encode("ascii"), b"-_", validate=True)
            return str(self._cipher().decrypt(raw[:12], raw[12:], _bound(asked)).decode())
        except Exception:
            raise ProtocolError(
                "The cursor is not valid.", INVALID_PARAMS, hint="Start again without a cursor."
            ) from None

    def _cipher(self) -> Any:
        if self._seal is None:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM

            self._seal = AESGCM(self._key())
        return self._seal


def _bound(asked: Listed) -> bytes:
    return f"{asked.method}\0{asked.who.key}\0{asked.view.door}".encode()


def page(house: House, asked: Listed, cursor: object) -> bytes:
    """One page of what the caller may see, as the JSON of a list result."""
    after = "" if cursor is None else house.cursors.open(cursor, asked)
    key = _key(house, asked, after)
    cached = house.pages.get(key) if key is not None else None
    if cached is not None:
        return cached
    encoded = _encode(house, asked, after)
    if key is not None:
        house.pages.put(key, encoded)
    return encoded


def _key(house: House, asked: Listed, after: str) -> Any:
    """Everything that decides what a page holds; ``None`` when it must not be kept."""
    method, view, who, front = asked
    seen_as = house.policy.list_key(who, front)
    if seen_as is None:
        return None
    # A cursor on a page is bound to one principal, so only lists of a single page are shared between principals.
    reader = None if len(view.entries(method)) <= house.settings.list_page_size else who.key
    return who.tenant, method, seen_as, view.door, view.version, front.era, after, reader


def _encode(house: House, asked: Listed, after: str) -> bytes:
    method, view, who, front = asked
    visible = house.policy.visible(who, view.entries(method), front)
    start = _position(view, visible, after)
    size = house.settings.list_page_size
    shown = visible[start : start + size]
    if house.policy.depends:
        body = b",".join([_marked(view.definition(method, tool, front.era), tool, asked, house) for tool in shown])
    else:
        body = b",".join([view.definition(method, tool, front.era) for tool in shown])
    tail = b""
    if start + size < len(visible):
        tail = b',"nextCursor":' + msgspec.json.encode(house.cursors.seal(shown[-1].native, asked))
    if front.era == "modern":
        lasting = house.policy.list_key(who, front) is not None
        ttl, public = of_list(house, view, method, lasting=lasting)
        tail += b',"resultType":"complete","ttlMs":%d,"cacheScope":"%b"' % (ttl, b"public" if public else b"private")
    return b'{"%b":[%b]%b}' % (MEMBERS[method], body, tail)


def _marked(definition: bytes, tool: Tool, asked: Listed, house: House) -> bytes:
    """A definition that says what a call must reckon with, where it would not simply be allowed: ``ask`` (a human
    approves), ``arguments`` (it depends on them), ``scopes`` (the token needs more).
    """
    outlook = house.policy.outlook(asked.who, tool, asked.front)
    if outlook in ("allow", "deny"):
        return definition
    members = msgspec.json.decode(definition)
    meta = members.get("_meta")
    members["_meta"] = {**(meta if isinstance(meta, dict) else {}), DECISION: outlook}
    return msgspec.json.encode(members)


def _position(view: View, tools: Sequence[Tool], after: str) -> int:
    """The index of the first tool behind ``after``; where that tool is gone, of the first that would follow it."""
    if not after:
        return 0
    server, _, name = after.partition("/")
    order = {each: index for index, each in enumerate(view.servers)}
    mark = (order.get(server, -1), name)
    for index, tool in enumerate(tools):
        if (order.get(tool.server, -1), tool.name) > mark:
            return index
    return len(tools)
