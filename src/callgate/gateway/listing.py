"""``tools/list`` from the compiled snapshot, filtered by the same policy that judges calls.

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
from callgate.gateway.wire import INVALID_PARAMS
from callgate.types import Front, Principal, Tool

if TYPE_CHECKING:
    from callgate.catalog import View
    from callgate.gateway.house import House

#: Bytes of encoded pages that are kept.
CACHE_BYTES = 8 * 1024 * 1024


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
        self._kept[key] = page
        self._bytes += len(page)
        while self._bytes > CACHE_BYTES:
            self._bytes -= len(self._kept.popitem(last=False)[1])

    def clear(self) -> None:
        self._kept.clear()
        self._bytes = 0


class Cursors:
    """Opaque positions in a list: sealed with AES-GCM, bound to principal and door."""

    def __init__(self, key: Callable[[], bytes]) -> None:
        self._key = key
        self._seal: Any = None

    def seal(self, position: str, who: Principal, door: str) -> str:
        nonce = os.urandom(12)
        sealed = self._cipher().encrypt(nonce, position.encode(), _bound(who, door))
        return base64.urlsafe_b64encode(nonce + sealed).decode()

    def open(self, cursor: object, who: Principal, door: str) -> str:
        """The position of a cursor; raises ``ProtocolError`` (-32602) for one that is not this caller's."""
        try:
            raw = base64.urlsafe_b64decode(str(cursor).encode("ascii"))
            return str(self._cipher().decrypt(raw[:12], raw[12:], _bound(who, door)).decode())
        except Exception:
            raise ProtocolError(
                "The cursor is not valid.", INVALID_PARAMS, hint="Start again without a cursor."
            ) from None

    def _cipher(self) -> Any:
        if self._seal is None:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM

            self._seal = AESGCM(self._key())
        return self._seal


def _bound(who: Principal, door: str) -> bytes:
    return f"tools/list\0{who.key}\0{door}".encode()


def page(house: House, view: View, who: Principal, front: Front, cursor: object) -> bytes:
    """One page of the tools that ``who`` may see, as the JSON of a ``tools/list`` result."""
    after = "" if cursor is None else house.cursors.open(cursor, who, view.door)
    seen_as = house.policy.list_key(who, front)
    # A cursor on a page is bound to one principal, so only lists of a single page are shared between principals.
    single = len(view.tools) <= house.settings.list_page_size
    key = None if seen_as is None else (seen_as, view.door, view.version, front.era, after, None if single else who.key)
    cached = house.pages.get(key) if key is not None else None
    if cached is not None:
        return cached
    tools = house.policy.visible(who, view.tools, front)
    encoded = _encode(_Shown(house, view, who, front), tools, after)
    if key is not None:
        house.pages.put(key, encoded)
    return encoded


class _Shown(NamedTuple):
    house: House
    view: View
    who: Principal
    front: Front


def _encode(to: _Shown, tools: Sequence[Tool], after: str) -> bytes:
    house, view, who, front = to
    start = _position(view, tools, after)
    size = house.settings.list_page_size
    shown = tools[start : start + size]
    body = b",".join([view.definitions[view.by_native[tool.native]] for tool in shown])
    tail = b""
    if start + size < len(tools):
        tail = b',"nextCursor":' + msgspec.json.encode(house.cursors.seal(shown[-1].native, who, view.door))
    if front.era == "modern":
        tail += b',"resultType":"complete","ttlMs":0,"cacheScope":"private"'
    return b'{"tools":[%b]%b}' % (body, tail)


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
