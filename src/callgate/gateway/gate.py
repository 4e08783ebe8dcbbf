"""What is checked on every HTTP request before anybody looks at it: Host, Origin, header limits, duplicates.

A page in a browser can reach a listener on loopback under a name that its author controls (DNS rebinding), so
the Host header must name this listener, and a foreign Origin is refused whatever the method (rule HTTP-3).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING

import msgspec

from callgate.gateway.ladder import HEADER_MISMATCH, ROUTING
from callgate.gateway.wire import INVALID_REQUEST, error
from callgate.types import RpcError

if TYPE_CHECKING:
    from callgate.gateway.front import FrontDesk

#: Headers that two readers could read differently when they are sent twice.
SINGLE = {
    b"host", b"origin", b"authorization", b"content-length", b"content-type", b"mcp-session-id", b"dpop",
    b"client-cert", b"client-cert-chain", b"x-forwarded-client-cert", *ROUTING,
}  # fmt: skip
Pairs = Sequence[tuple[bytes, bytes]]

#: Remembered verdicts on Host and Origin values; a flood of different ones only empties the memory.
REMEMBERED = 512


class Refusal(msgspec.Struct, frozen=True):
    """Why a request is not let in: an HTTP status, a sentence, a JSON-RPC code."""

    status: int
    message: str
    rpc_code: int = INVALID_REQUEST

    def response(self) -> bytes:
        body = error(None, RpcError(self.rpc_code, self.message))
        phrase = HTTPStatus(self.status).phrase
        return (
            f"HTTP/1.1 {self.status} {phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        ).encode() + body


class Names:
    """The Host and Origin values that this listener answers to."""

    def __init__(self, host: str, port: int, hosts: Iterable[str], origins: Iterable[str]) -> None:
        self._loopback = is_loopback(host)
        self._listen = host
        self._port = port
        self._hosts = {name.lower() for name in hosts}
        self._origins = {origin.lower().rstrip("/") for origin in origins}
        self._known: dict[tuple[str, bytes], bool] = {}

    def host(self, raw: bytes) -> bool:
        return self._remember("host", raw)

    def origin(self, raw: bytes) -> bool:
        return self._remember("origin", raw)

    def _remember(self, kind: str, raw: bytes) -> bool:
        verdict = self._known.get((kind, raw))
        if verdict is None:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            text = raw.decode("latin-1").lower()
            verdict = self._known[kind, raw] = self._own_host(text) if kind == "host" else self._own_origin(text)
        return verdict

    def _own_host(self, text: str) -> bool:
        name, port = split_host(text)
        if text in self._hosts or name in self._hosts:
            return True
        if port is not None and not port.isdigit():
            return False
        if self._loopback:
            return is_loopback(name)
        # A rebinding attack needs a name; an address can only be this machine's own.
        return is_address(name) or name == self._listen.lower()

    def _own_origin(self, text: str) -> bool:
        if text in self._origins:
            return True
        scheme, _, rest = text.partition("://")
        if scheme not in ("http", "https") or "/" in rest:
            return False
        name, port = split_host(rest)
        own = port == str(self._port) if port else self._port == (443 if scheme == "https" else 80)
        return own and self._own_host(name if not port else rest)


def split_host(text: str) -> tuple[str, str | None]:
    """Name and port of a Host header.

    >>> split_host("[::1]:8080"), split_host("localhost")
    (('::1', '8080'), ('localhost', None))
    >>> split_host("[::1"), split_host("[::1]x:80")
    (('[::1', None), ('[::1]x:80', None))
    """
    if text.startswith("["):
        name, end, port = text[1:].partition("]")
        if not end or (port and not port.startswith(":")):
            return text, None
        return name, port[1:] if port else None
    name, colon, port = text.partition(":")
    return name, port if colon else None


def is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(name: str) -> bool:
    return name == "localhost" or (is_address(name) and ipaddress.ip_address(name).is_loopback)


def admit(headers: Pairs, by_name: Mapping[bytes, bytes], size: int, desk: FrontDesk) -> Refusal | None:
    """``None`` for a request that may come in, or why it may not. ``size`` is that of request line and headers."""
    limits = desk.limits
    if len(headers) > limits.max_headers:
        return Refusal(431, f"There are more than {limits.max_headers} headers.")
    most = limits.max_header_bytes
    if size > most:
        return Refusal(431, f"The headers are larger than {most} bytes.")
    if len(by_name) != len(headers) and (twice := _twice(headers)) is not None:
        code = HEADER_MISMATCH if twice in ROUTING else INVALID_REQUEST
        return Refusal(400, f"The header {twice.decode()} is sent twice.", code)
    host = by_name.get(b"host")
    if host is None or not desk.names.host(host):
        return Refusal(421, "This listener does not answer to that Host; see `allowed_hosts`.")
    origin = by_name.get(b"origin")
    if origin is not None and not desk.names.origin(origin):
        return Refusal(403, "Pages of that Origin may not call; see `allowed_origins`.")
    return None


def _twice(headers: Sequence[tuple[bytes, bytes]]) -> bytes | None:
    seen: set[bytes] = set()
    for name, _ in headers:
        if name in SINGLE and name in seen:
            return name
        seen.add(name)
    return None
