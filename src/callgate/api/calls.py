"""The audit log for its readers: search, one record, why."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from callgate.api.explain import find_tool
from callgate.api.reader import Reader
from callgate.api.shapes import Calls, CallShown, DecidingRule, Why
from callgate.audit import Filters, Row, describe, new_id, read_filters, read_id, show_id
from callgate.errors import Denied, NotFound
from callgate.policy import Explanation, render_explanation
from callgate.types import PROMPT, RESOURCE, Actor, Call, Front, Principal
from callgate.upstream import without_last_words

if TYPE_CHECKING:
    from callgate.gateway import House

#: Searches at once; a long one (at most ten seconds) must not take every thread of the house.
SEARCHES = 3
#: What a caller may not read of its own refusals (POL-10).
HIDDEN = {"rule": "", "policy": "", "reason": ""}


class Log:
    """The audit log, read in threads."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._places = asyncio.Semaphore(SEARCHES)

    async def find(self, reader: Reader, query: Mapping[str, str]) -> Calls:
        """What ``read_filters`` makes of the query, within what the reader may see."""
        filters = _bounded(read_filters(query), reader)
        async with self._places:
            latest = await asyncio.to_thread(self._latest, filters, reader)
            rows = await asyncio.to_thread(self._house.audit.find, filters)
        shown = [describe(row) for row in rows]
        mine = [_shown(each, reader) for each in shown if _may_read(each, reader)]
        last = show_id(rows[-1].id) if rows else None
        if filters.after_id is not None:
            return Calls(mine, last or latest, last or latest)
        return Calls(mine, last if len(rows) >= filters.limit else None, latest)

    def _latest(self, filters: Filters, reader: Reader) -> str:
        """Where following begins: asked before the search, so that nothing falls between the two."""
        newest = Filters(tenant=filters.tenant, subject="" if reader.everything else filters.subject, limit=1)
        rows = self._house.audit.find(newest)
        return show_id(rows[0].id) if rows else show_id(0)

    async def get(self, reader: Reader, text: str) -> tuple[Row, dict[str, Any]]:
        """One record; raises ``NotFound`` for one that is not there and, in the same words, for somebody else's."""
        id = read_id(text)
        async with self._places:
            row = await asyncio.to_thread(self._house.audit.get, id)
        record = describe(row) if row is not None else {}
        if row is None or row.tenant != reader.who.tenant or not _may_read(record, reader):
            raise NotFound(f"There is no call {show_id(id)}.", hint="`callgate logs` lists the newest calls.")
        return row, record

    async def show(self, reader: Reader, text: str) -> CallShown:
        return _shown((await self.get(reader, text))[1], reader)

    async def why(self, reader: Reader, text: str) -> Why:
        """The record, the rule that decided, and the same call judged again."""
        _, record = await self.get(reader, text)
        call = _shown(record, reader)
        if not reader.everything:
            return Why(call, None, None, "", ["Rules and reasons are for operators and auditors."])
        notes: list[str] = []
        explanation = await self._again(record, notes)
        text = render_explanation(explanation) if explanation is not None else ""
        return Why(call, _deciding(record, self._house, notes), explanation, text, notes)

    async def _again(self, record: Mapping[str, Any], notes: list[str]) -> Explanation | None:
        if not record["server"]:
            notes.append(_unjudged(record))
            return None
        tool, known = find_tool(self._house, f"{record['server']}/{record['tool']}")
        if not known:
            notes.append("The tool is not listed now; it is judged as one that claims nothing of itself.")
        arguments = _arguments(record, notes)
        notes.append("Judged again with the policy and the clock of now; a record keeps no groups and no claims.")
        front = Front(
            record.get("door", ""),
            record.get("version", ""),
            record.get("era", "modern"),
            record.get("transport", "http"),
        )
        call = Call(new_id(), _principal(record), tool, arguments, front, 0)
        return await asyncio.to_thread(self._house.policy.explain, call)


def _bounded(filters: Filters, reader: Reader) -> Filters:
    """The filters with the reader's tenant, and for who reads only their own things their subject."""
    who = reader.who
    if filters.tenant not in ("", who.tenant):
        raise Denied("You may read the records of your own tenant only.")
    if reader.everything:
        return msgspec.structs.replace(filters, tenant=who.tenant)
    if filters.subject not in ("", who.subject):
        raise Denied("You may read your own calls only.", hint="Leave `subject` out.")
    return msgspec.structs.replace(filters, tenant=who.tenant, subject=who.subject)


def _may_read(record: Mapping[str, Any], reader: Reader) -> bool:
    """Equal subjects of two issuers are two callers, and nobody is a stranger's namesake."""
    who = reader.who
    if reader.everything:
        return True
    mine = (who.subject, who.issuer, who.via)
    return mine == (record["subject"], record.get("issuer", ""), record.get("via", ""))


def _shown(record: Mapping[str, Any], reader: Reader) -> CallShown:
    shown = dict(record)
    if not reader.everything:
        shown.pop("shadow", None)
        said = without_last_words(record.get("reason", ""))
        shown |= HIDDEN if record["outcome"] == "denied" else {"rule": "", "policy": "", "reason": said}
    return msgspec.convert(shown, CallShown)


def _deciding(record: Mapping[str, Any], house: House, notes: list[str]) -> DecidingRule | None:
    id, version = record.get("rule", ""), record.get("policy", "")
    if version and version != house.policy.version:
        notes.append(f"The policy has changed since: it was {version}, now it is {house.policy.version}.")
    if not id:
        return None
    policy = house.policy
    rule = next((rule for rule in (*policy.rules, *policy.results) if rule.id == id), None)
    if rule is None:
        return DecidingRule(id)
    return DecidingRule(
        id, rule.effect if rule.effect != "result" else None, rule.place.file, rule.place.line, rule.reason
    )


def _unjudged(record: Mapping[str, Any]) -> str:
    """What had not been found yet when a request was refused."""
    kind = next((prefix[:-1] for prefix in (PROMPT, RESOURCE) if record["tool"].startswith(prefix)), "tool")
    if record.get("method", "").startswith("tasks/"):
        kind = "task"
    return f"Nothing was judged: no {kind} had been found."


def _arguments(record: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    kept = record.get("args")
    if isinstance(kept, dict):
        if "[redacted]" in msgspec.json.encode(kept).decode():
            notes.append("Some arguments were redacted in the record; conditions over them see `[redacted]`.")
        return kept
    if kept is not None or record.get("args_sha256"):
        notes.append("The arguments were not kept whole; they are judged as if there were none.")
    return {}


def _principal(record: Mapping[str, Any]) -> Principal:
    actors = record.get("chain", ())
    chain = tuple(Actor(each["sub"], each.get("iss", ""), tuple(each.get("roles", ()))) for each in actors)
    asserted = tuple(Actor(each["sub"], each.get("iss", "")) for each in record.get("asserted", ()))
    return Principal(
        subject=record["subject"], key="", tenant=record["tenant"], issuer=record.get("issuer", ""),
        roles=tuple(record.get("roles", ())), chain=chain, via=record.get("via") or "key",
        asserted=asserted,
    )  # fmt: skip
