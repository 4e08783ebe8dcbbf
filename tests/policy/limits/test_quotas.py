"""Rates, concurrency, quotas and budgets, without a gateway."""

from __future__ import annotations

import asyncio
import contextlib
import time

import msgspec
import pytest

from callgate.config import Price
from callgate.errors import ConfigError, QuotaExceeded
from callgate.policy import QuotaRules
from callgate.policy.limits.legs import LEGS, Legs
from callgate.types import Actor
from tests.policy.limits.desk import NOON, Desk, settings, tool, who

pytestmark = pytest.mark.anyio


@pytest.mark.key("quotas.rate", "quotas.burst")
async def test_a_rate_lets_a_burst_pass_and_refills_steadily() -> None:
    desk = Desk({"rate": "60/min", "burst": 5})
    assert await desk.many(9) == 5
    desk.clock.pass_(2.0)
    assert await desk.many(9) == 2
    desk.clock.pass_(3600)
    assert await desk.many(9) == 5
    assert await Desk({"rate": "10/30s"}).many(15) == 10


async def test_a_refusal_says_when_there_is_room_and_nothing_of_the_rule() -> None:
    desk = Desk({"rate": "6/min", "burst": 1})
    await desk.call()
    desk.clock.pass_(2.5)
    with pytest.raises(QuotaExceeded) as refused:
        await desk.call()
    error = refused.value
    assert (error.retry_after, error.status, error.rpc_code) == (8, 429, -31429)
    assert error.data == {"kind": "quota", "measure": "rate", "retry_after": 8, "limit": "6/min"}
    assert "q0" not in f"{error.message}{error.hint}" and "q0" in error.record
    desk.clock.pass_(8)
    assert await desk.passes()


@pytest.mark.key("quotas.calls", "quotas.period")
async def test_a_period_of_the_calendar_ends_with_it_and_a_sliding_one_never_gives_more() -> None:
    calendar = Desk({"calls": "3/hour"})
    calendar.clock.pass_(3500)
    assert await calendar.many(5) == 3
    calendar.clock.pass_(101)
    assert await calendar.many(5) == 3
    sliding = Desk({"calls": "3/hour", "period": "sliding"})
    sliding.clock.pass_(3500)
    assert await sliding.many(5) == 3
    sliding.clock.pass_(101)
    with pytest.raises(QuotaExceeded) as refused:
        await sliding.call()
    assert 3400 < refused.value.retry_after <= 3600
    sliding.clock.pass_(refused.value.retry_after)
    assert await sliding.many(5) == 3


async def test_weeks_begin_on_monday_and_months_on_the_first() -> None:
    week, month = Desk({"calls": "1/week"}), Desk({"calls": "1/month"})
    for desk, days in ((week, 1.5), (month, 16.5)):
        assert await desk.many(2) == 1
        desk.clock.pass_(days * 86400 - 1)
        assert not await desk.passes()
        desk.clock.pass_(2)
        assert await desk.many(2) == 1


@pytest.mark.key("quotas.concurrency")
async def test_places_are_given_back_however_a_call_ends() -> None:
    desk = Desk({"concurrency": 2})
    first, second = await desk.begin(), await desk.begin()
    assert first is not None and second is not None
    with pytest.raises(QuotaExceeded):
        await desk.begin()
    first.ended(10, desk.clock())
    second.failed(worked=True)
    assert await desk.many(5) == 5


async def test_places_stay_taken_while_a_call_goes_on_and_no_longer() -> None:
    desk = Desk({"concurrency": 1})
    gate = asyncio.Event()
    charge = await desk.begin()
    assert charge is not None
    task = asyncio.create_task(gate.wait())
    charge.until(task)
    charge.ended(10, desk.clock())  # the client got its answer: a question
    assert not await desk.passes()
    assert await desk.begin(parked=True, leg=1) is None  # the parked call itself comes back: it has its place
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    assert await desk.passes()

    charge = await desk.begin()
    assert charge is not None
    work = asyncio.create_task(charge.during(gate.wait()))
    await asyncio.sleep(0)
    charge.ended(10, desk.clock())
    assert not await desk.passes()
    gate.set()
    await work
    assert await desk.passes()


@pytest.mark.key("quotas.tokens")
async def test_tokens_are_counted_of_arguments_and_results() -> None:
    desk = Desk({"tokens": "1000/day"})
    await desk.call(size=3600)  # 900, and 1 for `{}`
    used = {limit.measure: count for limit, _, count, _, _ in desk.quotas.current()}
    assert used == {"tokens": 901}
    with pytest.raises(QuotaExceeded):
        await desk.begin(text="x" * 4000)
    fresh = Desk({"tokens": "1000/day"})
    await fresh.call(size=40_000)  # what is in flight may pass the limit, the next call does not
    assert not await fresh.passes()


@pytest.mark.key("quotas.cost", "prices", "prices.call", "prices.tokens")
async def test_a_budget_is_reserved_before_the_call_and_given_back_when_it_failed() -> None:
    prices = {"llm/*": Price(call=1.0, tokens=10.0), "git/*": 0.5, "git/free": 0.0}
    desk = Desk({"cost": "2/day"}, prices=prices)
    assert await desk.many(5) == 4
    assert await desk.many(5, None, "git/free") == 5
    desk = Desk({"cost": "2/day", "calls": "100/day"}, prices=prices)
    for _ in range(10):
        charge = await desk.begin()
        assert charge is not None
        charge.failed(worked=False)
    used = {limit.measure: count for limit, _, count, _, _ in desk.quotas.current()}
    assert used == {"calls": 10.0}  # attempts count, failures cost nothing
    charge = await desk.begin()
    assert charge is not None
    charge.failed(worked=True)  # cancelled: the server may have worked
    assert await desk.many(5) == 3
    desk = Desk({"cost": "2/day"}, prices=prices)
    await desk.call(None, "llm/ask", size=400)  # 1 + 101 tokens × 10 / 1000
    assert [round(count, 2) for _, _, count, _, _ in desk.quotas.current()] == [2.01]


@pytest.mark.key("quotas.soft", "quotas.hard")
async def test_a_soft_limit_warns_and_one_that_is_not_hard_never_refuses() -> None:
    desk = Desk({"calls": "10/day", "soft": "80%"})
    warned = []
    for _ in range(10):
        charge = await desk.begin()
        assert charge is not None
        warned.append([each.used for each in charge.warnings])
    assert warned == [[]] * 7 + [[0.8], [0.9], [1.0]]
    with pytest.raises(QuotaExceeded):
        await desk.begin()
    assert desk.heard == [("q0", "calls", "warned")] * 3 + [("q0", "calls", "refused")]
    shadow = Desk({"calls": "1/day", "hard": False})
    assert await shadow.many(3) == 3
    assert shadow.heard == [("q0", "calls", "warned")] * 2


async def test_a_refused_call_uses_nothing_of_any_limit() -> None:
    desk = Desk({"calls": "100/day"}, {"rate": "60/min", "burst": 3}, {"concurrency": 5})
    assert await desk.many(50) == 3
    assert {limit.measure: count for limit, _, count, _, _ in desk.quotas.current()}["calls"] == 3


@pytest.mark.key("quotas.per")
async def test_each_combination_has_its_own_counter() -> None:
    alice, bob = who("alice", "agent:x"), who("bob", "agent:x")
    by_agent = Desk({"calls": "2/day", "per": ["agent"]})
    assert await by_agent.many(2, alice) + await by_agent.many(2, bob) == 2
    by_user = Desk({"calls": "2/day", "per": ["subject"]})
    assert (
        await by_user.many(2, alice) + await by_user.many(2, who("alice", "agent:y")) == 2
    )  # another agent, same user
    assert await by_user.many(2, bob) == 2
    both = Desk({"calls": "2/day", "per": ["subject", "agent"]})
    assert [await both.many(3, each) for each in (alice, bob, who("alice", "agent:y"))] == [2, 2, 2]
    one = Desk({"calls": "2/day", "per": []})
    assert await one.many(2, alice) + await one.many(2, bob) == 2
    tools = Desk({"calls": "2/day", "per": ["server", "tool"]})
    assert await tools.many(3, alice) + await tools.many(3, bob) + await tools.many(3, alice, "git/log") == 4
    app = Desk({"calls": "1/day", "per": ["app"]})
    through = who("alice", "client:editor", "agent:x")
    assert await app.many(2, through) + await app.many(2, who("bob", "client:editor")) == 1
    tenant = Desk({"calls": "1/day", "per": ["tenant"]})
    assert await tenant.many(2, alice) + await tenant.many(2, who("carol", tenant="other")) == 2


async def test_an_agent_for_itself_and_the_same_agent_for_a_user_share_its_counter() -> None:
    desk = Desk({"calls": "2/day", "per": ["agent"]})
    itself = who("agent:x", issuer="https://us")
    assert await desk.many(2, itself) + await desk.many(2, who("alice", "agent:x")) == 2


async def test_actors_that_a_foreign_token_names_open_no_new_counter() -> None:
    desk = Desk({"calls": "2/day", "per": ["agent"]})
    passed = [await desk.passes(who("alice", asserted=(Actor(f"agent:{at}"),))) for at in range(5)]
    assert sum(passed) == 2


@pytest.mark.key(
    "quotas.to", "quotas.to.subjects", "quotas.to.roles", "quotas.to.groups", "quotas.to.agents", "quotas.to.issuers"
)
async def test_whom_a_quota_is_for() -> None:
    cases = (
        ({"subjects": ["al*"]}, who("alice"), who("bob")),
        ({"roles": ["intern"]}, who(roles=("intern",)), who(roles=("Intern",))),
        ({"groups": ["g?"]}, who(groups=("g1",)), who()),
        ({"agents": ["agent:x"]}, who("alice", "agent:x"), who("alice", "agent:x", "agent:y")),
        ({"issuers": ["https://a"]}, who(issuer="https://a"), who(issuer="https://b")),
    )
    for to, meant, other in cases:
        desk = Desk({"calls": "1/day", "to": to})
        assert (await desk.many(3, meant), await desk.many(3, other)) == (1, 3), to


@pytest.mark.key("quotas.of", "quotas.id")
async def test_which_tools_a_quota_is_for() -> None:
    desk = Desk({"calls": "1/day", "of": ["git/delete_*", "notes/resource:*"]})
    assert await desk.many(3, None, "git/delete_all") == 1
    assert await desk.many(3, None, "git/status") == 3
    notes = Desk({"calls": "1/day", "of": ["notes/resource:*", "notes/prompt:*"]})
    assert await notes.many(3, None, "notes/resource:file:///a", "resources/read") == 1
    assert await notes.many(3, None, "notes/prompt:review", "prompts/get") == 0  # one counter for the caller
    assert await notes.many(3, None, "Notes/prompt:review", "prompts/get") == 3  # a server of another name


async def test_requests_about_tasks_count_by_rate_and_not_by_calls_and_ending_is_never_refused() -> None:
    desk = Desk({"calls": "1/day"}, {"rate": "60/min", "burst": 4})
    assert await desk.many(3) == 1
    assert await desk.many(9, None, "git/status", "tasks/get") == 3
    assert await desk.many(9, None, "git/status", "tasks/cancel") == 9
    assert await desk.many(9, None, "git/status", "resources/unsubscribe") == 9


# Attacks


async def test_of_fifty_calls_at_once_exactly_as_many_pass_as_may() -> None:
    desk = Desk({"calls": "17/day"}, {"rate": "1000/min"})
    said = await asyncio.gather(*(desk.begin() for _ in range(50)), return_exceptions=True)
    assert sum(isinstance(each, QuotaExceeded) for each in said) == 33


async def test_a_clock_that_is_set_back_gives_nothing_back() -> None:
    for period in ("calendar", "sliding"):
        desk = Desk({"calls": "5/day", "period": period})
        assert await desk.many(5) == 5
        for step in (-3600, -86400, -86400 * 40, 86400 * 20):
            desk.clock.wall += step
            assert step > 0 or not await desk.passes(), (period, step)
        desk.clock.wall = NOON - 86400 * 300
        assert await desk.many(9) <= 5
        desk.clock.wall += 2 * 86400  # and it does not refuse for ever
        assert await desk.many(9) == 5
    rate = Desk({"rate": "5/hour"})
    assert await rate.many(9) == 5
    rate.clock.wall += 86400  # rates do not look at that clock
    assert not await rate.passes()


async def test_new_keys_push_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callgate.policy.limits.quotas.ROOM", 100)
    desk = Desk({"calls": "2/day"})
    assert await desk.many(3) == 2
    for at in range(1000):
        await desk.passes(who(f"mallory{at}"))
    assert not await desk.passes(who("alice"))  # another object of the same caller: her counter is still there
    assert sum(desk.quotas.sizes().values()) <= 100 + 64
    late = [await desk.many(9, who(f"late{at}")) for at in range(50)]
    assert max(late) <= 2  # those who share get less, never more


async def test_counters_that_show_nothing_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callgate.policy.limits.quotas.ROOM", 50)
    desk = Desk({"rate": "60/min", "burst": 2})
    callers = [who(f"u{at}") for at in range(50)]
    for each in callers:
        await desk.call(each)
    desk.clock.pass_(60)
    for at in range(200):
        assert await desk.many(3, who(f"v{at}")) == 2
        desk.clock.pass_(5)
    assert await desk.many(3, callers[0]) == 2  # its counter was dropped, and made anew
    assert await desk.many(3, who("u0")) == 0


async def test_names_that_a_caller_makes_up_open_no_new_counter() -> None:
    desk = Desk({"calls": "3/day", "per": ["subject", "tool"]})
    passed = [
        await desk.passes(None, tool(f"notes/resource:file:///{at}", b"{}"), "resources/read") for at in range(20)
    ]
    assert sum(passed) == 3
    passed = [await desk.passes(None, tool(f"notes/method:x/{at}", b"{}"), f"x/{at}") for at in range(20)]
    assert sum(passed) == 3


async def test_no_subject_poses_as_another() -> None:
    desk = Desk({"calls": "1/day", "per": ["subject", "tool"]})
    odd = ['a","b', "a\x1fb", "*1", "[", "\ud800", "x" * 5000, "X" * 5000, "Alice"]
    assert [await desk.many(2, who(each)) for each in odd] == [1] * len(odd)
    assert await desk.many(2, who("alice", issuer="https://a")) + await desk.many(2, who("alice")) == 2
    assert await desk.many(2, who("anonymous", via="anonymous")) + await desk.many(2, who("anonymous")) == 2


async def test_using_up_one_key_harms_no_other() -> None:
    desk = Desk({"calls": "2/day"}, {"rate": "60/min"}, {"concurrency": 1})
    assert await desk.many(200, who("mallory")) == 2
    await desk.begin(who("bob"))
    assert await desk.many(2, who("alice")) == 2


async def test_other_quotas_keep_the_counters_of_what_stayed() -> None:
    desk = Desk({"calls": "5/day"}, {"calls": "5/day", "per": ["agent"]})
    running = await desk.begin()
    assert await desk.many(2) == 2
    desk.quotas.configure(QuotaRules(settings({"calls": "4/day"})))  # less, and the second one is gone
    assert await desk.many(5) == 1
    desk.quotas.configure(QuotaRules(settings({"calls": "4/hour"})))  # another period: begins anew
    assert await desk.many(9) == 4
    assert running is not None
    running.failed(worked=False)
    desk.quotas.configure(QuotaRules(settings()))
    assert not desk.quotas.any
    assert await desk.begin() is None


def test_a_state_is_good_for_one_leg_and_a_call_for_a_few() -> None:
    legs = Legs()
    legs.grant("alice", "s1", 1, 100.0)
    assert legs.take("bob", "s1", 0.0) == 0
    assert (legs.take("alice", "s1", 0.0), legs.take("alice", "s1", 0.0)) == (1, 0)
    legs.grant("alice", "late", 1, 100.0)
    assert legs.take("alice", "late", 100.0) == 0
    legs.grant("alice", "again", LEGS + 1, 100.0)
    assert legs.take("alice", "again", 0.0) == 0
    for at in range(5000):
        legs.grant("mallory", f"m{at}", 1, 100.0)
    assert len(legs) <= 1024
    legs.sweep(200.0)
    assert len(legs) == 0


@pytest.mark.parametrize(
    "wrong", [{"quotas": [{"id": "a", "calls": "1/day", "of": ["git"]}]},
              {"quotas": [{"id": "a", "calls": "1/day", "to": {"roles": ["[x"]}}]},
              {"prices": {"git/[": 1.0}}],
)  # fmt: skip
def test_globs_that_cannot_be_read_are_refused(wrong: dict[str, object]) -> None:
    from callgate.config import Settings

    with pytest.raises(ConfigError):
        QuotaRules(msgspec.convert(wrong, Settings))


async def test_a_hundred_quotas_cost_little() -> None:
    """The bound is loose: machines of tests are slow and shared (docs/limits.md has the figures)."""
    quotas = [{"calls": "1000000/day", "of": [f"s{at}/*"], "to": {"roles": [f"r{at}"]}} for at in range(98)]
    desk = Desk(*quotas, {"calls": "1000000/day"}, {"rate": "1000000/s"})
    alice, made = who(), tool()
    await desk.call(alice, made)
    best = min([await _took(desk, alice, made) for _ in range(5)])
    assert best < 40e-6


async def _took(desk: Desk, alice: object, made: object) -> float:
    begun = time.perf_counter()
    for _ in range(200):
        await desk.begin(alice, made)  # type: ignore[arg-type]
    return (time.perf_counter() - begun) / 200


def test_what_is_larger_than_every_number_is_no_allowance() -> None:
    from callgate.config import allowance

    assert allowance("9" * 400 + "/day") is None
    assert allowance("0/day") is None
