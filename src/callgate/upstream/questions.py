"""What a legacy server asks while it works on a call, or outside any: who is asked, and how the answer goes back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any

import msgspec

from callgate.errors import CallgateError, UpstreamTimeout
from callgate.types import Answer, Ask, Call, Question, RpcError

from .bulkhead import Bulkhead
from .capabilities import permits
from .purpose import Purpose
from .relay import Relay
from .wire import HOP, INTERNAL_ERROR, METHOD_NOT_FOUND, Envelope, encode, params_of

MAX_OPEN = 64  # questions of one link that wait for an answer
MAX_HELD = 32 * 1024 * 1024  # bytes of them, beside the first
COURTESY = 1.0  # seconds in which a question is taken back

_NOT_OFFERED = Answer(error=RpcError(METHOD_NOT_FOUND, "the client cannot be asked this"))
_TOO_MANY = Answer(error=RpcError(INTERNAL_ERROR, "too many questions are open"))
_ENDED = Answer(error=RpcError(INTERNAL_ERROR, "the call that this belongs to has ended"))
_FAILED = Answer(error=RpcError(INTERNAL_ERROR, "the client could not be asked"))

log = logging.getLogger("callgate.upstream")


class Talk:
    """One running call whose client can be asked: ``async with Talk(ask, deadline, floor)``.

    While a question is open the call's clock stands still and its place at the server is free for others; it is
    taken back without queueing.
    """

    def __init__(self, ask: Ask, deadline: float, floor: Bulkhead) -> None:
        self.ask = ask
        self.open: set[asyncio.Task[Answer]] = set()
        self._floor = floor
        self._clock = asyncio.timeout_at(deadline)
        self._loop = asyncio.get_running_loop()
        self._paused: float | None = None
        self._left = 0.0

    async def __aenter__(self) -> Talk:
        await self._clock.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        left = tuple(self.open)
        for task in left:
            task.cancel()
        self.open.clear()
        self.go_on()
        try:
            await self._clock.__aexit__(kind, error, trace)
        except TimeoutError:
            raise UpstreamTimeout("did not answer in time") from None
        finally:
            # A client is told that it need not answer before it gets the answer to its call. Where the call is given
            # up, the server hears of that first.
            if left and kind is not asyncio.CancelledError:
                await asyncio.wait(left, timeout=COURTESY)

    def pause(self) -> None:
        if self._paused is None:
            self._paused = self._loop.time()
            self._floor.leave()
            if not self._clock.expired():
                self._left = (self._clock.when() or self._paused) - self._paused
                self._clock.reschedule(None)

    def go_on(self) -> None:
        """The last question is answered."""
        if self._paused is not None and not self.open:
            self._paused = None
            self._floor.running += 1
            if not self._clock.expired():
                self._clock.reschedule(self._loop.time() + self._left)


class Questions:
    """The open questions of one link. ``respond`` sends an answer, in the name of whose call it was asked for."""

    def __init__(self, purpose: Purpose, respond: Callable[[bytes, Call | None], None]) -> None:
        self._purpose = purpose
        self._respond = respond
        self._open: dict[int | str, asyncio.Task[Answer]] = {}
        self._held = 0
        self._withdrawn: set[asyncio.Task[Answer]] = set()

    def talk(self, ask: Ask | None, deadline: float) -> Talk | None:
        """For a call that begins; ``None`` when nobody can be asked during it."""
        if ask is None or not self._purpose.capabilities:
            return None
        return Talk(ask, deadline, self._purpose.floor)

    def asked(self, message: Envelope, relay: Relay | None, idle: bool) -> None:
        """A request of the server. ``relay`` is the call that it belongs to, ``idle`` says that no call is running."""
        ident, method, params = message.id, message.method or "", params_of(message)
        assert ident is not None
        if ident in self._open:
            return  # one answer goes to each id, and somebody is already looking for it
        call = relay.call if relay is not None else None
        if method == "ping":
            self._respond(response(ident, Answer(result=b"{}")), call)
            return
        talk = relay.talk if relay is not None else None
        ask = talk.ask if talk is not None else self._purpose.ask if idle else None
        if ask is None or not permits(self._purpose.capabilities, method, params):
            self._respond(response(ident, _NOT_OFFERED), call)
        elif len(self._open) >= MAX_OPEN or (self._open and self._held + _size(message) > MAX_HELD):
            self._respond(response(ident, _TOO_MANY), call)
        else:
            self._hold(_size(message), self._begin(ident, ask, Question(method, params), relay))

    def withdraw(self, message: Envelope) -> None:
        """``notifications/cancelled``: the server does not want the answer any more."""
        ident = params_of(message).get("requestId")
        task = self._open.get(ident) if isinstance(ident, (int, str)) else None
        if task is not None:
            self._withdrawn.add(task)
            task.cancel()

    def close(self) -> None:
        """Nobody can be answered any more."""
        tasks = tuple(self._open.values())
        self._withdrawn.update(tasks)
        for task in tasks:
            task.cancel()

    def _hold(self, size: int, asking: asyncio.Task[Answer]) -> None:
        self._held += size

        def release(_: asyncio.Task[Answer]) -> None:
            self._held -= size

        asking.add_done_callback(release)

    def _begin(self, ident: int | str, ask: Ask, question: Question, relay: Relay | None) -> asyncio.Task[Answer]:
        talk = relay.talk if relay is not None else None
        asking = asyncio.create_task(_answer(ask, question))
        if talk is not None:
            talk.pause()
            talk.open.add(asking)
        self._open[ident] = asking
        asking.add_done_callback(lambda asking: self._answered(ident, asking, relay))
        return asking

    def _answered(self, ident: int | str, asking: asyncio.Task[Answer], relay: Relay | None) -> None:
        talk = relay.talk if relay is not None else None
        withdrawn = asking in self._withdrawn
        self._withdrawn.discard(asking)
        del self._open[ident]
        if talk is not None:
            talk.open.discard(asking)
            talk.go_on()
        if not withdrawn:
            # Whoever ends the call ends its questions. The server may still wait: it is told.
            said = response(ident, _ENDED if asking.cancelled() else asking.result())
            self._respond(said, relay.call if relay is not None else None)


def _size(message: Envelope) -> int:
    return len(memoryview(message.params))


async def _answer(ask: Ask, question: Question) -> Answer:
    try:
        return await ask(question)
    except CallgateError as error:
        return Answer(error=RpcError(INTERNAL_ERROR, error.message))
    except Exception:
        # A mistake of our own must not leave the server waiting.
        log.exception("a question of a server could not be answered")
        return _FAILED


def response(ident: int | str, said: Answer) -> bytes:
    """The JSON-RPC response to a request of a server, on one line."""
    if said.error is not None:
        return b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (encode(ident), encode(said.error))
    result = said.result or b"{}"
    if b"\n" in result or b"\r" in result:
        result = msgspec.json.format(result, indent=-1)
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (encode(ident), result)


def whom(running: Iterable[Relay], message: Envelope) -> Relay | None:
    """The call that a request belongs to which came without one: the only call, or the newest one when all calls
    are of one client. A request that names its task belongs to the call that waits for that task.
    """
    relays = tuple(running)
    if len(relays) > 1 and (task := _task_of(params_of(message))) is not None:
        return next((relay for relay in relays if relay.call.params.get("taskId") == task), None)
    sessions = {relay.call.front.session for relay in relays}
    if len(relays) == 1 or (len(sessions) == 1 and None not in sessions):
        return next((relay for relay in reversed(relays) if relay.talk is not None), relays[-1])
    return None


def _task_of(params: Mapping[str, Any]) -> object:
    meta = params.get("_meta")
    related = meta.get(f"{HOP}related-task") if isinstance(meta, dict) else None
    return related.get("taskId") if isinstance(related, dict) else None
