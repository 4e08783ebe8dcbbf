"""The URL of a Streamable HTTP server: how a message is posted, and how its answer is read."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from callgate.egress import Origin, Response, encode_headers
from callgate.errors import ConfigError, UpstreamError
from callgate.types import Call, Occasion, Principal

from .wire import Envelope, has_error, read, read_all

_OURS = re.compile(r"(?i)(host|connection|content-.*|transfer-encoding|accept|mcp-.*)\Z")
_REFUSED = {401: "refused callgate's credentials", 403: "refused access", 429: "is receiving too many requests"}


_PLAIN = re.compile(rb"[\w.~-]+")
_ESCAPED = "\"&'+<>`"

MASKED = b"********"
SHORTEST = 16  # a shorter token is a word like any other
ATTEMPTS = 3  # more, with a nonce that the server wants or another token; a credential says which are worth it


class Credential(Protocol):
    """Shows a server whose request it gets: which caller's, or that it is callgate's own (``names_callers`` false).

    ``hears`` says that it wants to see what the server answers (``heard``).
    """

    names_callers: bool

    @property
    def hears(self) -> bool: ...

    async def lines(self, occasion: Occasion) -> bytes:
        """The header lines of a request, of which the first one ends with the token; or nothing."""

    async def refused(self, occasion: Occasion, lines: bytes, response: Response) -> bool:
        """The server answered 401 or 403 to these lines: whether others are worth a try."""

    def heard(self, occasion: Occasion, response: Response) -> None: ...

    async def aclose(self) -> None: ...


class Whose(msgspec.Struct, frozen=True):
    """Whose a message is that belongs to no call, or cannot be told from one: as it was when it was written."""

    principal: Principal | None
    id: int = 0


class Shown:
    """Whose a link is: ``whose`` is its owner as it was recognised last; ``None`` is callgate itself."""

    def __init__(self, credential: Credential, whose: Principal | None) -> None:
        self.credential = credential
        self.whose = whose

    def show(self, who: Principal) -> None:
        """The next messages on a stream that cannot tell calls apart are of ``who``. Raises UpstreamError."""
        if not self.credential.names_callers:
            return
        before = self.whose
        if before is None or (before.key, before.chain, before.roles) != (who.key, who.chain, who.roles):
            raise UpstreamError("keeps this session for its owner, through the same agents and with the same roles")
        self.whose = who


class Endpoint:
    """Posts messages with the configured headers. Streams that stay open for long have connections of their own
    (``streams``), so that they take none from calls. Nothing of the client's request goes along: not its
    headers, and never its ``Authorization`` (RS-8).

    Where it is ``shown`` whose requests they are: of the call that one is made for, else of the owner of the link.
    """

    def __init__(
        self,
        origin: Origin,
        headers: dict[str, str],
        target: str | None = None,
        streams: Origin | None = None,
        shown: Shown | None = None,
    ) -> None:
        for name in headers:
            if _OURS.match(name):
                raise ConfigError(f"has the header `{name}` configured, which callgate sets itself")
        self._origin = origin
        self._streams = streams or origin
        self._headers = headers
        self.shown = shown
        self.url = origin.address.origin + (target or origin.address.target)
        common = b"user-agent: callgate\r\n" + encode_headers(headers)
        both = b"content-type: application/json\r\naccept: application/json, text/event-stream\r\n"
        self._post = origin.start_line("POST", target) + both + common
        self._get = origin.start_line("GET", target) + b"accept: text/event-stream\r\n" + common
        self._delete = origin.start_line("DELETE", target) + common

    def at(self, target: str) -> Endpoint:
        """The same server and headers at another path."""
        return Endpoint(self._origin, self._headers, target, self._streams, self.shown)

    def post(
        self, headers: bytes, body: bytes, deadline: float, replay: bool = False, call: Call | Whose | None = None
    ) -> Awaitable[Response]:
        if self.shown is not None:

            def send(lines: bytes) -> Awaitable[Response]:
                return self._posted(lines + headers, body, deadline, replay)

            return self._showing(send, "POST", deadline, call)
        data = b"%b%bcontent-length: %d\r\n\r\n%b" % (self._post, headers, len(body), body)
        return self._origin.request(data, deadline, events=True, replay=replay)

    def _posted(self, headers: bytes, body: bytes, deadline: float, replay: bool) -> Awaitable[Response]:
        data = b"%b%bcontent-length: %d\r\n\r\n%b" % (self._post, headers, len(body), body)
        return self._origin.request(data, deadline, events=True, replay=replay)

    async def listen(self, headers: bytes, deadline: float, call: Call | None = None) -> Response:
        def send(shown: bytes) -> Awaitable[Response]:
            data = self._get + shown + headers + b"\r\n"
            return self._streams.request(data, deadline, events=True, replay=True)

        return await self._showing(send, "GET", deadline, call)

    async def follow(self, headers: bytes, body: bytes, deadline: float) -> Response:
        """Post something whose answer is a stream that stays open."""

        def send(shown: bytes) -> Awaitable[Response]:
            data = b"%b%b%bcontent-length: %d\r\n\r\n%b" % (self._post, shown, headers, len(body), body)
            return self._streams.request(data, deadline, events=True, replay=True)

        return await self._showing(send, "POST", deadline, None)

    async def delete(self, headers: bytes, deadline: float) -> Response:
        def send(shown: bytes) -> Awaitable[Response]:
            return self._origin.request(self._delete + shown + headers + b"\r\n", deadline)

        return await self._showing(send, "DELETE", deadline, None)

    async def _showing(
        self, send: Callable[[bytes], Awaitable[Response]], method: str, deadline: float, call: Call | Whose | None
    ) -> Response:
        """Send with the credential of whoever it is for. What a server refused (401, 403) it has not done, so it may be
        sent again where another token, or proof, is to be had.
        """
        shown = self.shown
        if shown is None:
            return await send(b"")
        credential = shown.credential
        who, ident = (shown.whose, 0) if call is None else (call.principal, call.id)
        occasion = Occasion(who, ident, method, self.url, deadline)
        lines = await credential.lines(occasion)
        response = await send(lines)
        for _ in range(ATTEMPTS):
            if response.status not in (401, 403) or not await credential.refused(occasion, lines, response):
                break
            lines = await credential.lines(occasion)
            response = await send(lines)
        if credential.hears and response.status not in (401, 403):
            credential.heard(occasion, response)
        return _hidden(response, lines)


def _hidden(response: Response, lines: bytes) -> Response:
    """A server that repeats the token tells it to nobody (SEC-7)."""
    token = lines.partition(b"\r\n")[0].rpartition(b" ")[2]
    if len(token) < SHORTEST:
        return response
    forms = _written(token)
    if response.events is not None:
        response.events.hide = lambda event: _without(event, forms)
    else:
        response.body = _without(response.body, forms)
    return response


def _written(token: bytes) -> tuple[bytes, ...]:
    """The token as encoders of JSON write it: PHP escapes ``/``, .NET ``+`` and quotes."""
    if _PLAIN.fullmatch(token):
        return (token,)
    text = token.decode("latin-1")
    dotnet = "".join(f"\\u{ord(sign):04X}" if sign in _ESCAPED else sign for sign in text.replace("\\", "\\\\"))
    usual = json.dumps(text)[1:-1]
    return tuple({form.encode(): None for form in (text, usual, usual.replace("/", "\\/"), dotnet)})


def _without(said: bytes, forms: tuple[bytes, ...]) -> bytes:
    for form in forms:
        if form in said:
            said = said.replace(form, MASKED)
    return said


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
