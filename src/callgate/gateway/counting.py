"""Rates, quotas and budgets around one call: counted before it leaves, and settled when it has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from callgate.config import QuotasStore, Settings
from callgate.errors import CallgateError, ConsentNeeded, Overloaded, UpstreamError, UpstreamTimeout
from callgate.errors import QuotaExceeded as Exceeded
from callgate.gateway.rounds import INPUT_REQUIRED
from callgate.gateway.wire import encode
from callgate.policy import Charge, Keeper, QuotaRules, Quotas, Shared
from callgate.store import SqliteCounts
from callgate.types import Answer, Call

if TYPE_CHECKING:
    from callgate.config import Loaded
    from callgate.gateway.house import House
    from callgate.gateway.pipeline import Asked

#: The member of a result's ``_meta`` that says which limits are nearly reached.
NOTE = "callgate/quota"
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class _State(msgspec.Struct, rename="camel"):
    request_state: str = ""


class Counting:
    """The quotas of a house and where they are kept. ``any``: whether calls are counted at all."""

    def __init__(self, house: House, loaded: Loaded) -> None:
        self._house = house
        store = _store(loaded.settings)
        self.shared = None if store is None else Shared(store, self._secret)
        metrics = house.metrics
        labels = ("quota", "measure")
        refused = metrics.counter("callgate_quota_refusals_total", "Calls refused by a quota.", labels)
        warned = metrics.counter("callgate_quota_warnings_total", "Calls answered with a warning of a quota.", labels)
        hears = {"refused": refused, "warned": warned}
        self.quotas = Quotas(
            loaded.settings, self.shared, told=lambda quota, measure, which: hears[which].add(quota, measure)
        )
        self.any = self.quotas.any
        self._keeper = Keeper(self.quotas, SqliteCounts(house.database))
        metrics.gauge("callgate_quota_keys", "Counters of quotas.", self._keys, ("counter",))
        metrics.gauge("callgate_quota_store_away", "1 while the quota store does not answer.", self._away)

    async def open(self) -> None:
        await self._keeper.open()

    async def aclose(self) -> None:
        await self._keeper.aclose()
        if self.shared is not None:
            await self.shared.aclose()

    async def configure(self, rules: QuotaRules) -> None:
        """Take over other quotas; counters of what stayed the same stay."""
        await self._keeper.write()
        self.quotas.configure(rules)
        self.any = self.quotas.any
        await self._keeper.read_back()

    async def charge(self, call: Call, asked: Asked) -> Charge | None:
        """Count the call; raises ``QuotaExceeded``. A leg of a call that was counted is part of it, once."""
        round, state = asked.round, asked.params.get("requestState")
        if round is None or not isinstance(state, str):
            return await self.quotas.admit(call)
        who, moment = call.principal.key, self.quotas.clock()
        leg = self.quotas.legs.take(who, state, moment.mono)
        try:
            charge = await self.quotas.admit(call, leg=leg, parked=round.kind == "parked")
        except BaseException:
            if leg:
                self.quotas.legs.grant(who, state, leg, moment.mono + self._house.settings.limits.parked_ttl)
            raise
        asked.leg = leg
        return charge

    def failed(self, asked: Asked, error: BaseException) -> None:
        """The call has failed. Who cancels it before the end, or may not see the result, has used the server."""
        if asked.charge is not None:
            idle = isinstance(error, (ConsentNeeded, Overloaded, UpstreamError))
            worked = not idle or isinstance(error, UpstreamTimeout)
            asked.charge.failed(worked=worked and asked.sent > 0)

    def spent(self, asked: Asked, reply: Answer) -> Answer:
        """The call was answered: what the answer holds is counted, and its limits are told where they are near."""
        # The states of modern clients are sealed here; what a legacy server says to a legacy client is its own affair.
        if reply.result_type == INPUT_REQUIRED and reply.error is None and asked.front.era == "modern":
            self._ask_back(asked, reply)
        charge = asked.charge
        if charge is None:
            return reply
        if reply.error is not None or not asked.sent:  # a server that failed, or was not asked
            charge.failed(worked=False)
            return reply
        charge.ended(len(reply.result), self.quotas.clock())
        return _noted(reply, charge, asked) if charge.warnings else reply

    def _ask_back(self, asked: Asked, reply: Answer) -> None:
        state = msgspec.json.decode(reply.result, type=_State).request_state
        if state:
            until = self.quotas.clock().mono + self._house.settings.limits.parked_ttl
            self.quotas.legs.grant(asked.principal.key, state, asked.leg + 1, until)

    async def _secret(self, reference: str) -> str:
        return await self._house.secrets.resolve(reference, True)

    def _keys(self) -> dict[tuple[str, ...], float]:
        return {(name,): float(count) for name, count in self.quotas.sizes().items()}

    def _away(self) -> float:
        return float(self.shared is not None and self.shared.away)


def _store(settings: Settings) -> QuotasStore | None:
    store = settings.quotas_store
    return QuotasStore(url=store) if isinstance(store, str) else store


def _noted(reply: Answer, charge: Charge, asked: Asked) -> Answer:
    """The answer with a note of the limits that are near, and the same for the record."""
    told = [
        {"measure": each.measure, "used": each.used, "resets": max(1, round(each.resets))} for each in charge.warnings
    ]
    said = "; ".join(f"quota {each.quota}: {each.used:.0%} of {each.measure}" for each in charge.warnings)
    verdict = asked.verdict
    asked.verdict = msgspec.structs.replace(verdict, reason=f"{verdict.reason}; {said}" if verdict.reason else said)
    try:
        members: dict[str, Any] = dict(_members(reply.result))
        meta = _members(members.get("_meta", b"{}"))
    except msgspec.MsgspecError:  # not an object: whatever the server meant by it, it stays
        return reply
    members["_meta"] = {**meta, NOTE: told}
    return msgspec.structs.replace(reply, result=encode(members))


def headers_of(error: CallgateError) -> bytes:
    """The header lines of a refusal by a quota: when to come back (RFC 9110, section 10.2.3), and by which limit
    (draft-ietf-httpapi-ratelimit-headers).
    """
    if not isinstance(error, Exceeded):
        return b""
    lines = [f"retry-after: {error.retry_after}"]
    if error.window and error.whole:
        lines.append(f'ratelimit-policy: "{error.measure}";q={int(error.whole)};w={int(max(error.window, 1))}')
        lines.append(f'ratelimit: "{error.measure}";r=0;t={error.retry_after}')
    return "".join(f"{line}\r\n" for line in lines).encode()
