"""Quotas for tests: a clock that the test sets, callers, and calls that are counted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from callgate.config import Settings
from callgate.errors import QuotaExceeded
from callgate.policy import Charge, Quotas, Shared
from callgate.policy.limits.counters import Moment
from callgate.types import Actor, Call, Front, Principal, Tool

#: Saturday, 14 November 2026, 12:00 UTC.
NOON = 1_794_657_600.0


class Clock:
    def __init__(self) -> None:
        self.mono, self.wall = 1_000.0, NOON

    def __call__(self) -> Moment:
        return Moment(self.mono, self.wall)

    def pass_(self, seconds: float) -> None:
        self.mono += seconds
        self.wall += seconds


def settings(*quotas: Mapping[str, Any], **more: Any) -> Settings:
    return msgspec.convert({"quotas": [{"id": f"q{at}", **each} for at, each in enumerate(quotas)], **more}, Settings)


def who(subject: str = "alice", *agents: str, issuer: str = "", **more: Any) -> Principal:
    chain = tuple(Actor(each, "https://us") for each in agents)
    return Principal(subject, f"key:{issuer}:{subject}", issuer=issuer, chain=chain, **more)


def tool(native: str = "git/status", definition: bytes = b'{"name":1}') -> Tool:
    server, _, name = native.partition("/")
    return Tool(server, name, f"{server}__{name}", definition)


class Desk:
    """``desk = Desk({"calls": "2/day"})``; ``await desk.call()`` counts a call that was answered with 40 bytes."""

    def __init__(self, *quotas: Mapping[str, Any], store: Shared | None = None, **more: Any) -> None:
        self.clock = Clock()
        self.heard: list[tuple[str, str, str]] = []
        self.quotas = Quotas(
            settings(*quotas, **more), store, clock=self.clock, told=lambda *said: self.heard.append(said)
        )

    async def begin(
        self, caller: Principal | None = None, what: Tool | str = "git/status", method: str = "tools/call", *,
        leg: int = 0, parked: bool = False, **args: Any,
    ) -> Charge | None:  # fmt: skip
        made = tool(what) if isinstance(what, str) else what
        params = {} if method == "tools/call" else {"x": 1}
        call = Call(1, caller or who(), made, args, Front(), 0, method=method, params=params)
        return await self.quotas.admit(call, leg=leg, parked=parked)

    async def call(
        self, caller: Principal | None = None, what: Tool | str = "git/status", *more: str, size: int = 40
    ) -> None:
        charge = await self.begin(caller, what, *more)
        if charge is not None:
            charge.ended(size, self.clock())

    async def passes(self, caller: Principal | None = None, what: Tool | str = "git/status", *more: str) -> bool:
        try:
            await self.call(caller, what, *more)
        except QuotaExceeded:
            return False
        return True

    async def many(
        self, count: int, caller: Principal | None = None, what: Tool | str = "git/status", *more: str
    ) -> int:
        """How many of so many calls pass."""
        return sum([await self.passes(caller, what, *more) for _ in range(count)])
