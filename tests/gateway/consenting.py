"""A gateway whose server wants its users to agree first, without a real issuer; and browsers of several people."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

from callgate.errors import ConsentNeeded, Denied, NotFound
from callgate.gateway.connecting import ConnectingPages
from callgate.identity import Connected, Finished, Pending, Person, Started, user_of
from callgate.types import Answer, Conduct, Permitted, Principal
from tests.conformance.client.browser import form_of
from tests.fuzz.raw import Reply
from tests.gateway.library import library
from tests.gateway.stand import Stand, keys
from tests.gateway.upstreams import Script, http, serve, text, tools

IDP = "https://login.example.org"
ISSUER = "https://as.example.net/authorize"
CODE = "the-code-of-the-issuer"


class Connections:
    """Does what ``callgate.identity.connect`` promises, with one server and an issuer that nobody visits."""

    def __init__(self) -> None:
        self.grants: set[tuple[str, str]] = set()
        self.tickets: dict[str, Pending] = {}
        self.ways: dict[str, tuple[Pending, str]] = {}
        self.scopes: tuple[str, ...] = ("read",)
        self.lasts = 600.0

    def demand_of(self, server: str, who: Principal) -> None:
        if (server, user_of(who)) in self.grants:
            return
        needed = ConsentNeeded("wants its user to connect to it")
        needed.server, needed.ticket = server, self._ticket(server, who)
        raise needed

    def _ticket(self, server: str, who: Principal) -> str:
        agents = tuple(each.subject for each in who.chain)
        for ticket, pending in self.tickets.items():
            if (pending.server, pending.user, pending.asked_by) == (server, user_of(who), agents):
                return ticket
        ticket = secrets.token_urlsafe(32)
        until = time.time() + self.lasts
        self.tickets[ticket] = Pending(server, user_of(who), agents, self.scopes, "as.example.net", until)
        return ticket

    async def demand(self, server: str, who: Principal) -> None:
        self.demand_of(server, who)

    async def invite(self, server: str, who: Principal) -> str:
        return self._ticket(server, who)

    async def describe(self, ticket: str) -> Pending:
        pending = self.tickets.get(ticket)
        if pending is None or pending.expires <= time.time():
            raise NotFound("This link was used before, or is too old.", hint="Call again to get another one.")
        return pending

    async def begin(self, ticket: str, user: str, agreed: Pending | None = None) -> Started:
        pending = await self.describe(ticket)
        if pending.user != user:
            raise Denied("This is not yours.")
        del self.tickets[ticket]
        state, cookie = secrets.token_urlsafe(16), secrets.token_urlsafe(32)
        self.ways[state] = pending, cookie
        return Started(f"{ISSUER}?{urlencode({'state': state, 'client_id': 'callgate'})}", cookie)

    async def finish(self, params: Mapping[str, str], cookie: str) -> Finished:
        pending, expected = self.ways.get(params.get("state", ""), (None, ""))
        if pending is None or cookie != expected:
            raise Denied("This answer does not belong to anything that began in this browser.")
        del self.ways[params["state"]]
        if params.get("code") != CODE:
            nothing: Any = Denied("The issuer gave nothing.")
            nothing.server = pending.server
            raise nothing
        self.grants.add((pending.server, pending.user))
        return Finished(pending.server, pending.user)

    async def disconnect(self, user: str, server: str) -> bool:
        there = (server, user) in self.grants
        self.grants.discard((server, user))
        return there

    async def connections(self, user: str) -> list[Connected]:
        return [Connected(name, "as.example.net", ("read",), 0.0, 0.0) for name, key in self.grants if key == user]

    def document(self) -> dict[str, Any]:
        return {"client_id": "http://here/oauth/client.json", "client_name": "callgate"}

    def forget(self, user: str) -> None:
        pass

    async def aclose(self) -> None:
        pass


class People:
    """People who signed in: the cookie ``who`` names them."""

    providers: Mapping[str, Any] = {"idp": object()}

    async def person(self, cookies: Mapping[str, str]) -> Person | None:
        name = cookies.get("who")
        return Person(IDP, name, "idp", name.title(), expires=time.time() + 600) if name else None

    def forget(self, principal: str) -> None:
        pass

    def configure(self, identity: Any) -> None:
        pass

    async def aclose(self) -> None:
        pass


class Nobody(People):
    """A gateway without identity providers."""

    providers: Mapping[str, Any] = {}


class Tab:
    """A browser: keeps cookies, and sends what browsers send."""

    def __init__(self, stand: Stand, **cookies: str) -> None:
        self.stand = stand
        self.cookies = dict(cookies)

    async def get(self, path: str, *more: tuple[str, str]) -> Reply:
        return self._took(await self.stand.ask(self.stand.page(path, *self._cookie(), *more)))

    async def post(self, path: str, fields: Mapping[str, str] | bytes, *more: tuple[str, str]) -> Reply:
        body = fields if isinstance(fields, bytes) else urlencode(fields).encode()
        kind = ("Content-Type", "application/x-www-form-urlencoded")
        headers = (*self._cookie(), kind, ("Content-Length", str(len(body))), *more)
        return self._took(await self.stand.ask(self.stand.page(path, *headers, method="POST") + body))

    async def submit(self, page: Reply, button: str = "go", **changes: str) -> Reply:
        """Submit the first form of a page with one of its buttons."""
        found = form_of(page.body.decode())
        assert found is not None, page
        action, fields = found
        kept = {name: value for name, value in fields.items() if name not in ("go", "no") or name == button}
        return await self.post(action, {**kept, **changes}, ("Origin", f"http://127.0.0.1:{self.stand.port}"))

    async def agree(self, url: str) -> Reply:
        """The whole way: the page, the issuer, and back."""
        return await self.come_back(await self.submit(await self.get(path_of(url))))

    async def come_back(self, gone: Reply, **query: str) -> Reply:
        """The issuer sends the browser back."""
        assert (gone.status, gone.headers["location"].partition("?")[0]) == (303, ISSUER), gone
        return await self.get(f"/oauth/connect/callback?{urlencode({'state': state_of(gone), 'code': CODE, **query})}")

    def _cookie(self) -> tuple[tuple[str, str], ...]:
        pairs = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        return (("Cookie", pairs),) if pairs else ()

    def _took(self, reply: Reply) -> Reply:
        name, _, value = reply.headers.get("set-cookie", "").partition(";")[0].partition("=")
        if name:
            self.cookies[name] = value
        return reply


def path_of(url: str) -> str:
    return urlsplit(url).path


def state_of(gone: Reply) -> str:
    return urlsplit(gone.headers["location"]).query.partition("state=")[2].partition("&")[0]


class Consenting(Stand):
    """The stand, and what stands for its connections."""

    connections: Connections


@asynccontextmanager
async def consenting(
    folder: Path, patch: pytest.MonkeyPatch, era: Any = "modern", **settings: Any
) -> AsyncIterator[Consenting]:
    """A gateway whose server ``u`` wants its users to agree before it is called."""
    upstream = library(era)
    upstream.script = Script({"hello": text("hello")})
    upstream.tools = tools("hello")
    patch.setattr(ConnectingPages, "servers", property(lambda self: ["u"]))
    async with serve(upstream) as server:
        stand = Consenting(folder, {"u": http(server, era)}, **settings)
        await stand.start()
        stand.connections = Connections()
        house: Any = stand.house
        house.connections = stand.connections
        send = house.upstreams.send

        async def sending(permitted: Permitted, conduct: Conduct) -> Answer:
            stand.connections.demand_of(permitted.call.tool.server, permitted.call.principal)
            answer: Answer = await send(permitted, conduct)
            return answer

        house.upstreams.send = sending
        try:
            yield stand
        finally:
            await stand.gateway.aclose()


def with_keys(*names: str) -> dict[str, Any]:
    """Settings of a gateway whose callers have keys."""
    rules = [{"id": "all", "allow": ["*/*"]}]
    return {
        "identity": {"keys": keys(*names), "anonymous": False},
        "policy": {"version": 1, "default": "deny", "rules": rules},
    }
