"""The gateway that a command talks to: where it is, as whom, and what its refusals mean for the shell."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec

from callgate.cli.options import Where
from callgate.egress import HttpPool, Response, encode_headers, parse_url
from callgate.errors import (
    CallgateError,
    ConfigError,
    Denied,
    NotFound,
    Overloaded,
    Unauthenticated,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnavailable,
    UsageError,
)

SHORT = 15.0
_TOKEN = re.compile(r"cgo_[A-Za-z0-9_-]{43}")
_KINDS: dict[int, type[CallgateError]] = {400: UsageError, 401: Unauthenticated, 403: Denied, 404: NotFound}
_KINDS |= {503: Overloaded}


class Remote:
    """One gateway, for the time of one command: ``async with Remote(where) as gateway``.

    ``token`` is what the command was given.
    """

    def __init__(self, where: Where) -> None:
        self.base = base_of(where.url)
        self.token = where.token or None
        self._admin = where.admin_url.rstrip("/") if where.admin_url else ""
        self._told = False
        self._nonce = secrets.token_urlsafe(24)
        self._operator: str | None = None

    async def __aenter__(self) -> Remote:
        self._pool = HttpPool()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pool.aclose()

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes = b"", *, timeout: float = SHORT
    ) -> Response:
        """One request; the response may be a stream of events. Raises ``UpstreamError`` in words about the gateway."""
        try:
            origin = self._pool.origin(url)
            length = {"content-length": str(len(body))} if body or method == "POST" else {}
            head = origin.start_line(method, parse_url(url).target) + encode_headers({**headers, **length}) + b"\r\n"
            deadline = asyncio.get_running_loop().time() + timeout
            return await origin.request(head + body, deadline, events=True, replay=method == "GET")
        except ConfigError as error:
            raise UsageError(error.message, hint=error.hint or "Check --url, --admin-url and --token.") from None
        except UpstreamError as error:
            raise about(error, url) from None

    async def credential(self) -> str | None:
        """What requests to the gateway carry: what the command was given, else the token of whoever is signed in there.

        The latter goes to URLs below that of the gateway and nowhere else, also not to its admin listener. Raises
        Unauthenticated when the sign-in has ended.
        """
        if self.token is not None:
            return self.token
        from callgate.cli.sign_in import token_for

        return await token_for(self)

    async def admin(self, path: str, query: Mapping[str, Any] | None = None, body: Any = None) -> Any:
        """Ask the admin API; raises the error that its answer stands for."""
        await self._find_admin()
        asked = {name: str(value) for name, value in (query or {}).items() if value is not None}
        url = f"{self._admin}/api/v1/{path}" + (f"?{urlencode(asked)}" if asked else "")
        headers = {"accept": "application/json"}
        token = self.token or self._operator
        if token is None and self._admin.startswith(f"{self.base}/"):
            token = await self.credential()
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        if body is None:
            return _answer(await self.send("GET", url, headers), self._admin)
        headers["content-type"] = "application/json"
        return _answer(await self.send("POST", url, headers, msgspec.json.encode(body)), self._admin)

    async def _find_admin(self) -> None:
        """A gateway tells callers on its own machine where its admin listener and its operator's token are."""
        if self._told:
            return
        self._told = True
        if self._admin and (self.token or not local(self.base)):
            return
        try:
            told = await self._healthz()
        except UpstreamError:
            if self._admin:
                return
            raise
        admin = str(told.get("admin", "")).rstrip("/")
        if not self._admin and not admin:
            hint = "Name its admin listener with --admin-url (CALLGATE_ADMIN_URL)."
            raise UsageError(f"The gateway at {self.base} does not say where its admin API is.", hint=hint)
        if not self._admin:
            self._admin = admin
        if self.token is None and self._admin == admin and local(self.base) and local(admin):
            self._operator = self._proven(operator_token(str(told.get("operator_token_file", ""))), told)

    def _proven(self, token: str | None, told: Mapping[str, Any]) -> str | None:
        """The token, if what listens has it too: another user of the machine may listen where the gateway did."""
        from callgate.identity import operator_proof

        if token is None:
            return None
        said = str(told.get("operator_proof")).encode()
        return token if hmac.compare_digest(operator_proof(token, self._admin, self._nonce).encode(), said) else None

    async def _healthz(self) -> dict[str, Any]:
        response = await self.send("GET", f"{self.base}/healthz?nonce={self._nonce}", {"accept": "application/json"})
        try:
            told = msgspec.json.decode(response.body, type=dict[str, Any])
        except msgspec.MsgspecError:
            told = {}
        if response.status != 200 or told.get("status") != "ok":
            hint = "Another program may use the port; name the gateway with --url (CALLGATE_URL)."
            raise UpstreamUnavailable(f"What answers at {self.base} is not callgate.", hint=hint)
        return told


def base_of(url: str) -> str:
    """The gateway's root from its root or from one of its MCP endpoints.

    >>> base_of("http://127.0.0.1:8080/mcp"), base_of("https://example.org/gate/servers/git/mcp")
    ('http://127.0.0.1:8080', 'https://example.org/gate')
    """
    text = url.strip().split("?")[0].rstrip("/")
    if "://" not in text:
        text = f"http://{text}"
    return re.sub(r"(/servers/[^/]+)?/mcp(/[^/]+)?$", "", text)


def operator_token(file: str) -> str | None:
    """The operator's token from the file that a local gateway names, if it is one and this user may read it.

    Whoever listens on the port chooses the name, so nothing but such a token of this user's own is ever read, and it is
    shown to nobody who has not proved to have it too.
    """
    path = Path(file)
    try:
        if path.name != "operator.token" or not path.is_absolute():
            return None
        if hasattr(os, "getuid") and path.stat().st_uid != os.getuid():
            return None
        token = path.read_bytes()[:100].decode("ascii").strip()
    except (OSError, ValueError):
        return None
    return token if _TOKEN.fullmatch(token) else None


def local(url: str) -> bool:
    """Whether a URL leads to this machine."""
    try:
        host = parse_url(url).host
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except (ConfigError, ValueError):
        return False


def about(error: UpstreamError, url: str) -> UpstreamError:
    """What went wrong on the way to the gateway, in words about the gateway."""
    where = parse_url(url).origin
    if isinstance(error, UpstreamUnavailable):
        hint = "Start one with `callgate up`, or name the one that runs with --url (CALLGATE_URL)."
        return UpstreamUnavailable(f"The gateway {error.message}.", hint=hint)
    kind = UpstreamTimeout if isinstance(error, UpstreamTimeout) else UpstreamError
    return kind(f"The gateway at {where} {error.message}.")


def _answer(response: Response, admin: str) -> Any:
    try:
        said = msgspec.json.decode(response.body)
    except msgspec.MsgspecError:
        said = None
    if response.status == 200 and isinstance(said, dict):
        return said
    problem = said.get("error") if isinstance(said, dict) else None
    if not isinstance(problem, dict):
        raise UpstreamError(f"The admin API at {admin} answered {response.status}.", hint="Check --admin-url.")
    message, hint = str(problem.get("message", "")), str(problem.get("hint", ""))
    if response.status == 401:
        hint = "Give your key or token with --token (CALLGATE_TOKEN)."
    raise _KINDS.get(response.status, UpstreamError)(message, hint=hint)
