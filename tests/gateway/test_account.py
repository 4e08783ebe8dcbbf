"""Every call leaves one record, whatever becomes of it; strict means on disk before the answer leaves."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from callgate.audit import AuditStore, Filters, Row
from tests.fuzz.messages import modern
from tests.gateway.stand import Stand, allow, calling, deny, keys, refused, until
from tests.gateway.upstreams import Legacy, Modern, Script, http, serve, text, waiting

pytestmark = pytest.mark.anyio

SCRIPT = Script(
    says={"good": text("good"), "wrong": text("no", isError=True), "odd": {"isError": "yes"}},
    fails={"broken": (-32000, None)},
)


@pytest.mark.rule("AUD-5", "AUD-4", "POL-8")
@pytest.mark.parametrize("durability", ["normal", "strict"])
async def test_every_outcome_leaves_one_record(tmp_path: Path, durability: str) -> None:
    began, gate = asyncio.Event(), asyncio.Event()
    legacy = Legacy(Script(acts={"slow": waiting(gate), "hang": waiting(gate, began)}))
    policy = {"rules": [allow("u/*", "l/*", id="most"), deny("u/hang", id="no-hanging", reason="it hangs"),
                        {"id": "big", "ask": ["u/ask"]}]}  # fmt: skip
    async with serve(Modern(SCRIPT)) as server, serve(legacy) as old:
        servers = {"u": http(server), "l": http(old, "legacy", call_timeout=0.3)}
        identity = {"keys": keys("ann", roles=["dev"])}
        audit = {"durability": durability, "arguments": "full"}
        async with Stand(tmp_path, servers, policy=policy, identity=identity, audit=audit) as stand:
            trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
            calls = [("u__good", "ok"), ("u__wrong", "tool_error"), ("u__broken", "failed"), ("u__hang", "denied"),
                     ("u__ask", "denied"), ("u__nothing", "refused"), ("l__slow", "timeout")]  # fmt: skip
            replies: dict[str, Any] = {}
            for name, _ in calls:
                message = calling(name, {"a": 1, "n": name}, traceparent=trace)
                replies[name] = await stand.ask(stand.request(message, who="ann"))
            wire = await stand.connect()
            wire.send(stand.request(calling("l__hang", {"a": 1}, traceparent=trace), who="ann"))
            await began.wait()
            await wire.close()
            await until(lambda: not stand.house.places)
            refused(await stand.call("u__good", who="mallory"), 401)
            records = await stand.records(len(calls) + 2)
        assert [each["outcome"] for each in records] == [*(outcome for _, outcome in calls), "cancelled", "refused"]
        for record, (name, outcome) in zip(records, calls, strict=False):
            assert record["id"] == replies[name].headers["callgate-call-id"]
            assert (record["subject"], record["roles"], record["tenant"]) == ("ann", ["dev"], "default")
            assert record["args"] == {"a": 1, "n": name}
            assert len(record["args_sha256"]) == 64
            assert record["trace_id"] == trace.split("-")[1]
            assert record["bytes_in"] > 0
            assert (outcome == "ok") <= (record.get("bytes_out", 0) > 0)
            assert (outcome in ("ok", "timeout")) <= (record.get("upstream_us", 0) > 0)
            assert (outcome == "refused") or record["policy"] == stand.house.policy.version
            assert (record["method"], record["era"], record["transport"]) == ("tools/call", "modern", "http")
        assert [each.get("rule", "") for each in records[:6]] == ["most", "most", "most", "no-hanging", "big", ""]
        assert "it hangs" in records[3]["reason"]
        assert "it hangs" not in str(replies["u__hang"].json)
        assert [each.get("error_code") for each in records[2:7]] == [-32000, -31403, -31428, -32602, -31504]
        assert records[-1]["subject"] == "unauthenticated"


async def test_lists_and_pings_leave_none(tmp_path: Path) -> None:
    async with serve(Modern(SCRIPT)) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        session = await stand.legacy()
        for method in ("ping", "tools/list", "nothing"):
            await session.ask(method)
            await stand.modern(method)
        await stand.call("u__good")
        assert len(await stand.records(1)) == 1


@pytest.mark.key("audit.arguments", "audit.max_arguments")
@pytest.mark.parametrize(
    ("audit", "kept"),
    [
        ({"arguments": "full"}, {"password": "hunter2", "x": "y" * 50}),
        ({"arguments": "digest"}, None),
        ({"arguments": "redacted"}, None),
        ({"arguments": "full", "max_arguments": 20}, None),
    ],
)
async def test_arguments_are_kept_as_configured(tmp_path: Path, audit: dict[str, Any], kept: Any) -> None:
    arguments = {"password": "hunter2", "x": "y" * 50}
    async with serve(Modern(SCRIPT)) as server, Stand(tmp_path, {"u": http(server)}, audit=audit) as stand:
        await stand.call("u__good", arguments)
        [record] = await stand.records(1)
    assert record["args_sha256"]
    if kept is not None:
        assert record["args"] == kept
    elif audit["arguments"] == "digest":
        assert "args" not in record
    elif audit["arguments"] == "redacted":
        assert record["args"]["x"] == "y" * 50
        assert "hunter2" not in str(record)
    else:
        assert "[cut: " in record["args"]


class Faulty:
    """A store in front of the real one, that can be told to fail: a full disk is hard to come by in a test."""

    def __init__(self, real: AuditStore) -> None:
        self.real = real
        self.failing = False

    def append(self, rows: Iterable[Row]) -> int:
        if self.failing:
            raise sqlite3.OperationalError("database or disk is full")
        return self.real.append(rows)

    def settle(self) -> None:
        self.real.settle()

    def prune(self, before_id: int, limit: int) -> int:
        return self.real.prune(before_id, limit)

    def find(self, filters: Filters) -> list[Row]:
        return self.real.find(filters)

    def get(self, id: int) -> Row | None:
        return self.real.get(id)

    def close(self) -> None:
        self.real.close()


@pytest.mark.key("audit.durability")
@pytest.mark.rule("AUD-3", "AUD-2")
@pytest.mark.parametrize("durability", ["strict", "normal"])
async def test_with_a_log_that_cannot_be_written_strict_makes_no_call(
    tmp_path: Path, durability: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("callgate.audit.journal.DURABLE_DEADLINE", 0.2)
    script = Script({"good": text("good")})
    async with (
        serve(Modern(script)) as server,
        Stand(tmp_path, {"u": http(server)}, audit={"durability": durability}) as stand,
    ):
        faulty = Faulty(stand.house.journal._store)
        stand.house.journal._store = faulty
        assert (await stand.call("u__good")).status == 200
        await stand.records(1)
        faulty.failing = True
        first = await stand.call("u__good")
        await until(lambda: stand.house.journal.error)
        before = len(script.called)
        second = await stand.call("u__good")
        ready = await stand.ask(stand.page("/readyz"))
        if durability == "strict":
            refused(first, 200, -31429)  # made, but not answered as if it were recorded
            refused(second, 200, -31429)
            assert "not made" in second.json["error"]["message"]
            assert len(script.called) == before
            assert (ready.status, ready.json["ready"]) == (503, False)
        else:
            assert first.error is second.error is None
            assert ready.status == 200
        assert "disk is full" in ready.json["problems"]["audit"]
        assert (await stand.modern("tools/list")).status == 200
        faulty.failing = False
        await until(lambda: not stand.house.journal.error)
        assert (await stand.call("u__good")).error is None
        assert (await stand.ask(stand.page("/readyz"))).json["problems"] == {}
        # What was made while the log was broken is in it now, and what was refused for it.
        expected = len(script.called) + (durability == "strict")
        assert len(await stand.records(expected)) == expected


@pytest.mark.key("audit.queue")
@pytest.mark.rule("AUD-3")
async def test_a_full_queue_drops_and_counts_or_refuses(tmp_path: Path) -> None:
    for durability in ("normal", "strict"):
        script = Script({"good": text("good")})
        folder = tmp_path / durability
        folder.mkdir()
        async with serve(Modern(script)) as server:
            audit = {"durability": durability, "queue": 2}
            async with Stand(folder, {"u": http(server)}, audit=audit) as stand:
                faulty = Faulty(stand.house.journal._store)
                stand.house.journal._store = faulty
                faulty.failing = True
                running = [asyncio.create_task(stand.call("u__good")) for _ in range(8)]
                await until(lambda: stand.house.journal.error)
                if durability == "normal":
                    assert [(await each).error for each in running] == [None] * 8
                    await until(lambda: stand.house.journal.dropped)
                    assert "callgate_audit_dropped_total" in stand.house.metrics.render()
                else:
                    assert len(script.called) <= 8
                    refused(await stand.call("u__good"), 200, -31429)
                faulty.failing = False
                await asyncio.gather(*running)
                await until(lambda: not stand.house.journal.error)


async def test_a_flood_of_wrong_keys_is_counted_and_not_all_written(tmp_path: Path) -> None:
    async with Stand(tmp_path, identity={"keys": keys("ann")}) as stand:
        async with await stand.connect() as wire:
            for _ in range(100):
                wire.send(stand.request(modern("tools/list"), who="mallory"))
                assert (await wire.reply()).status == 401
        records = await stand.records(20)
        assert 20 <= len(records) < 100
        assert 'callgate_refused_requests_total{status="401"} 100' in stand.house.metrics.render()


async def test_the_metrics_count_what_the_log_holds(tmp_path: Path) -> None:
    async with serve(Modern(SCRIPT)) as server, Stand(tmp_path, {"u": http(server)}) as stand:
        for name in ("u__good", "u__good", "u__wrong", "u__nothing"):
            await stand.call(name)
        await stand.records(4)
        rendered = stand.house.metrics.render()
        counted = [line for line in rendered.splitlines() if line.startswith("callgate_calls_total")]
        assert any('outcome="ok"' in line and line.endswith(" 2") for line in counted), rendered[:2000]
        assert any('outcome="tool_error"' in line and line.endswith(" 1") for line in counted)


@pytest.mark.rule("AUD-2", "AUD-3")
async def test_calls_that_find_the_log_full_when_they_end_are_counted_in_it(tmp_path: Path) -> None:
    """All of them were let in while there was room: what was made and cannot be written must not vanish."""
    gate = asyncio.Event()
    script = Script(acts={"slow": waiting(gate)})
    async with (
        serve(Modern(script)) as server,
        Stand(tmp_path, {"u": http(server)}, audit={"durability": "strict", "queue": 2}) as stand,
    ):
        faulty = Faulty(stand.house.journal._store)
        stand.house.journal._store = faulty
        calls = [asyncio.create_task(stand.call("u__slow")) for _ in range(8)]
        await until(lambda: len(script.called) == 8)
        faulty.failing = True
        gate.set()
        await until(lambda: stand.house.journal.dropped)
        faulty.failing = False
        made = [(await call).error for call in calls]
        assert -31429 in made
        await until(lambda: not stand.house.journal.waiting)
        await until(lambda: sum(each.get("dropped", 1) for each in stand.rows()) == len(script.called))


@pytest.mark.rule("AUD-2")
async def test_strict_counts_for_a_cancelled_call_too(tmp_path: Path) -> None:
    script = Script(acts={"slow": waiting(asyncio.Event())})
    async with (
        serve(Modern(script)) as server,
        Stand(tmp_path, {"u": http(server)}, audit={"durability": "strict"}) as stand,
    ):
        session = await stand.legacy()
        call = asyncio.create_task(session.call("u__slow", id=7))
        await until(lambda: script.called)
        await session.tell("notifications/cancelled", requestId=7)
        assert (await call).error == -31499
        assert [each["outcome"] for each in stand.rows()] == ["cancelled"]
