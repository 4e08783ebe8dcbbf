"""Gateways that count together in a Redis or Valkey, a real one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from callgate.config import QuotasStore
from callgate.errors import QuotaExceeded
from callgate.policy import Shared
from tests.egress.test_proxy_and_tls import certificate
from tests.policy.limits.desk import Desk, who
from tests.policy.limits.redis import Running, redis
from tests.processes import free_port

pytestmark = [pytest.mark.anyio, pytest.mark.servers]


class Real(Desk):
    """A desk with the clock of this machine: the store has one of its own."""

    shared: Shared

    async def kept(self) -> dict[str, float]:
        """What the store holds, by measure (of several the most)."""
        await self.shared.settled()
        found: dict[str, float] = {}
        for key in await self.shared._client.keys("*"):
            measure = key.decode().split("|")[1]
            kind = (await self.shared._client.type(key)).decode()
            if kind == "hash":
                used = sum(float(each) for each in await self.shared._client.hvals(key))
            else:
                used = 0.0 if measure == "rate" else float(await self.shared._client.get(key))
            found[measure] = max(found.get(measure, 0.0), used)
        return found


@asynccontextmanager
async def desk(store: Running, *quotas: Mapping[str, Any], **more: Any) -> AsyncIterator[Real]:
    from callgate.policy.limits.quotas import now

    settings: dict[str, Any] = {
        name: more.pop(name) for name in ("when_away", "timeout", "password", "username", "prefix") if name in more
    }

    async def resolve(reference: str) -> str:
        assert reference == "env:REDIS"
        return "a secret"

    shared = Shared(msgspec.convert({"url": store.url, "timeout": 2.0, **settings}, QuotasStore), resolve)
    made = Real(*quotas, store=shared, **more)
    made.shared = shared
    made.quotas.clock = now
    made.clock = now  # type: ignore[assignment]
    try:
        yield made
    finally:
        await shared.aclose()


@pytest.mark.key("quotas_store", "quotas_store.url", "quotas_store.prefix", "quotas_store.timeout")
async def test_two_gateways_have_one_limit(tmp_path: Path) -> None:
    rules = ({"calls": "7/day"}, {"rate": "100/day", "per": ["agent"]})
    async with (
        redis(tmp_path) as store,
        desk(store, *rules, prefix="team") as one,
        desk(store, *rules, prefix="team") as two,
    ):
        assert [await (one if at % 2 else two).passes() for at in range(9)] == [True] * 7 + [False] * 2
        assert await one.many(9, who("bob")) == 7
        async with desk(store, *rules, prefix="other") as other:
            assert await other.many(9) == 7


async def test_fifty_calls_at_once_at_two_gateways(tmp_path: Path) -> None:
    for rule in ({"calls": "17/day"}, {"calls": "17/day", "period": "sliding"}, {"rate": "17/day"}):
        async with redis(tmp_path) as store, desk(store, rule) as one, desk(store, rule) as two:
            said = await asyncio.gather(*((one if at % 2 else two).begin() for at in range(50)), return_exceptions=True)
            assert sum(isinstance(each, QuotaExceeded) for each in said) == 33, (rule, said)


async def test_a_refused_call_uses_nothing_and_is_told_when_to_come_back(tmp_path: Path) -> None:
    rules = ({"calls": "100/day"}, {"rate": "6/min", "burst": 2}, {"calls": "100/2h", "period": "sliding"})
    async with redis(tmp_path) as store, desk(store, *rules) as one:
        assert await one.many(10) == 2
        with pytest.raises(QuotaExceeded) as refused:
            await one.begin()
        assert 8 <= refused.value.retry_after <= 10
        assert (await one.kept())["calls"] == 2
    async with redis(tmp_path) as store, desk(store, {"calls": "1/2h", "period": "sliding"}) as one:
        await one.call()
        with pytest.raises(QuotaExceeded) as refused:
            await one.begin()
        assert 7000 < refused.value.retry_after <= 7400
    async with redis(tmp_path) as store, desk(store, {"calls": "1/day"}) as one:
        await one.call()
        with pytest.raises(QuotaExceeded) as refused:
            await one.begin()
        assert 0 < refused.value.retry_after <= 86400


async def test_budgets_are_settled_when_the_call_ends(tmp_path: Path) -> None:
    for more in ({}, {"period": "sliding"}):
        length = "2h" if more else "day"
        rule = {"tokens": f"1000/{length}", "cost": f"10/{length}", **more}
        async with redis(tmp_path) as store, desk(store, rule, prices={"git/*": {"call": 1, "tokens": 10}}) as one:
            charge = await one.begin()
            assert charge is not None
            charge.failed(worked=False)
            assert {name: round(value, 3) for name, value in (await one.kept()).items()} == {"tokens": 0, "cost": 0}
            await one.call(size=400)
            assert {name: round(value, 3) for name, value in (await one.kept()).items()} == {
                "tokens": 101,
                "cost": 2.01,
            }


async def test_places_are_counted_by_each_gateway_and_come_back(tmp_path: Path) -> None:
    async with redis(tmp_path) as store, desk(store, {"concurrency": 1, "calls": "5/day"}) as one:
        running = await one.begin()
        assert running is not None
        assert not await one.passes()
        running.ended(4, one.clock())
        assert await one.many(9) == 4
        assert not any(
            counter.taken for table in one.quotas.tables.values() for counter in table if hasattr(counter, "taken")
        )


async def test_a_soft_limit_warns(tmp_path: Path) -> None:
    async with redis(tmp_path) as store, desk(store, {"calls": "2/day", "soft": "90%"}) as one:
        warned = []
        for _ in range(2):
            charge = await one.begin()
            assert charge is not None
            warned.append([each.used for each in charge.warnings])
        assert warned == [[], [1.0]]
        async with desk(store, {"calls": "1/day", "hard": False}) as shadow:
            assert await shadow.many(5) == 5


@pytest.mark.key("quotas_store.when_away")
async def test_what_happens_while_the_store_is_away(tmp_path: Path) -> None:
    rule = {"calls": "3/day"}
    async with redis(tmp_path) as store:
        for how, passing in (("local", 3), ("allow", 9), ("deny", 0)):
            async with desk(store, rule, when_away=how, prefix=how, timeout=0.5) as one:
                assert await one.passes()
                await store.stop()
                assert await one.many(9) == passing, how
                assert [one.shared.away] == [True]
                await store.start()
                await asyncio.sleep(1.1)
                assert await one.passes() and not one.shared.away
                assert await one.many(9) == 2, how  # it had lost everything: a store without persistence


async def test_a_store_that_hangs_costs_a_call_its_timeout_once_a_second(tmp_path: Path) -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(100):
            pass
        writer.close()

    async with await asyncio.start_server(hang, "127.0.0.1", 0) as server:
        store = Running(tmp_path, server.sockets[0].getsockname()[1])
        async with desk(store, {"calls": "3/day"}, timeout=0.2) as one:
            begun = asyncio.get_running_loop().time()
            assert await one.many(9) == 3
            assert asyncio.get_running_loop().time() - begun < 0.6


@pytest.mark.key("quotas_store.password", "quotas_store.username")
async def test_the_password_is_a_reference(tmp_path: Path) -> None:
    acl = ("--user", "gateway", "on", ">a secret", "~*", "+@all", "--user", "default", "off")
    async with redis(tmp_path, *acl) as store:
        async with desk(store, {"calls": "1/day"}, username="gateway", password="env:REDIS", when_away="deny") as one:
            assert await one.many(2) == 1
        async with desk(store, {"calls": "1/day"}, when_away="deny") as stranger:
            assert not await stranger.passes()


async def test_keys_of_the_store_end_by_themselves(tmp_path: Path) -> None:
    rules = ({"calls": "5/day", "rate": "60/min"}, {"calls": "5/2h", "period": "sliding"})
    async with redis(tmp_path) as store, desk(store, *rules) as one:
        await one.call()
        for key in await one.shared._client.keys("*"):
            assert 0 < await one.shared._client.pttl(key) <= 2 * 86_400_000, key


@pytest.mark.key("quotas_store.ca_file")
async def test_over_tls_with_an_authority_of_ones_own(tmp_path: Path) -> None:
    _, ca_file = certificate(tmp_path)
    port = free_port()
    more = ("--tls-port", str(port), "--tls-cert-file", ca_file, "--tls-key-file", str(tmp_path / "key.pem"))
    async with redis(tmp_path, *more, "--tls-ca-cert-file", ca_file, "--tls-auth-clients", "no"):
        url = f"rediss://127.0.0.1:{port}/0"
        for trusted, passing in ((ca_file, 1), (None, 0)):
            shared = Shared(QuotasStore(url=url, ca_file=trusted, when_away="deny", timeout=2.0))
            try:
                assert await Desk({"calls": "1/day"}, store=shared).many(2) == passing
            finally:
                await shared.aclose()
