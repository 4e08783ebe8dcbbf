"""What callgate remembers of running tasks: whose they are, what was last heard of them, and open questions.

Nothing here is needed to find a server's task again: its id carries that (``task_ids.py``). Lost with the process are
the list of ``tasks/list``, questions that wait for an answer, and the results of tasks that callgate keeps itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Hashable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from callgate.config import Limits
from callgate.errors import CallgateError, Overloaded
from callgate.gateway.task_ids import TaskIds, Ticket
from callgate.types import Answer, Call, Front, News, Question, RpcError

#: A task as the modern era writes it, with callgate's own id.
Task = dict[str, Any]
#: Questions that one task may have open; more are refused.
OPEN = 32
#: Results that callgate keeps itself, in bytes, all principals together; then the oldest ones go.
KEPT_BYTES = 64 * 1024 * 1024
#: Tasks of all principals together.
MOST = 20_000
TERMINAL = frozenset({"completed", "failed", "cancelled"})


class Entry:
    """One task. ``call`` is the call that made it: its server is reached in the same way again.

    ``seen`` is the task as it was last heard of. ``questions`` are those of a legacy server for a modern client, by
    the key in ``inputRequests``; ``fetching`` is the request for the result during which they are asked; ``put`` are
    the keys of a modern server's questions that a legacy client was asked. ``kept`` is the result of a task of
    callgate's own. ``stirred`` is set when there may be something new.
    """

    def __init__(self, id: str, ticket: Ticket, call: Call, seen: Task) -> None:
        self.id = id
        self.ticket = ticket
        self.key = ticket.server, ticket.inner
        self.call = call
        self.seen = seen
        self.questions: dict[str, tuple[Question, asyncio.Future[Answer]]] = {}
        self.fetching: asyncio.Task[Answer] | None = None
        self.kept: Answer | None = None
        self.stirred = asyncio.Event()
        self.put: set[str] = set()
        self.release: Callable[[], None] | None = None
        self.number = 0
        self._asked = 0

    @property
    def front(self) -> Front:
        return self.call.front

    @property
    def over(self) -> bool:
        return self.seen.get("status") in TERMINAL

    @property
    def cancelled(self) -> bool:
        """Whether this client has called it off; then it stays so (2025-11-25, "Task Cancellation")."""
        return self.seen.get("status") == "cancelled"

    def heard(self, task: Task) -> Task:
        """Take down what the task's keeper says of it."""
        if not self.cancelled:
            self.seen = {name: task[name] for name in task if name not in ("result", "error", "inputRequests")}
        if self.over:
            self.let_go()
        return task

    async def ask(self, question: Question) -> Answer:
        """Show a question in ``inputRequests`` under a key that was never used (rule TASK-4); wait for its answer."""
        if len(self.questions) >= OPEN:
            return Answer(error=RpcError(-32603, "Too many questions of this task are open."))
        self._asked += 1
        key = f"callgate.{self._asked}"
        waiting: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.questions[key] = question, waiting
        self.stirred.set()
        try:
            async with asyncio.timeout(max(0.0, self.ticket.expires - time.time())):
                return await waiting
        except TimeoutError:
            return Answer(error=RpcError(-32603, "The client did not answer while the task lived."))
        finally:
            self.questions.pop(key, None)

    def answer(self, responses: Mapping[str, Any]) -> None:
        """Take the client's answers; those to questions that are not open change nothing."""
        for key, response in responses.items():
            found = self.questions.pop(key, None)
            if found is not None and not found[1].done():
                found[1].set_result(Answer(result=msgspec.json.encode(response), era="modern"))

    def let_go(self) -> None:
        """The link to the server need not be kept for this task any more."""
        release, self.release = self.release, None
        if release is not None:
            release()

    def end(self) -> None:
        self.let_go()
        if self.fetching is not None:
            self.fetching.cancel()


class Tasks:
    """All tasks that clients may ask about, bounded per principal and in time."""

    def __init__(self, key: Callable[[], bytes], fingerprint: Callable[[str], str], limits: Limits) -> None:
        self.ids = TaskIds(key)
        self.fingerprint = fingerprint
        self.limits = limits
        self._errands: set[asyncio.Task[None]] = set()
        self._of: dict[str, dict[str, Entry]] = {}
        self._by_inner: dict[tuple[str, str], set[Entry]] = {}
        self._watches: dict[Hashable, set[asyncio.Task[None]]] = {}
        self.bytes = 0
        self._count = 0

    def __len__(self) -> int:
        return sum(map(len, self._of.values()))

    def check_room(self, principal: str) -> None:
        """Raise ``Overloaded`` when the principal has as many unfinished tasks as it may have, or all have together."""
        mine = self._of.get(principal, {})
        if len(mine) < self.limits.max_tasks and len(self) < MOST:
            return
        self.sweep()
        if len(self) >= MOST:
            raise Overloaded("Too many tasks are running.", hint="Try again later.")
        if sum(not entry.over for entry in mine.values()) >= self.limits.max_tasks:
            raise Overloaded("Too many tasks of this caller are running.", hint="Wait for some, or cancel them.")

    def add(self, ticket: Ticket, call: Call, task: Task, id: str = "") -> Entry:
        """Remember a task; where there are too many, the one that is missed the least is forgotten."""
        entry = self.begin(ticket, call, task, id)
        self.admit(entry)
        return entry

    def begin(self, ticket: Ticket, call: Call, task: Task, id: str = "") -> Entry:
        """A task that nobody but the caller knows yet."""
        id = id or self.ids.seal(ticket)
        arguments = call.arguments if ticket.arguments else {}  # large ones are not kept
        kept = msgspec.structs.replace(call, arguments=arguments, meta={}, params={})
        return Entry(id, ticket, kept, {**task, "taskId": id})

    def admit(self, entry: Entry) -> None:
        if len(self) >= MOST:
            return
        self._count += 1
        entry.number = self._count
        who = entry.ticket.principal
        mine = self._of.setdefault(who, {})
        if len(mine) >= self.limits.max_tasks:
            self._drop(min(mine.values(), key=_missed))
        self._of.setdefault(who, {})[entry.id] = entry
        self._by_inner.setdefault(entry.key, set()).add(entry)
        self._count_result(entry)

    def knows(self, entry: Entry) -> bool:
        return entry.id in self._of.get(entry.ticket.principal, {})

    def find(self, id: str, ticket: Ticket, call: Call) -> Entry:
        """The task of an id that was opened; one from before a restart is taken up again.

        A task of callgate's own that is forgotten comes without ``kept``.
        """
        entry = self._of.get(ticket.principal, {}).get(id)
        if entry is not None:
            return entry
        if ticket.kept == "callgate":
            return Entry(id, ticket, call, {"taskId": id})
        return self.add(ticket, call, {"taskId": id}, id)

    def of(self, principal: str) -> Iterable[Entry]:
        """A principal's tasks, oldest first."""
        return tuple(self._of.get(principal, {}).values())

    def meant(self, news: News) -> Entry | None:
        """The task that a server speaks of. Two sessions' tasks may be called the same, but not over one link."""
        inner = news.params.get("taskId")
        known = self._by_inner.get((news.server, inner), set()) if isinstance(inner, str) else set()
        found = [
            entry for entry in known
            if news.principal in ("", entry.ticket.principal) and news.session in ("", entry.front.session)
        ]  # fmt: skip
        return found[0] if len(found) == 1 else None

    def watch(self, reader: Hashable, work: Coroutine[Any, Any, None]) -> None:
        """Follow a task for a reader, until that is ``unwatched``."""
        task = asyncio.create_task(_quietly(work), name="watch a task")
        watches = self._watches.setdefault(reader, set())
        watches.add(task)
        task.add_done_callback(watches.discard)

    @property
    def watched(self) -> int:
        """Tasks that are followed for readers."""
        return sum(map(len, self._watches.values()))

    def unwatch(self, reader: Hashable) -> None:
        for task in tuple(self._watches.pop(reader, ())):
            task.cancel()

    def made_of(self, answer: Answer) -> Entry | None:
        """The task that a legacy client's answer tells of."""
        id = msgspec.json.decode(answer.result)["task"]["taskId"]
        return next((each for mine in self._of.values() if (each := mine.get(id)) is not None), None)

    def forget(self, entry: Entry) -> None:
        if self.knows(entry):
            self._drop(entry)
        entry.end()

    def keep(self, entry: Entry, answer: Answer) -> None:
        """Keep the result of a task of callgate's own."""
        entry.kept = answer
        if self.knows(entry):
            self._count_result(entry)

    def _count_result(self, entry: Entry) -> None:
        """Where there is no room for a result, the oldest ones go of the principal that keeps the most."""
        self.bytes += _weight(entry)
        while self.bytes > KEPT_BYTES:
            held = [[each for each in mine.values() if each.kept and each is not entry] for mine in self._of.values()]
            most = max(held, key=lambda mine: sum(map(_weight, mine)), default=[])
            if not most:
                return
            self._drop(most[0])

    def errand(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something for which nobody waits; it may as well fail."""
        task = asyncio.create_task(_quietly(work), name="errand about a task")
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    def sweep(self) -> None:
        """Forget the tasks whose time is over."""
        now = time.time()
        for entry in [each for mine in self._of.values() for each in mine.values() if each.ticket.expires < now]:
            self._drop(entry)

    async def aclose(self) -> None:
        """Give everything up that goes on here; servers keep their tasks."""
        entries = [entry for mine in self._of.values() for entry in mine.values()]
        running = {entry.fetching for entry in entries if entry.fetching is not None}
        working: set[asyncio.Task[Any]] = self._errands.union(running, *self._watches.values())
        for entry in entries:
            self._drop(entry)
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)

    def _drop(self, entry: Entry) -> None:
        mine = self._of[entry.ticket.principal]
        del mine[entry.id]
        if not mine:
            del self._of[entry.ticket.principal]
        self._by_inner[entry.key].discard(entry)
        if not self._by_inner[entry.key]:
            del self._by_inner[entry.key]
        self.bytes -= _weight(entry)
        entry.end()


def _missed(entry: Entry) -> tuple[bool, bool, int]:
    """What is over is missed less than what runs; a modern server's task has nothing here that its id has not."""
    return not entry.over, entry.ticket.kept != "modern", entry.number


def _weight(entry: Entry) -> int:
    return len(entry.kept.result) if entry.kept is not None else 0


async def _quietly(work: Coroutine[Any, Any, None]) -> None:
    with contextlib.suppress(CallgateError):
        await work


def stamp() -> str:
    """The present moment as tasks write it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
