"""Streamable HTTP servers: finding out the era, and plain requests to modern ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from callgate.config.model import Server
from callgate.egress import HttpPool, Response
from callgate.errors import UpstreamError, UpstreamUnavailable
from callgate.types import Answer, Call, RpcError

from .endpoint import Endpoint, reply, whole
from .eras import MODERN_ERRORS, fingerprint
from .headers import header_value, param_headers
from .http_legacy import LegacyHttp
from .link import Circumstances, Hello, Link, Notice, NotModern, modern_hello
from .references import resolve_all
from .relay import Emit, Relay
from .wire import LEGACY, MODERN, Envelope, Stamp, answer, encode, error_of, has_error, request, result_object

HEADER_MISMATCH = -32020
UNSUPPORTED_VERSION = -32022

# A status that says something of the caller or of the moment is no evidence of an era (ERA-2).
_NO_EVIDENCE = frozenset({401, 403, 407, 408, 421, 425, 429})


class ModernHttp:
    """Requests to a modern server. There is no session: each request stands alone."""

    pids: tuple[int, ...] = ()

    def __init__(self, endpoint: Endpoint, stamp: Stamp, next_id: Callable[[], int], notice: Notice) -> None:
        self._endpoint = endpoint
        self._stamp = stamp
        self._next_id = next_id
        self._notice = notice
        self._heads: dict[str, bytes] = {}
        self.hello = Hello("modern", MODERN)
        self.lost = ""
        self.stale = False

    async def call(self, call: Call, emit: Emit | None, deadline: float) -> Answer:
        ident = self._next_id()
        relay = Relay(call, ident, emit)
        body = self._stamp.call(call, ident, relay.wants_progress)
        response = await self._post(self._head(call), body, deadline, False)
        message = whole(response, ident) if response.events is None else await reply(response, ident, relay.heard)
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
        ident = self._next_id()
        response = await self._ask(ident, "server/discover", {}, deadline)
        status = response.status
        if status in _NO_EVIDENCE or 300 <= status < 400 or status >= 500:
            await reply(response, ident, _ignore)
            raise UpstreamError(f"answered `server/discover` with HTTP {status}")
        try:
            message = await reply(response, ident, _ignore)
        except UpstreamError as error:
            raise NotModern(error.message) from None
        if has_error(message):
            _judge(error_of(message))
        self.hello = _discovered(result_object(answer(message, "modern"), "server/discover"))

    async def aclose(self) -> None:
        """Nothing to end."""

    async def _ask(self, ident: int, method: str, params: Mapping[str, Any], deadline: float) -> Response:
        head = b"mcp-protocol-version: %b\r\nmcp-method: %b\r\n" % (MODERN.encode(), method.encode())
        meta = b'"_meta":' + self._stamp.own()
        body = encode(params)[:-1] + (b"," if params else b"") + meta + b"}"
        return await self._post(head, request(ident, method, body), deadline, True)

    async def _post(self, head: bytes, body: bytes, deadline: float, replay: bool) -> Response:
        try:
            return await self._endpoint.post(head, body, deadline, replay)
        except UpstreamUnavailable as error:
            self.lost = error.message
            self._notice()
            raise

    def _head(self, call: Call) -> bytes:
        tool = call.tool
        if call.method != "tools/call":  # callers choose these names: none is kept
            return _routing(call.method, tool.name.partition(":")[2])
        head = self._heads.get(tool.name)
        if head is None:
            if len(self._heads) > 4096:
                self._heads.clear()
            head = self._heads[tool.name] = _routing(call.method, tool.name)
        return head + param_headers(tool, call.arguments) if tool.header_arguments else head


def _routing(method: str, name: str) -> bytes:
    return b"mcp-protocol-version: %b\r\nmcp-method: %b\r\nmcp-name: %b\r\n" % (
        MODERN.encode(),
        method.encode(),
        header_value(name),
    )


def _ignore(message: Envelope) -> None:
    """Notifications before the answer to one of callgate's own requests."""


def _discovered(result: Mapping[str, Any]) -> Hello:
    versions = result.get("supportedVersions")
    if isinstance(versions, list) and MODERN not in versions and any(version in LEGACY for version in versions):
        raise NotModern(f"supports only {versions}")
    return modern_hello(result)


def _judge(error: RpcError) -> None:
    """Raise what an error on ``server/discover`` means."""
    data = error.data if isinstance(error.data, dict) else {}
    supported = data.get("supported")
    legacy = isinstance(supported, list) and any(version in LEGACY for version in supported)
    if error.code not in MODERN_ERRORS or (error.code == UNSUPPORTED_VERSION and legacy):
        raise NotModern(f"answered `server/discover` with error {error.code}")
    raise UpstreamError(f"is modern but answered `server/discover` with error {error.code}: {error.message[:300]}")


class HttpConnector:
    """Connects to one configured URL. All links share one pool of connections."""

    def __init__(self, config: Server, around: Circumstances) -> None:
        self._config = config
        self._around = around
        self._pool = HttpPool(
            ca_file=None if config.ca_file is None else str(around.base / config.ca_file),
            proxy=config.proxy,
            # A few more than calls may run: lists, the stream of a legacy server, its answers.
            max_connections=config.max_concurrency + 8,
            max_body=config.max_message,
            connect_timeout=config.connect_timeout,
        )

    async def connect(self, notice: Notice) -> Link:
        deadline = asyncio.get_running_loop().time() + self._config.connect_timeout
        headers = await asyncio.to_thread(resolve_all, self._config.headers, self._around.resolve)
        endpoint = Endpoint(self._pool.origin(self._config.url or ""), headers)
        wanted = self._config.protocol
        key = fingerprint(self._config)
        era = await self._around.eras.recall(key) if wanted == "auto" else wanted
        if era != "legacy":
            try:
                return await self._modern(endpoint, notice, deadline, None if era == wanted else key)
            except NotModern:
                if wanted == "modern":
                    raise
        link = await LegacyHttp.open(endpoint, self._around.client_info, self._around.next_id, notice, deadline)
        if wanted == "auto" and era != "legacy":
            await self._around.eras.remember(key, "legacy")
        return link

    async def _modern(self, endpoint: Endpoint, notice: Notice, deadline: float, key: str | None) -> ModernHttp:
        link = ModernHttp(endpoint, Stamp("modern", self._around.client_info), self._around.next_id, notice)
        await link.discover(deadline)
        if key is not None:
            await self._around.eras.remember(key, "modern")
        return link

    async def aclose(self) -> None:
        await self._pool.aclose()
