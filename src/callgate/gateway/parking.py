"""Calls to legacy servers that stay open while a modern client answers a question.

A legacy server asks in the middle of a call; a modern client is asked through the call's result. So the call is kept
("parked"), the request of the client is answered with the question, and the retry finds the call again by a handle that
works once. Each request of the client for one parked call is a leg.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from callgate.errors import Overloaded, UpstreamError
from callgate.gateway import wire
from callgate.gateway.ladder import LOG_LEVELS
from callgate.gateway.rounds import CAPABILITY, declares, input_required, modern_form, needs
from callgate.gateway.seal import Round, refused
from callgate.gateway.task_making import sent, settled
from callgate.types import Answer, Conduct, Front, Permitted, Question, RpcError

if TYPE_CHECKING:
    from callgate.gateway.house import House
    from callgate.gateway.pipeline import Asked

#: Calls of all callers together that may wait for answers.
MOST = 1024
#: Questions that a server asks within this time (seconds) reach the client together.
TOGETHER = 0.005

GONE = (
    "The call that this requestState belongs to is not waiting any more: it was answered before, or given up. "
    "It was not run again."
)
LOST = "The call that this requestState belongs to was lost when callgate restarted. It was not run again."
MALFORMED = "inputResponses must be an object with one object for each key; the call still waits."
CROWDED = "The server asks a question, but too many calls wait for answers already; the call was given up."

_NOT_OFFERED = Answer(error=RpcError(wire.METHOD_NOT_FOUND, "The client cannot be asked this any more."))


class ParkedCall:
    """A running call that may ask; it outlives the legs of its client. ``open`` are the questions without an answer."""

    def __init__(self, first: Asked, admit: Callable[[ParkedCall], bool]) -> None:
        self.open: dict[str, tuple[Question, asyncio.Future[Answer]]] = {}
        self.task: asyncio.Task[Answer]
        self._first = first
        self._leg: Asked | None = first
        self._admit = admit
        self._stirred = asyncio.Event()
        self._shown: frozenset[str] = frozenset()
        self._crowded = False
        self._asked = 0

    @property
    def principal(self) -> str:
        return self._first.principal.key

    def start(self, permitted: Permitted, house: House) -> None:
        emit = self.emit if self._first.conduct.emit is not None else None

        async def run() -> Answer:
            return await sent(permitted, Conduct(emit, self.ask), house)

        self.task = asyncio.create_task(run(), name="call that may ask")
        self.task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Answer]) -> None:
        if not task.cancelled():
            task.exception()  # whether anybody comes to hear it or not
        self._stirred.set()

    # The server's side.

    async def ask(self, question: Question) -> Answer:
        """Wait for the client's answer, over as many legs as it takes."""
        if question.method not in CAPABILITY:
            return _NOT_OFFERED
        self._crowded = self._crowded or not self._admit(self)
        self._asked += 1
        key = f"r{self._asked}"
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.open[key] = question, answered
        self._stirred.set()
        try:
            return await answered
        finally:
            self.open.pop(key, None)

    def emit(self, notification: bytes) -> None:
        """A notification for whoever waits now; nobody gets what is said between two legs."""
        leg = self._leg
        if leg is None or leg.conduct.emit is None:
            return
        said = notification if leg is self._first else _for_leg(wire.decode(notification), leg)
        if said is not None:
            leg.conduct.emit(said)

    # The client's side.

    def answer(self, responses: Mapping[str, Any]) -> None:
        """Take the client's answers; those to questions that nobody asked are ignored (PARK-6)."""
        for key in responses.keys() & self.open.keys() & self._shown:
            _, answered = self.open.pop(key)
            if not answered.done():
                answered.set_result(Answer(result=wire.encode(responses[key])))

    async def leg(self, asked: Asked) -> Answer | dict[str, Question]:
        """The server's answer, or its questions. A client that gives up during a leg gives up the call."""
        self._leg = asked
        try:
            return await self._next(asked.front)
        except BaseException:
            self.task.cancel()
            raise
        finally:
            self._leg = None

    async def _next(self, front: Front) -> Answer | dict[str, Question]:
        while True:
            self._stirred.clear()
            if self.open:
                await asyncio.wait({self.task}, timeout=TOGETHER)
            if self.task.done():
                if self.task.cancelled():
                    raise UpstreamError("The call was given up because callgate is stopping.")
                return self.task.result()
            if self._crowded:
                raise Overloaded(CROWDED, hint="Answer or give up some of them.")
            self._refuse_undeclared(front)
            if self.open:
                self._shown = frozenset(self.open)
                return {key: question for key, (question, _) in self.open.items()}
            await self._stirred.wait()

    def _refuse_undeclared(self, front: Front) -> None:
        """A leg may declare less than the one before it; the server learns that the rest cannot be asked (MRTR-3)."""
        for key, (question, answered) in tuple(self.open.items()):
            if not declares(front.capabilities, needs(question)):
                del self.open[key]
                if not answered.done():
                    answered.set_result(_NOT_OFFERED)


class ParkingLot:
    """All calls that may ask, and by handle those that wait for their clients.

    A principal has ``limits.max_parked`` places, all together have ``MOST``: a call takes one with its first question
    and keeps it to its end. A client that does not come back within ``limits.parked_ttl`` has given its call up.
    """

    def __init__(self, house: House) -> None:
        self._house = house
        self._running: set[ParkedCall] = set()
        self._waiting: dict[bytes, tuple[ParkedCall, asyncio.TimerHandle]] = {}
        self._places: dict[ParkedCall, str] = {}
        self._taken: dict[str, int] = {}

    def __len__(self) -> int:
        """The calls that wait for their clients."""
        return len(self._waiting)

    async def begin(self, permitted: Permitted, asked: Asked) -> Answer:
        """Make a call that may ask: the server's answer, or its first question."""
        parked = ParkedCall(asked, self._admit)
        parked.start(permitted, self._house)
        if asked.charge is not None:
            asked.charge.until(parked.task)  # it goes on while nobody waits for it
        self._running.add(parked)
        parked.task.add_done_callback(lambda _: self._running.discard(parked))
        return await self._drive(parked, permitted, asked)

    async def resume(self, round: Round, permitted: Permitted, asked: Asked) -> Answer:
        """Go on with the call that waits under this handle. It is found once (PARK-3)."""
        responses = permitted.call.params.get("inputResponses", {})
        if not isinstance(responses, dict) or not all(isinstance(each, dict) for each in responses.values()):
            raise refused(MALFORMED)
        found = self._waiting.pop(round.handle, None)
        if found is None:
            raise refused(GONE if round.node == self._house.seal.node else LOST)
        parked, timer = found
        timer.cancel()
        parked.answer(responses)
        return await self._drive(parked, permitted, asked)

    async def aclose(self) -> None:
        """Give everything up."""
        for handle in tuple(self._waiting):
            self._give_up(handle)
        tasks = [parked.task for parked in self._running]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _drive(self, parked: ParkedCall, permitted: Permitted, asked: Asked) -> Answer:
        call = permitted.call
        try:
            said = await parked.leg(asked)
        except BaseException:
            self._leave(parked)
            raise
        if isinstance(said, Answer):
            self._leave(parked)
            return settled(said, call, self._house)
        handle, ttl = os.urandom(16), self._house.settings.limits.parked_ttl
        state = self._house.seal.seal(call, "parked", ttl, handle=handle)
        timer = asyncio.get_running_loop().call_later(ttl, self._give_up, handle)
        self._waiting[handle] = parked, timer
        return input_required({key: modern_form(question, call) for key, question in said.items()}, state)

    def _give_up(self, handle: bytes) -> None:
        """The client did not come back: the server is told that its call is cancelled (PARK-4)."""
        parked, timer = self._waiting.pop(handle)
        timer.cancel()
        parked.task.cancel()
        self._leave(parked)

    def _admit(self, parked: ParkedCall) -> bool:
        """Whether the call has a place, or gets one now (PARK-8)."""
        if parked in self._places:
            return True
        who = parked.principal
        taken = self._taken.get(who, 0)
        if taken >= self._house.settings.limits.max_parked or len(self._places) >= MOST:
            return False
        self._places[parked], self._taken[who] = who, taken + 1
        return True

    def _leave(self, parked: ParkedCall) -> None:
        who = self._places.pop(parked, None)
        if who is not None:
            self._taken[who] -= 1
            if not self._taken[who]:
                del self._taken[who]


def _for_leg(message: dict[str, Any], leg: Asked) -> bytes | None:
    """A notification that was meant for the first leg, in the words of this one; ``None`` if it wants none."""
    params = message["params"]
    if message["method"] == "notifications/progress":
        if "progressToken" not in leg.meta:
            return None
        params["progressToken"] = leg.meta["progressToken"]
    elif message["method"] == "notifications/message":
        wanted, level = leg.front.log_level, params.get("level")
        if wanted is None or (level in LOG_LEVELS and LOG_LEVELS.index(level) < LOG_LEVELS.index(wanted)):
            return None
    return wire.encode(message)
