"""A house with one server to which users connect, without a gateway around it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from callgate.config import Server, UpstreamAuth
from callgate.egress import Guard, HttpPool, Response
from callgate.errors import ConsentNeeded
from callgate.identity.connect import Around, Connections, Finished, GrantCredential
from callgate.identity.keys import principal_key
from callgate.identity.secrets import Held, Keys
from callgate.store import SqliteHeld, open_database
from callgate.types import Actor, Occasion, Principal
from callgate.upstream.endpoint import Endpoint, Shown
from tests.identity.provider import Clock
from tests.servers.authority import Authority

IDP = "https://idp.example"
US = "http://127.0.0.1:8080"


def person(name: str = "alice", **more: Any) -> Principal:
    return Principal(**{"subject": name, "key": principal_key(IDP, name), "issuer": IDP, "via": "jwt", **more})


def through(*agents: str, name: str = "alice") -> Principal:
    """The user through an app and these agents: another principal than the user."""
    chain = (Actor("client:app", US), *(Actor(f"agent:{agent}", US) for agent in agents))
    return person(name, key=f"{name} through {agents}", chain=chain)


ALICE, BOB = person("alice"), person("bob")


class Scene:
    """``call`` does what a link does with one request; ``connect`` what a user does with a browser."""

    def __init__(self, folder: Path, authority: Authority, clock: Clock, base: str = US, **auth: Any) -> None:
        self.folder = folder
        self.authority = authority
        self.clock = authority.clock = clock
        self.noted: list[tuple[str, str, str]] = []
        self.secrets = {"env:SECRET": "s3cret"}

        def hold(kind: str, shape: type[Any]) -> Held[Any]:
            return Held(kind, shape, SqliteHeld(open_database(folder)), Keys(folder / "secrets.key"), clock)

        async def sign(claims: Mapping[str, Any]) -> str:
            return "signed." + msgspec.json.encode(claims).hex() + ".by-us"

        self.connections = Connections(Around(lambda: base, hold, sign, Guard()), clock)
        self.connections.note = lambda verb, server, user, issuer: self.noted.append((verb, server, user))
        self.pool = HttpPool()
        self.credential = self.make(**auth)

    def make(self, name: str = "notes", url: str = "", **auth: Any) -> GrantCredential:
        async def resolve(reference: str) -> str:
            return self.secrets[reference]

        server = Server(url=url or self.authority.url, auth=UpstreamAuth(type="oauth", **auth))
        return self.connections.credential(name, server, resolve)

    async def call(self, who: Principal | None = ALICE, credential: GrantCredential | None = None) -> Response:
        shown = Shown(credential or self.credential, who)
        endpoint = Endpoint(self.pool.origin(self.authority.url), {}, shown=shown)
        body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{},"_meta":{}}}'
        return await endpoint.post(b"", body, float("inf"))

    async def needs(self, who: Principal = ALICE) -> str:
        """The ticket that a call gets instead of an answer."""
        with pytest.raises(ConsentNeeded) as found:
            await self.call(who)
        assert found.value.server == "notes" and found.value.ticket
        return found.value.ticket

    async def connect(self, who: Principal = ALICE) -> Finished:
        """Call, agree in a browser, come back."""
        ticket = await self.needs(who)
        pending = await self.connections.describe(ticket)
        started = await self.connections.begin(ticket, pending.user)
        return await self.connections.finish(self.authority.browse(started.url), started.cookie)

    async def lines(self, who: Principal = ALICE) -> bytes:
        return await self.credential.lines(Occasion(who, url=self.authority.url))

    async def aclose(self) -> None:
        await self.connections.aclose()
        await self.credential.aclose()
        await self.pool.aclose()


@contextlib.asynccontextmanager
async def scene(
    folder: Path, authority: Authority | None = None, *, base: str = US, **auth: Any
) -> AsyncIterator[Scene]:
    async with authority or Authority() as running:
        made = Scene(folder, running, Clock(), base, **auth)
        try:
            yield made
        finally:
            await made.aclose()
