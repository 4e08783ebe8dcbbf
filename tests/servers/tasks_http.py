"""Scripted servers of both eras whose tools run as tasks; the test decides when a task goes on, and how."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from tests.servers.mcp_http import LegacyServer, ModernServer, error_of, result_of
from tests.servers.raw_http import Peer, Request

TASKS = "io.modelcontextprotocol/tasks"
RELATED = "io.modelcontextprotocol/related-task"
CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
WHEN = "2026-01-01T00:00:00Z"
FORM = {"type": "object", "properties": {"name": {"type": "string"}}}


def elicitation(message: str) -> dict[str, Any]:
    params = {"mode": "form", "message": message, "requestedSchema": FORM}
    return {"method": "elicitation/create", "params": params}


def said(text: str, **more: Any) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": text}], **more}


def signed(message: str) -> dict[str, Any]:
    """The same as a client of an aggregate gets it."""
    question = elicitation(message)
    return {**question, "params": {**question["params"], "_meta": {"callgate/server": "jobs"}}}


@dataclass
class Job:
    """One task. ``questions`` are those of a modern server; ``asks`` is the message of a legacy server's question."""

    id: str
    status: str = "working"
    outcome: dict[str, Any] = field(default_factory=dict)
    questions: dict[str, Any] = field(default_factory=dict)
    answers: dict[str, Any] = field(default_factory=dict)
    asks: str = ""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    stirred: asyncio.Event = field(default_factory=asyncio.Event)

    def finish(self, result: Any = None, error: Any = None, status: str = "") -> None:
        self.outcome = {"error": error} if error else {"result": result or said("done")}
        self.status = status or ("failed" if error else "completed")
        self.over.set()
        self.stirred.set()

    def ask(self, key: str, message: str) -> None:
        """As modern servers ask."""
        self.questions[key] = elicitation(message)
        self.status = "input_required"

    def ask_old(self, message: str) -> None:
        """As legacy servers ask: in the next ``tasks/result``."""
        self.asks = message
        self.status = "input_required"
        self.stirred.set()


@dataclass
class Jobs:
    jobs: list[Job] = field(default_factory=list)
    heard: list[dict[str, Any]] = field(default_factory=list)
    poll: int = 20

    @property
    def last(self) -> Job:
        return self.jobs[-1]

    def begin(self) -> Job:
        self.jobs.append(Job(f"inner-{len(self.jobs) + 1}"))
        return self.last

    def find(self, message: Any) -> Job | None:
        return next((job for job in self.jobs if job.id == message["params"].get("taskId")), None)

    def of(self, method: str) -> list[dict[str, Any]]:
        return [message for message in self.heard if message["method"] == method]


def tool(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "inputSchema": {"type": "object"}, **more}


class ModernTasks(ModernServer):
    """``slow`` becomes a task where the client knows tasks; ``rude`` always does; ``quick`` answers at once, ``long``
    when ``gate`` opens; ``curious`` asks first, and ``slowly`` becomes a task after that.
    """

    def __init__(self, offers: bool = True) -> None:
        super().__init__()
        self.offers = offers
        self.makes: Any = None
        self.jobs = Jobs()
        self.gate = asyncio.Event()
        self.given_up = False
        self.tools = [tool(name) for name in ("slow", "rude", "quick", "wrong", "long", "curious", "slowly")]
        self.names: list[str | None] = []

    async def __call__(self, request: Request, peer: Peer) -> None:
        message = request.message
        method = message["method"]
        if method == "server/discover" and self.offers:
            peer.json(result_of(message["id"], _discovered()))
        elif method.startswith("tasks/"):
            self.jobs.heard.append(message)
            self.names.append(request.headers.get("mcp-name"))
            self._about(message, peer)
        else:
            await super().__call__(request, peer)

    async def call(self, request: Request, peer: Peer) -> None:
        message = request.message
        self.jobs.heard.append(message)
        name, ident = message["params"]["name"], message["id"]
        if name == "long":
            await self._wait(peer)
        if name in ("curious", "slowly") and "inputResponses" not in message["params"]:
            peer.json(result_of(ident, {"resultType": "input_required", "inputRequests": {"k": elicitation("Who?")}}))
        elif name == "curious":
            whom = message["params"]["inputResponses"]["k"]["content"]["name"]
            peer.json(result_of(ident, {**said(f"hello {whom}"), "resultType": "complete"}))
        elif name in ("rude", "slowly") or (name == "slow" and self.declared(message)):
            made = self._told(self.jobs.begin()) if self.makes is None else self.makes
            peer.json(
                result_of(ident, {"resultType": "task", **(made if isinstance(made, dict) else {"taskId": made})})
            )
        else:
            peer.json(result_of(ident, {**said("at once", isError=name == "wrong"), "resultType": "complete"}))

    async def _wait(self, peer: Peer) -> None:
        opened, closed = asyncio.ensure_future(self.gate.wait()), asyncio.ensure_future(peer.closed())
        await asyncio.wait((opened, closed), return_when=asyncio.FIRST_COMPLETED)
        self.given_up = closed.done()
        for each in (opened, closed):
            each.cancel()
        await asyncio.gather(opened, closed, return_exceptions=True)

    def declared(self, message: Any) -> bool:
        return TASKS in message["params"]["_meta"][CAPABILITIES].get("extensions", {})

    def _about(self, message: Any, peer: Peer) -> None:
        job, ident = self.jobs.find(message), message["id"]
        if not self.declared(message):
            peer.json(error_of(ident, -32021, "undeclared", {"requiredCapabilities": {}}), 400)
        elif job is None:
            peer.json(error_of(ident, -32602, "no such task"), 400)
        elif message["method"] == "tasks/get":
            more = {"inputRequests": job.questions} if job.questions else {}
            peer.json(result_of(ident, {"resultType": "complete", **self._told(job), **more, **job.outcome}))
        elif message["method"] == "tasks/update":
            for key, answer in message["params"]["inputResponses"].items():
                job.answers[key] = answer
                job.questions.pop(key, None)
            job.status = "input_required" if job.questions else "working"
            peer.json(result_of(ident, {"resultType": "complete"}))
        else:
            job.status = "cancelled"
            peer.json(result_of(ident, {"resultType": "complete"}))

    def _told(self, job: Job) -> dict[str, Any]:
        times = {"createdAt": WHEN, "lastUpdatedAt": WHEN, "ttlMs": 60000, "pollIntervalMs": self.jobs.poll}
        return {"taskId": job.id, "status": job.status, **times, "x-vendor": 1.50}


def _discovered() -> dict[str, Any]:
    return {
        "supportedVersions": ["2026-07-28"],
        "capabilities": {"tools": {}, "extensions": {TASKS: {}}},
        "resultType": "complete",
    }


class LegacyTasks(LegacyServer):
    """``slow`` can run as a task, ``must`` runs in no other way, ``plain`` never does."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs = Jobs()
        self.declared: list[Any] = []
        self.makes: Any = None
        self.tools = [
            tool("slow", execution={"taskSupport": "optional"}),
            tool("must", execution={"taskSupport": "required"}),
            tool("plain"),
        ]

    async def _post(self, request: Request, peer: Peer, session: str) -> None:
        message = request.message
        method = message.get("method", "")
        if method == "initialize":
            self.declared.append(message["params"]["capabilities"])
            self.sessions.append(f"s{len(self.sessions) + 1}")
            tasks: dict[str, Any] = {"cancel": {}, "list": {}, "requests": {"tools": {"call": {}}}}
            hello = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}, "tasks": tasks}, "serverInfo": {}}
            peer.json(result_of(message["id"], hello), more=f"mcp-session-id: {self.sessions[-1]}\r\n")
        elif method.startswith("tasks/") and session in self.sessions:
            self.jobs.heard.append({**message, "session": session})
            await self._about(message, peer)
        else:
            await super()._post(request, peer, session)

    async def _call(self, message: Any, peer: Peer) -> None:
        self.jobs.heard.append(message)
        name, ident = message["params"]["name"], message["id"]
        if "task" in message["params"] and name != "plain":
            made = self._told(self.jobs.begin()) if self.makes is None else self.makes
            peer.json(result_of(ident, {"task": made, "_meta": {"x": 1}}))
        elif name == "must":
            peer.json(error_of(ident, -32601, "only as a task"))
        else:
            peer.json(result_of(ident, said("at once")))

    async def _about(self, message: Any, peer: Peer) -> None:
        job, ident, method = self.jobs.find(message), message["id"], message["method"]
        if job is None:
            peer.json(error_of(ident, -32602, "no such task"))
        elif method == "tasks/get":
            peer.json(result_of(ident, self._told(job)))
        elif method == "tasks/cancel" and job.over.is_set():
            peer.json(error_of(ident, -32602, "over"))
        elif method == "tasks/cancel":
            job.status = "cancelled"
            job.over.set()
            job.stirred.set()
            peer.json(result_of(ident, self._told(job)))
        else:
            await self._result(job, ident, peer)

    async def _result(self, job: Job, ident: Any, peer: Peer) -> None:
        peer.sse_head()
        while not job.over.is_set():
            if job.asks:
                await self._ask(job, peer)
            else:
                job.stirred.clear()
                await job.stirred.wait()
        if "error" in job.outcome or job.status == "cancelled":
            error = job.outcome.get("error", {"code": -32603, "message": "cancelled"})
            peer.event(error_of(ident, error["code"], error["message"]))
        else:
            meta = {RELATED: {"taskId": job.id}, "kept": True}
            peer.event(result_of(ident, {**job.outcome["result"], "_meta": meta}))
        peer.chunk(b"")

    async def _ask(self, job: Job, peer: Peer) -> None:
        ident, message = f"q-{job.id}-{job.asks}", job.asks
        params = {**elicitation(message)["params"], "_meta": {RELATED: {"taskId": job.id}}}
        peer.event({"jsonrpc": "2.0", "id": ident, "method": "elicitation/create", "params": params})
        job.asks = ""
        while (found := next((each for each in self.responses if each["id"] == ident), None)) is None:
            await asyncio.sleep(0.005)
        job.answers[message] = found
        job.status = "working"

    def _told(self, job: Job) -> dict[str, Any]:
        times = {"createdAt": WHEN, "lastUpdatedAt": WHEN, "ttl": 60000, "pollInterval": self.jobs.poll}
        return {"taskId": job.id, "status": job.status, **times, "x-vendor": 1.50}
