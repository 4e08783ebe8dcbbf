"""Where the answer of a sign-in arrives: a port on the loopback interface, open for that long (RFC 8252, section 7.3).

Every page in the browser, and every program on this machine, can send requests to it. One answer is taken: the one with
the ``state`` that only the gateway was told. Nothing of a request is shown on a page.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import secrets
from types import TracebackType
from typing import Self
from urllib.parse import parse_qsl

from callgate.errors import CallgateError, Denied, Unauthenticated

PATH = "/callback"
#: Bytes of a request's head, and seconds for it to arrive.
HEAD, PATIENCE = 16 * 1024, 5.0
#: What is told to the user as it came; other codes are anybody's text (RFC 6749, section 4.1.2.1).
KNOWN = frozenset({
    "invalid_request", "unauthorized_client", "unsupported_response_type", "invalid_scope", "server_error",
    "temporarily_unavailable", "invalid_target", "login_required", "consent_required", "interaction_required",
})  # fmt: skip
_STYLE = (
    ":root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:30rem;margin:20vh auto;"
    "padding:0 1.5rem}"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS = (
    "content-type: text/html; charset=utf-8\r\ncache-control: no-store\r\nreferrer-policy: no-referrer\r\n"
    "x-content-type-options: nosniff\r\nx-frame-options: DENY\r\nconnection: close\r\n"
    f"content-security-policy: default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; frame-ancestors 'none'; "
    "base-uri 'none'\r\n"
)
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 410: "Gone"}
_REASONS |= {421: "Misdirected Request"}


class _NotIt(Exception):
    """A request that is not the answer: it is refused with this status, and the answer is still waited for."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Receiver:
    """``async with Receiver(issuer, iss_required) as receiver``: sends nobody anywhere, only listens.

    ``issuer`` is whose answer is waited for; with ``iss_required`` an answer that does not name it is refused
    (RFC 9207, section 2.4).
    """

    def __init__(self, issuer: str, iss_required: bool) -> None:
        self.state = secrets.token_urlsafe(32)
        self._issuer = issuer
        self._iss_required = iss_required

    async def __aenter__(self) -> Self:
        self._answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=HEAD)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        if self._answer.done() and not self._answer.cancelled():
            self._answer.exception()  # nobody may have waited for it
        self._answer.cancel()

    @property
    def redirect_uri(self) -> str:
        return f"http://127.0.0.1:{self.port}{PATH}"

    async def code(self, timeout: float) -> str:
        """The authorization code. Raises Unauthenticated when nobody signed in for ``timeout`` seconds or the answer
        is not the gateway's, Denied when the sign-in was refused.
        """
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.shield(self._answer)
        except TimeoutError:
            raise Unauthenticated(
                f"Nobody signed in within {timeout:.0f} seconds.", hint="Run `callgate login` again."
            ) from None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(PATIENCE):
                try:
                    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                    writer.write(_page(*self._take(head)))
                except _NotIt as error:
                    writer.write(_page(error.status, "This is not for you", "Nothing was done."))
                except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                    writer.write(_page(400, "This is not for you", "Nothing was done."))
                await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    def _take(self, head: str) -> tuple[int, str, str]:
        """Look at a request; the answer among them ends the waiting. Returns status, title and text of the page."""
        fields = self._answered(head)
        if self._answer.done():
            raise _NotIt(410)
        try:
            self._answer.set_result(self._code(fields))
        except CallgateError as error:
            self._answer.set_exception(error)
            return 400, "You are not signed in", "The terminal says why. You can close this page."
        return 200, "Go back to the terminal", "It goes on there. You can close this page."

    def _answered(self, head: str) -> dict[str, str]:
        """The parameters of the answer. Raises _NotIt."""
        first, *lines = head.split("\r\n")
        method, _, rest = first.partition(" ")
        target = rest.rpartition(" ")[0]
        hosts = [line[5:].strip() for line in lines if line.lower().startswith("host:")]
        if hosts != [f"127.0.0.1:{self.port}"]:  # a name that somebody let point here
            raise _NotIt(421)
        path, _, query = target.partition("?")
        if path != PATH:
            raise _NotIt(404)
        if method != "GET":
            raise _NotIt(405)
        try:
            pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=16, errors="strict")
        except ValueError:
            raise _NotIt(400) from None
        fields = dict(pairs)
        if len(fields) != len(pairs) or not hmac.compare_digest(fields.get("state", "").encode(), self.state.encode()):
            raise _NotIt(400)
        return fields

    def _code(self, fields: dict[str, str]) -> str:
        """Raises Unauthenticated, Denied. Where the issuer is not the right one, nothing else counts (rule OC-6)."""
        issuer = fields.get("iss")
        if issuer != self._issuer and (issuer is not None or self._iss_required):
            raise Unauthenticated(
                "The answer to the sign-in did not come from the gateway.",
                hint="Somebody may have led you to a page of theirs; run `callgate login` again.",
            )
        error = fields.get("error")
        if error == "access_denied":
            raise Denied("The sign-in was refused.", hint="Whoever signs in has to agree on the page of the gateway.")
        if error is not None:
            said = f"`{error}`" if error in KNOWN else "an error that callgate does not know"
            raise Unauthenticated(f"The gateway answered the sign-in with {said}.", hint="Run `callgate login` again.")
        code = fields.get("code", "")
        if not code:
            raise Unauthenticated("The answer to the sign-in has no code.", hint="Run `callgate login` again.")
        return code


def _page(status: int, title: str, text: str) -> bytes:
    body = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>callgate</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1><p>{text}</p></body></html>"
    )
    return (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\n{_HEADERS}content-length: {len(body.encode())}\r\n\r\n{body}".encode()
    )
