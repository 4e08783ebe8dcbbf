"""The account of one call: wrapped around its way through the house, once.

Whatever becomes of a call (answered, denied, failed, cancelled) leaves exactly one audit record and one
observation in the metrics. With ``audit.durability: strict`` the answer waits until the record is on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from callgate.audit import Record, new_id, show_id
from callgate.errors import CallgateError, Denied, Overloaded, QuotaExceeded, UpstreamError, UpstreamTimeout
from callgate.gateway.pipeline import Asked, answer
from callgate.types import Answer, Front, Outcome, Principal
from callgate.upstream import without_last_words

if TYPE_CHECKING:
    from callgate.gateway.house import House

STRANGER = Principal(subject="unauthenticated", key="", via="anonymous")
#: The reason in the record of a request that was answered with a question.
ASKED_BACK = "the server asks the client"


async def governed(asked: Asked, house: House) -> Answer:
    """``answer`` with its record; an error of ours carries the call id to the client."""
    if house.strict and house.journal.full:
        full = Overloaded("The audit log cannot take more records; the call was not made.")
        _note(_refused(asked, full), house)  # where there is no room, it is counted in a gap
        raise full
    try:
        house.places.take(asked.principal.key, house.settings.limits.max_calls)
        try:
            reply = await answer(asked, house)
            if asked.charge is not None or asked.leg:
                reply = house.counting.spent(asked, reply)
        except BaseException as error:
            house.counting.failed(asked, error)
            raise
        finally:
            house.places.give_back(asked.principal.key)
    except CallgateError as error:
        await _keep(_refused(asked, error), house)
        error.data = {**(error.data or {}), "callId": show_id(asked.id)}
        if isinstance(error, UpstreamError) and not _alone(asked, house):
            error.message = without_last_words(error.message)  # operators read them in the record
        raise
    except asyncio.CancelledError:
        with contextlib.suppress(Overloaded):
            await _keep(_entry(asked, "cancelled", "the client cancelled the call"), house)
        raise
    except BaseException as error:
        _note(_entry(asked, "failed", f"internal error: {type(error).__name__}", -32603), house)
        raise
    entry = _answered(asked, reply)
    if house.strict:
        await _keep(entry, house)
    else:
        _note(entry, house)
    return reply


def stranger(error: CallgateError, door: str) -> Record:
    """The record of a request whose credential did not hold: nobody was recognised, nothing was read."""
    return Record(
        id=new_id(), principal=STRANGER, front=Front(door=door), method="", server="", tool="", arguments=None,
        outcome="refused", rule="", policy="", reason=error.message, error_code=error.rpc_code, duration_ns=0,
        upstream_ns=0, bytes_in=0, bytes_out=0, trace_id="",
    )  # fmt: skip


def _alone(asked: Asked, house: House) -> bool:
    """Whether the caller is the only kind there is: a laptop without keys and issuers, whose user runs the servers."""
    identity = house.settings.identity
    return asked.principal.via == "anonymous" and not identity.keys and not identity.jwt and identity.oauth is None


async def _keep(entry: Record, house: House) -> None:
    if not house.strict:
        return _note(entry, house)
    _observe(entry, house)
    await house.journal.put_durable(entry)


def _note(entry: Record, house: House) -> None:
    _observe(entry, house)
    house.journal.put(entry)


def _observe(entry: Record, house: House) -> None:
    house.metrics.observe(
        entry.principal.tenant, entry.server, entry.tool, entry.outcome, entry.duration_ns, entry.upstream_ns
    )


def _answered(asked: Asked, reply: Answer) -> Record:
    if reply.error is not None:
        return _entry(asked, "failed", reply.error.message, reply.error.code)
    if asked.guard and not asked.sent:  # the guard answered in the server's place
        return _entry(asked, "refused", asked.guard[0]["says"], None, len(reply.result))
    reason = ASKED_BACK if reply.result_type == "input_required" else asked.verdict.reason
    return _entry(asked, "tool_error" if reply.is_error else "ok", reason, None, len(reply.result))


def _refused(asked: Asked, error: CallgateError) -> Record:
    if isinstance(error, Denied):
        # Without a verdict it was not the policy that said no.
        reason = asked.verdict.reason if error.verdict is not None else error.message
        return _entry(asked, "denied", reason, error.rpc_code)
    outcome: Outcome = "refused"
    if isinstance(error, UpstreamError):
        outcome = "timeout" if isinstance(error, UpstreamTimeout) else "failed"
    return _entry(asked, outcome, error.record if isinstance(error, QuotaExceeded) else error.message, error.rpc_code)


def _entry(asked: Asked, outcome: Outcome, reason: str, code: int | None = None, size: int = 0) -> Record:
    now, tool, verdict = time.perf_counter_ns(), asked.tool, asked.verdict
    server, name = (tool.server, tool.name) if tool is not None else ("", asked.name[:256])
    # By position, in the order of the fields: this runs once for every call.
    return Record(
        asked.id, asked.principal, asked.front, asked.method, server, name, asked.arguments, outcome,
        verdict.rule, verdict.policy, reason, code, now - asked.received, now - asked.sent if asked.sent else 0,
        asked.size, size, asked.trace_id, verdict.shadow, asked.guard,
    )  # fmt: skip
