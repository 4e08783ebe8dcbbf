"""A small house for tests: upstreams with everything that they told, and calls to make."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import msgspec

from callgate.config.model import Server
from callgate.types import (
    Answer,
    Ask,
    Call,
    Conduct,
    Front,
    Listing,
    News,
    Permitted,
    Principal,
    Question,
    ServerStatus,
    Tool,
    Verdict,
)
from callgate.upstream import Upstreams

ids = itertools.count(1)
SCRIPT = str(Path(__file__).parent.parent / "servers" / "stdio_server.py")


def stdio(*habits: str, isolation: Any = "shared", **more: Any) -> Server:
    """One process for everybody, unless the test is about whose process it is."""
    return Server(command=sys.executable, args=("-S", SCRIPT, *habits), isolation=isolation, **more)


class House:
    """``async with House(tmp_path, name=Server(…)) as house: await house.call("name", "tool")``."""

    def __init__(self, folder: Path, **servers: Server) -> None:
        self.folder = folder
        self.servers = servers
        self.listings: list[Listing] = []
        self.statuses: list[ServerStatus] = []
        self.notes: list[dict[str, Any]] = []
        self.news: list[News] = []
        self.outside: list[tuple[str, str, str, Question]] = []  # what servers asked outside calls
        self.common_again: list[tuple[str, ...]] = []
        self.upstreams = Upstreams(
            on_listing=self.listings.append,
            on_status=self.statuses.append,
            state_dir=folder / "state",
            resolve_secret=self.resolve_secret,
            client_info={"name": "callgate", "version": "test"},
            on_news=self.news.append,
            on_question=self.asked_outside,
            on_common_again=lambda *client: self.common_again.append(client),
        )

    async def __aenter__(self) -> Self:
        await self.upstreams.apply(self.servers, self.folder)
        for name in self.servers:
            await self.upstreams.settled(name, 15)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.upstreams.aclose()

    async def resolve_secret(self, reference: str, fresh: bool) -> str:
        return f"secret of {reference.partition(':')[2]}"

    async def asked_outside(self, server: str, principal: str, session: str, question: Question) -> Answer:
        self.outside.append((server, principal, session, question))
        return Answer(result=b'{"action":"decline"}')

    def emit(self, note: bytes) -> None:
        assert b"\n" not in note
        self.notes.append(msgspec.json.decode(note))

    async def call(
        self, server: str, tool: str, arguments: Mapping[str, Any] | None = None, *, ask: Ask | None = None, **more: Any
    ) -> Answer:
        return await self.upstreams.send(permitted(server, tool, arguments or {}, **more), Conduct(self.emit, ask))

    async def ask(self, server: str, tool: str, arguments: Mapping[str, Any] | None = None, **more: Any) -> Any:
        """The decoded result."""
        answer = await self.call(server, tool, arguments, **more)
        assert answer.error is None
        return msgspec.json.decode(answer.result)

    def status(self, name: str) -> ServerStatus:
        return next(status for status in self.upstreams.statuses() if status.name == name)


def permitted(
    server: str,
    name: str,
    arguments: Mapping[str, Any],
    *,
    meta: Mapping[str, Any] | None = None,
    principal: str = "alice",
    header_arguments: tuple[tuple[str, tuple[str, ...]], ...] = (),
    trace_id: str = "",
    method: str = "tools/call",
    params: Mapping[str, Any] | None = None,
    **front: Any,
) -> Permitted:
    tool = Tool(server, name, f"{server}__{name}", b"{}", header_arguments=header_arguments)
    call = Call(
        id=next(ids),
        principal=Principal(subject=principal, key=principal),
        tool=tool,
        arguments=arguments,
        front=Front(**front),
        received=0,
        meta=meta or {},
        trace_id=trace_id,
        method=method,
        params=params or {},
    )
    return Permitted(call, Verdict("allow"))


async def until(condition: Any, timeout: float = 5.0) -> None:
    """Wait until ``condition()`` is true."""
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.01)
