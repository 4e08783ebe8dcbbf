"""What every way to a server has in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec

from callgate.config.model import Server
from callgate.errors import UpstreamError
from callgate.types import Answer, Call, Conduct, Era

from .endpoint import Credential
from .eras import Eras
from .purpose import Purpose
from .references import References
from .wire import HOP, LEGACY, MODERN


class Hello(msgspec.Struct, frozen=True):
    """What the server said of itself when the link was made."""

    era: Era
    version: str
    capabilities: Mapping[str, Any] = msgspec.field(default_factory=dict)
    server_info: Mapping[str, Any] = msgspec.field(default_factory=dict)
    instructions: str = ""


class NotModern(UpstreamError):
    """The server's answer shows that it speaks the legacy era."""


class NotLegacy(UpstreamError):
    """The server's answer shows that it keeps no legacy sessions."""


class NotPosted(NotLegacy):
    """The server takes no ``initialize`` at this URL, as servers of HTTP+SSE do."""


def unshown(name: str, server: Server, references: References) -> Credential | None:
    """For houses that show nobody's identity to servers."""
    return None


class Circumstances(msgspec.Struct, frozen=True):
    """What a connector needs besides the configuration of its server. ``credential`` makes what shows the server who
    calls, where its configuration wants that.
    """

    references: References
    eras: Eras
    client_info: Mapping[str, Any]
    next_id: Callable[[], int]
    base: Path
    logs: Path
    credential: Callable[[str, Server, References], Credential | None] = unshown


class Link(Protocol):
    """One session with a server: a process, an HTTP session, or plain requests to a modern HTTP server.

    ``lost`` says why the link has ended (``""`` while it lives), ``stale`` that the server announced another
    list of tools. Whoever owns the link is told through its purpose. ``stateful``: the server may keep something
    for this link that others must not meet. ``correlates``: what it says about a call comes on the call's own stream.
    """

    hello: Hello
    lost: str
    stale: bool
    correlates: bool

    @property
    def stateful(self) -> bool: ...

    @property
    def pids(self) -> tuple[int, ...]: ...

    async def call(self, call: Call, conduct: Conduct, deadline: float) -> Answer:
        """Exactly one request of a client. The deadline is on the loop's clock; giving up tells the server."""

    async def request(self, method: str, params: Mapping[str, Any], deadline: float) -> dict[str, Any]:
        """One of callgate's own requests."""

    def say(self, method: str, params: Mapping[str, Any]) -> None:
        """Send a notification that may as well get lost."""

    async def aclose(self) -> None: ...


class Connector(Protocol):
    """Makes links to one configured server; remembers its era."""

    async def connect(self, purpose: Purpose) -> Link: ...

    async def aclose(self) -> None: ...


def modern_hello(result: Mapping[str, Any]) -> Hello:
    """Read a ``server/discover`` result."""
    versions = result.get("supportedVersions")
    if not isinstance(versions, list):
        # Some legacy servers answer whatever they are asked; this is no answer to `server/discover`.
        raise NotModern("answered `server/discover` without the versions that it supports")
    if MODERN not in versions:
        raise UpstreamError(f"does not speak {MODERN}, only {versions}")
    meta = _mapping(result.get("_meta"))
    info = meta.get(f"{HOP}serverInfo") or result.get("serverInfo")
    return Hello("modern", MODERN, _mapping(result.get("capabilities")), _mapping(info), _text(result))


def legacy_hello(result: Mapping[str, Any]) -> Hello:
    """Read an ``initialize`` result."""
    version = result.get("protocolVersion")
    if version not in LEGACY:
        raise UpstreamError(f"chose protocol version {version!r}, which callgate does not speak")
    info = _mapping(result.get("serverInfo"))
    return Hello("legacy", str(version), _mapping(result.get("capabilities")), info, _text(result))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(result: Mapping[str, Any]) -> str:
    text = result.get("instructions")
    return text if isinstance(text, str) else ""
