"""A server wants its user to agree before it takes a call: how the client learns where, in the way of its era.

The server has done nothing (it answered 401 or 403), so the call may be made again when the user has agreed on the page
of ``connecting.py``. What the client gets is the address of that page and nothing else (rules ELI-1, ELI-4).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import OrderedDict
from typing import TYPE_CHECKING

from callgate.audit import Record, new_id
from callgate.errors import ConsentNeeded
from callgate.gateway import wire
from callgate.gateway.exchange import exchange
from callgate.gateway.rounds import ASKING, URL_REQUIRED, declares, input_required, modern_form, named
from callgate.identity import user_of
from callgate.types import JSON, Answer, Call, Front, Outcome, Permitted, Principal, Question, RpcError

if TYPE_CHECKING:
    from callgate.gateway.house import House
    from callgate.gateway.pipeline import Asked

#: The path of the page on which the user agrees; the ticket comes behind it.
PAGE = "/oauth/connect/"
#: Seconds that a client which has come back waits for a page that is still open.
PATIENCE = 25.0
#: Demands that are remembered: for the record of each, and for telling sessions that theirs was met.
MOST = 10_000
#: The legacy version whose clients open pages.
SINCE = "2025-11-25"
#: The member of a result's ``_meta`` that says where the user can agree, for clients that know no better way.
CONSENT = "callgate/consent"
METHOD = "oauth/connect"

_OPENS: JSON = {"elicitation": {"url": {}}}


class Consents:
    """The demands of servers that users agree, and who waits for that."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._asked: OrderedDict[str, set[str]] = OrderedDict()  # the demand → the sessions that were told
        self._waiting: dict[tuple[str, str], asyncio.Event] = {}

    async def answer(self, needed: ConsentNeeded, permitted: Permitted, asked: Asked) -> Answer:
        """The answer to a call whose user has to agree. One that was asked already is waited for, and called again."""
        if not needed.ticket:
            raise needed
        round = asked.round
        if round is not None and round.kind == "url" and round.inner == demand(needed.ticket):
            await self._arrival(permitted.call)
            try:
                return await exchange(self._house.judged_anew(permitted.call), asked, self._house)
            except ConsentNeeded as again:
                needed = again
        return self._put(needed, permitted.call)

    def given(self, server: str, user: str, ticket: str = "") -> None:
        """The user has agreed: calls that wait go on, the clients that were told to open the page learn of it."""
        event = self._waiting.pop((user, server), None)
        if event is not None:
            event.set()
        for id in self._asked.pop(demand(ticket), ()):
            session = self._house.sessions.get(id)
            if session is not None:
                session.push(wire.notification("notifications/elicitation/complete", {"elicitationId": demand(ticket)}))
        self._house.personal.connected(server, user)

    def record(self, who: Principal, server: str, outcome: Outcome, reason: str) -> Record:
        """What the audit log says of a step on the way to a user's agreement."""
        return Record(new_id(), who, Front(), METHOD, server, "", None, outcome, reason=reason)

    async def _arrival(self, call: Call) -> None:
        key = user_of(call.principal), call.tool.server
        event = self._waiting.setdefault(key, asyncio.Event())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await event.wait()
        if self._waiting.get(key) is event:
            del self._waiting[key]

    def _put(self, needed: ConsentNeeded, call: Call) -> Answer:
        """Tell the client, in words or in a question."""
        self._note(needed, call)
        front, mark = call.front, demand(needed.ticket)
        url = self._house.public_url + PAGE + needed.ticket
        server = call.tool.server
        why = f"Server `{server}` wants you to sign in to it before callgate may use it for you."
        question = Question("elicitation/create", {"mode": "url", "message": why, "url": url, "elicitationId": mark})
        if call.method in ASKING and declares(front.capabilities, _OPENS):
            if front.era == "modern":
                state = self._house.seal.seal(call, "url", self._house.settings.limits.parked_ttl, mark)
                return input_required({"sign_in": modern_form(question, call)}, state)
            if front.version >= SINCE:
                self._asked.setdefault(mark, set()).add(front.session or "")
                params = question.params if front.door.startswith("server:") else named(question, server).params
                return Answer(error=RpcError(URL_REQUIRED, why, {"elicitations": [dict(params)]}), era="legacy")
        how = f"Open {url} in a browser, agree there, and call again."
        if call.method != "tools/call":
            told = ConsentNeeded(why, hint=how, data={"kind": "consent", "server": server, "url": url})
            told.server, told.ticket = server, needed.ticket
            raise told
        return _told(f"{why} {how}", {"server": server, "url": url})

    def _note(self, needed: ConsentNeeded, call: Call) -> None:
        """One record for each demand, however often the client calls."""
        mark = demand(needed.ticket)
        if mark not in self._asked:
            self._house.journal.put(self.record(call.principal, call.tool.server, "ok", "the user was asked to agree"))
            if len(self._asked) >= MOST:
                self._asked.popitem(last=False)
            self._asked[mark] = set()


def demand(ticket: str) -> str:
    """Names the demand of a ticket, and does not open its page."""
    return hashlib.sha256(f"demand\0{ticket}".encode()).hexdigest()[:32]


def _told(words: str, consent: JSON) -> Answer:
    said = {"content": [{"type": "text", "text": words}], "isError": True, "_meta": {CONSENT: consent}}
    return Answer(result=wire.encode(said), era="legacy", is_error=True)
