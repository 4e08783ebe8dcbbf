"""The URL of a Streamable HTTP server: how a message is posted, and how its answer is read."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

from callgate.egress import Origin, Response, encode_headers
from callgate.errors import ConfigError, UpstreamError

from .wire import Envelope, has_error, read, read_all

_OURS = re.compile(r"(?i)(host|connection|content-.*|transfer-encoding|accept|mcp-.*)\Z")
_REFUSED = {401: "refused callgate's credentials", 403: "refused access", 429: "is receiving too many requests"}


class Endpoint:
    """Posts messages with the configured headers. Streams that stay open for long have connections of their own
    (``streams``), so that they take none from calls. Nothing of the client's request goes along: not its
    headers, and never its ``Authorization`` (RS-8).
    """

    def __init__(
        self, origin: Origin, headers: dict[str, str], target: str | None = None, streams: Origin | None = None
    ) -> None:
        for name in headers:
            if _OURS.match(name):
                raise ConfigError(f"has the header `{name}` configured, which callgate sets itself")
        self._origin = origin
        self._streams = streams or origin
        self._headers = headers
        self.url = origin.address.origin + (target or origin.address.target)
        common = b"user-agent: callgate\r\n" + encode_headers(headers)
        both = b"content-type: application/json\r\naccept: application/json, text/event-stream\r\n"
        self._post = origin.start_line("POST", target) + both + common
        self._get = origin.start_line("GET", target) + b"accept: text/event-stream\r\n" + common
        self._delete = origin.start_line("DELETE", target) + common

    def at(self, target: str) -> Endpoint:
        """The same server and headers at another path."""
        return Endpoint(self._origin, self._headers, target, self._streams)

    def post(self, headers: bytes, body: bytes, deadline: float, replay: bool = False) -> Awaitable[Response]:
        data = b"%b%bcontent-length: %d\r\n\r\n%b" % (self._post, headers, len(body), body)
        return self._origin.request(data, deadline, events=True, replay=replay)

    async def listen(self, headers: bytes, deadline: float) -> Response:
        return await self._streams.request(self._get + headers + b"\r\n", deadline, events=True, replay=True)

    async def follow(self, headers: bytes, body: bytes, deadline: float) -> Response:
        """Post something whose answer is a stream that stays open."""
        data = b"%b%bcontent-length: %d\r\n\r\n%b" % (self._post, headers, len(body), body)
        return await self._streams.request(data, deadline, events=True, replay=True)

    async def delete(self, headers: bytes, deadline: float) -> Response:
        return await self._origin.request(self._delete + headers + b"\r\n", deadline)


class NoAnswer(UpstreamError):
    """An event stream has ended in good order, before it came to the answer."""


async def reply(response: Response, ident: int, heard: Callable[[Envelope], None]) -> Envelope:
    """The answer to request ``ident``. What comes before it on an event stream is given to ``heard``.

    ``UpstreamError``: an answer to another request, no answer, or an HTTP status that carries no JSON-RPC.
    """
    return whole(response, ident) if response.events is None else await _streamed(response, ident, heard)


def whole(response: Response, ident: int) -> Envelope:
    """The answer to request ``ident`` in a response that is no event stream; errors as in ``reply``."""
    if response.status != 200:
        return _refusal(response)
    message = read(response.body)
    if message.method is not None or message.id != ident:
        raise UpstreamError("answered a request that was not asked")
    return message


async def _streamed(response: Response, ident: int, heard: Callable[[Envelope], None]) -> Envelope:
    events = response.events
    assert events is not None
    try:
        while (event := await events.next()) is not None:
            if not event:
                continue
            found = None
            for message in read_all(event):
                if message.method is not None:
                    heard(message)
                elif message.id != ident:
                    raise UpstreamError("answered a request that was not asked")
                else:
                    found = message
            if found is not None:
                events.finish()
                return found
    except BaseException:
        # The caller gave up (this cancels the request at a modern server, HTTP-14) or the stream is unusable.
        events.close()
        raise
    raise NoAnswer("ended its event stream without an answer")


def _refusal(response: Response) -> Envelope:
    """A JSON-RPC error that came with an HTTP error status; without one the status is all there is."""
    status = response.status
    if 300 <= status < 400:
        raise refusal(status, "")
    if status >= 400 and status not in (401, 403):
        try:
            message = read(response.body)
        except UpstreamError:
            message = Envelope()
        if has_error(message):
            return message
    raise refusal(status, "answered without a JSON-RPC message")


def refusal(status: int, otherwise: str) -> UpstreamError:
    """What an HTTP status says that came instead of something usable."""
    if 300 <= status < 400:
        return UpstreamError(f"redirects ({status}); callgate does not follow redirects of servers")
    return UpstreamError(f"{_REFUSED.get(status, otherwise)} (HTTP {status})")
