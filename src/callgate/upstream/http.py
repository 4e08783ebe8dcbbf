"""Streamable HTTP servers: finding out the era, and plain requests to modern ones."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from callgate.config.model import Server
from callgate.egress import HttpPool, Response
from callgate.errors import UpstreamError, UpstreamUnavailable
from callgate.types import Answer, Call, Conduct, RpcError

from .endpoint import Endpoint, Shown, reply, whole
from .eras import MODERN_ERRORS, fingerprint
from .headers import header_value, param_headers
from .http_legacy import LegacyHttp
from .http_sse import SseChannel
from .link import Circumstances, Hello, Link, NotModern, NotPosted, modern_hello
from .pipe import Pipe
from .purpose import Purpose
from .relay import Relay, wants_progress
from .serverlog import ServerLog
from .wire import (
    LEGACY,
    LIST_CHANGED,
    MODERN,
    Envelope,
    Stamp,
    answer,
    encode,
    error_of,
    has_error,
    params_of,
    request,
    result_object,
)

HEADER_MISMATCH = -32020
WAITING = 512  # connections beside those of running calls
STREAMS = 1024  # streams on which servers speak by themselves
UNSUPPORTED_VERSION = -32022

# What `Mcp-Name` repeats, for each method that has it.
_NAMED = {"prompts/get": "name", "resources/read": "uri"} | {
    f"tasks/{verb}": "taskId" for verb in ("get", "update", "cancel")
}
# A status that says something of the caller or of the moment is no evidence of an era (ERA-2).
_NO_EVIDENCE = frozenset({401, 403, 407, 408, 421, 425, 429})


class ModernHttp:
    """Requests to a modern server. There is no session: each request stands alone."""

    pids: tuple[int, ...] = ()
    stateful = False
    correlates = True

    def __init__(self, endpoint: Endpoint, around: Circumstances, purpose: Purpose) -> None:
        self._endpoint = endpoint
        self._stamp = Stamp("modern", around.client_info)
        self._next_id = around.next_id
        self._purpose = purpose
        self._notice = purpose.notice
        self._heads: dict[str, bytes] = {}
        self.hello = Hello("modern", MODERN)
        self.lost = ""
        self.stale = False

    def _heard(self, relay: Relay) -> Callable[[Envelope], None]:
        """What comes before the answer. Some servers announce another list there, and nowhere else."""

        def heard(message: Envelope) -> None:
            if message.method in LIST_CHANGED:
                self.stale = True
                self._notice()
                if self._purpose.owner is not None:  # who listens for everybody hears nothing of what is its own
                    self._purpose.news(message.method or "", params_of(message))
            else:
                relay.heard(message)

        return heard

    async def call(self, call: Call, conduct: Conduct, deadline: float) -> Answer:
        ident = self._next_id()
        body = self._stamp.call(call, ident, wants_progress(call, conduct))
        try:
            response = await self._endpoint.post(self._head(call), body, deadline, call=call)
        except UpstreamUnavailable as error:
            raise self._gone(error) from None
        if response.events is None:
            message = whole(response, ident)
        else:
            message = await reply(response, ident, self._heard(Relay(call, ident, conduct)))
        said = answer(message, "modern")
        if said.error is not None and said.error.code == HEADER_MISMATCH:
            # The tool's header annotations have changed (HDR-8): list again, so that the next call is right.
            # This call is not repeated here, because what was judged was the old definition.
            self.stale = True
            self._notice()
        return said

    async def request(self, method: str, params: Mapping[str, Any], deadline: float) -> dict[str, Any]:
        ident = self._next_id()
        response = await self._ask(ident, method, params, deadline)
        return result_object(answer(await reply(response, ident, _ignore), "modern"), method)

    async def discover(self, deadline: float) -> None:
        """Fill ``hello``. ``NotModern`` is evidence of a legacy server (ERA-1); other errors are none (ERA-2)."""
        message = await self._discovery(deadline)
        if has_error(message) and _speaks_ours(error_of(message)):
            message = await self._discovery(deadline)  # it refuses the version that it offers: once, that is a hiccup
        if has_error(message):
            _judge(error_of(message))
        self.hello = _discovered(result_object(answer(message, "modern"), "server/discover"))

    async def _discovery(self, deadline: float) -> Envelope:
        ident = self._next_id()
        response = await self._ask(ident, "server/discover", {}, deadline)
        status = response.status
        if status in _NO_EVIDENCE or 300 <= status < 400 or status >= 500:
            await reply(response, ident, _ignore)
            raise UpstreamError(f"answered `server/discover` with HTTP {status}")
        try:
            return await reply(response, ident, _ignore)
        except UpstreamError as error:
            raise NotModern(error.message) from None

    async def listen(self, wanted: Mapping[str, Any], hear: Callable[[str, Mapping[str, Any]], None]) -> Answer:
        """One ``subscriptions/listen``, on a connection of its own, as long as it lasts."""
        ident, method = self._next_id(), "subscriptions/listen"
        body = request(ident, method, encode({"notifications": wanted})[:-1] + b',"_meta":' + self._stamp.own() + b"}")
        response = await self._endpoint.follow(_routing(method, None), body, math.inf)
        heard = partial(_passed_on, hear)
        return answer(await reply(response, ident, heard), "modern")

    def say(self, method: str, params: Mapping[str, Any]) -> None:
        """Modern servers take no notifications over HTTP."""

    async def aclose(self) -> None:
        """Nothing to end."""

    async def _ask(self, ident: int, method: str, params: Mapping[str, Any], deadline: float) -> Response:
        head = b"mcp-protocol-version: %b\r\nmcp-method: %b\r\n" % (MODERN.encode(), method.encode())
        meta = b'"_meta":' + self._stamp.own()
        body = encode(params)[:-1] + (b"," if params else b"") + meta + b"}"
        try:
            return await self._endpoint.post(head, request(ident, method, body), deadline, replay=True)
        except UpstreamUnavailable as error:
            raise self._gone(error) from None

    def _gone(self, error: UpstreamUnavailable) -> UpstreamUnavailable:
        """The link is lost, for the reason that the error names."""
        self.lost = error.message
        self._notice()
        return error

    def _head(self, call: Call) -> bytes:
        tool = call.tool
        if call.method != "tools/call":  # callers choose these names: none is kept
            return _routing(call.method, call.params.get(_NAMED.get(call.method, "")))
        head = self._heads.get(tool.name)
        if head is None:
            if len(self._heads) > 4096:
                self._heads.clear()
            head = self._heads[tool.name] = _routing(call.method, tool.name)
        return head + param_headers(tool, call.arguments) if tool.header_arguments else head


def _routing(method: str, name: object) -> bytes:
    named = b"mcp-name: %b\r\n" % header_value(name) if isinstance(name, str) else b""
    return b"mcp-protocol-version: %b\r\nmcp-method: %b\r\n%b" % (MODERN.encode(), header_value(method), named)


def _passed_on(hear: Callable[[str, Mapping[str, Any]], None], message: Envelope) -> None:
    hear(message.method or "", params_of(message))


def _ignore(message: Envelope) -> None:
    """Notifications before the answer to one of callgate's own requests."""


def _discovered(result: Mapping[str, Any]) -> Hello:
    versions = result.get("supportedVersions")
    if isinstance(versions, list) and MODERN not in versions and any(version in LEGACY for version in versions):
        raise NotModern(f"supports only {versions}")
    return modern_hello(result)


def _speaks_ours(error: RpcError) -> bool:
    supported = error.data.get("supported") if isinstance(error.data, dict) else None
    return error.code == UNSUPPORTED_VERSION and isinstance(supported, list) and MODERN in supported


def _judge(error: RpcError) -> None:
    """Raise what an error on ``server/discover`` means."""
    data = error.data if isinstance(error.data, dict) else {}
    supported = data.get("supported")
    legacy = isinstance(supported, list) and any(version in LEGACY for version in supported)
    if error.code not in MODERN_ERRORS or (error.code == UNSUPPORTED_VERSION and legacy):
        raise NotModern(f"answered `server/discover` with error {error.code}")
    raise UpstreamError(f"is modern but answered `server/discover` with error {error.code}: {error.message[:300]}")


class HttpConnector:
    """Connects to one configured URL. All links share one pool of connections.

    Where ``initialize`` cannot be posted, HTTP+SSE is tried, once for all links: the first one of all finds out.
    """

    def __init__(self, name: str, config: Server, around: Circumstances) -> None:
        self._config = config
        self._around = around
        self._log = ServerLog(around.logs, name, around.references.mask)
        self._credential = around.credential(name, config, around.references)
        self._sse = config.type == "sse"
        # A few more than calls may run: lists, and calls whose clients are being asked, which take no place.
        self._pool = self._connections(config.max_concurrency + WAITING)
        self._streams = self._connections(STREAMS)

    def _connections(self, most: int) -> HttpPool:
        config = self._config
        return HttpPool(
            ca_file=None if config.ca_file is None else str(self._around.base / config.ca_file),
            proxy=config.proxy,
            max_connections=most,
            max_body=config.max_message,
            connect_timeout=config.connect_timeout,
        )

    async def connect(self, purpose: Purpose) -> Link:
        deadline = asyncio.get_running_loop().time() + self._config.connect_timeout
        headers = await self._around.references.all(self._config.headers, fresh=purpose.owner is None)
        url = self._config.url or ""
        shown = None if self._credential is None else Shown(self._credential, purpose.whose)
        endpoint = Endpoint(self._pool.origin(url), headers, streams=self._streams.origin(url), shown=shown)
        if self._sse:
            return await self._over_sse(endpoint, purpose, deadline)
        wanted = purpose.era or self._config.protocol
        key = fingerprint(self._config)
        era = await self._around.eras.recall(key) if wanted == "auto" else wanted
        if era != "legacy":
            try:
                return await self._modern(endpoint, purpose, deadline, None if era == wanted else key)
            except NotModern:
                if wanted == "modern":
                    raise
        link = await self._legacy(endpoint, purpose, deadline)
        if wanted == "auto" and era != "legacy":
            await self._around.eras.remember(key, "legacy")
        return link

    async def _modern(self, endpoint: Endpoint, purpose: Purpose, deadline: float, key: str | None) -> ModernHttp:
        link = ModernHttp(endpoint, self._around, purpose)
        await link.discover(deadline)
        if key is not None:
            await self._around.eras.remember(key, "modern")
        return link

    async def _legacy(self, endpoint: Endpoint, purpose: Purpose, deadline: float) -> Link:
        try:
            return await LegacyHttp.open(endpoint, self._around, purpose, deadline)
        except NotPosted as refused:
            if purpose.owner is not None:
                raise
            try:
                link = await self._over_sse(endpoint, purpose, deadline)
            except UpstreamError as error:
                raise UpstreamError(f"{refused.message}, and as a server of HTTP+SSE {error.message}") from None
            self._sse = True
            return link

    async def _over_sse(self, endpoint: Endpoint, purpose: Purpose, deadline: float) -> Pipe:
        link = Pipe("legacy", self._around, self._log, purpose)
        try:
            await link.start(lambda link: SseChannel.start(endpoint, deadline, link))
            link.show = endpoint.shown.show if endpoint.shown is not None else None
            await link.initialize(deadline)
        except BaseException:
            await link.aclose()
            if purpose.owner is None:  # what was found out may be true no longer
                self._sse = self._config.type == "sse"
            raise
        return link

    async def aclose(self) -> None:
        if self._credential is not None:
            await self._credential.aclose()
        await self._log.aclose()
        await self._pool.aclose()
        await self._streams.aclose()
