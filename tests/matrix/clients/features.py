"""What every Python client does: one function for each feature, and the report. Standard library only.

A client script gives a ``Session``: the few things that SDKs do differently. What it saw, not what it should have
seen, goes into the report; ``cells.py`` knows what is right.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import time
import traceback
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from tests.matrix.vocabulary import FORM, KEPT, MANY, PROMPT, URI

FEATURE_SECONDS = 8.0
CONNECT_SECONDS = 25.0
NEWS_SECONDS = 4.0
ROOT = "file:///matrix/one"
NAME = "Ada"
MODEL_SAYS = "forty-two"
LIST_CHANGED = "notifications/tools/list_changed"
UPDATED = "notifications/resources/updated"
MESSAGE = "notifications/message"

Raw = dict[str, Any]
Heard = list[tuple[str, Raw]]
OnProgress = Callable[[float, "float | None"], None]


@dataclass
class Asked:
    """Where the server is (``url``, or the ``command`` to start), how its tools' names begin, and what to do."""

    url: str | None
    command: list[str]
    prefix: str
    mode: str
    features: list[str]
    run: str = field(default_factory=lambda: secrets.token_hex(4))

    @property
    def environment(self) -> dict[str, str]:
        """For a stdio server: clients pass on next to nothing of their own environment unless they are told."""
        return dict(os.environ)

    @property
    def resource(self) -> str:
        """The resource's URI: native, or with the server's label where many servers are one."""
        return f"{self.prefix.removesuffix('__')}+{URI}" if self.prefix else URI


def asked() -> Asked:
    parser = argparse.ArgumentParser()
    parser.add_argument("--prefix", default="")
    parser.add_argument("--mode", default="legacy", choices=["modern", "legacy"])
    parser.add_argument("--features", required=True, help="their names, with commas between them")
    parser.add_argument("--url")
    parser.add_argument("command", nargs="*", help="after --: the stdio server to start")
    given = parser.parse_args()
    if bool(given.url) == bool(given.command):
        parser.error("give either --url or a command")
    return Asked(given.url, given.command, given.prefix, given.mode, given.features.split(","))


class Session(Protocol):
    """A connection. Names are native here, the session adds the prefix; ``heard`` is what the server announced."""

    heard: Heard
    version: str
    library: str

    async def call(self, tool: str, arguments: Raw, on_progress: OnProgress | None = None) -> Raw: ...

    async def abandon(self, tool: str, arguments: Raw, begun: Callable[[], Awaitable[None]]) -> None:
        """Call, wait until it has begun, cancel."""

    async def tools(self) -> list[str]: ...

    async def resources(self) -> list[str]: ...

    async def complete(self, prompt: str, argument: str, value: str) -> list[str]: ...

    async def log_level(self, level: str) -> None: ...

    def listening(self, uri: str | None) -> AbstractAsyncContextManager[None]:
        """Hear of changed tools and, with a URI, of changes to this resource."""


async def text(session: Session, tool: str, **arguments: Any) -> str:
    result = await session.call(tool, arguments)
    said = "".join(block.get("text", "") for block in result["content"])
    if result.get("isError"):
        raise RuntimeError(f"{tool} failed: {said}")
    return said


async def until(true: Callable[[], Awaitable[bool]], what: str) -> None:
    deadline = time.monotonic() + NEWS_SECONDS
    while not await true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {NEWS_SECONDS:g} s")
        await asyncio.sleep(0.02)


async def plain(session: Session, asked: Asked) -> Any:
    result = await session.call("echo", {"text": "häuschen"})
    said = "".join(block.get("text", "") for block in result["content"])
    return {"text": said, "structured": result.get("structuredContent"), "kept": (result.get("_meta") or {}).get(KEPT)}


async def progress(session: Session, asked: Asked) -> Any:
    seen: list[list[float | None]] = []
    await session.call("count", {}, lambda done, total: seen.append([done, total]))
    return seen


async def cancel(session: Session, asked: Asked) -> Any:
    async def noted(line: str) -> bool:
        return await text(session, "noted", line=line) == "1"

    async def begun() -> None:
        await until(lambda: noted(f"started {asked.run}"), "the start of the call")

    await session.abandon("linger", {"marker": asked.run}, begun)
    await until(lambda: noted(f"cancelled {asked.run}"), "the server's note of the cancellation")
    return "the server noticed"


async def elicit(session: Session, asked: Asked) -> Any:
    return await text(session, "ask_form")


async def sample(session: Session, asked: Asked) -> Any:
    return await text(session, "ask_model")


async def roots(session: Session, asked: Asked) -> Any:
    return await text(session, "ask_roots")


async def list_changed(session: Session, asked: Asked) -> Any:
    """The list is read only when a change was announced, so an announcement that comes too early is found out.

    Other clients' changes are announced as well: then the list is read once more than needed.
    """
    name = f"grown_{asked.run}"
    seen = 0

    def announced() -> int:
        return sum(method == LIST_CHANGED for method, _ in session.heard)

    async def told() -> bool:
        return announced() > seen

    async with session.listening(None):
        await session.tools()
        session.heard.clear()
        await text(session, "grow", name=name)
        listed: list[str] = []
        while f"{asked.prefix}{name}" not in listed:
            await until(told, f"{LIST_CHANGED} (after {seen} of them {name} was not in the list)")
            seen = announced()
            listed = await session.tools()
    return "told and listed"


async def subscribe(session: Session, asked: Asked) -> Any:
    if asked.resource not in (offered := await session.resources()):
        raise LookupError(f"{asked.resource} is not among {offered}")

    async def told() -> bool:
        return any(method == UPDATED for method, _ in session.heard)

    async with session.listening(asked.resource):
        session.heard.clear()
        await text(session, "touch")
        await until(told, UPDATED)
    uris = {params["uri"] for method, params in session.heard if method == UPDATED}
    return "the right URI" if uris == {asked.resource} else sorted(uris)


async def logging(session: Session, asked: Asked) -> Any:
    def messages() -> list[str]:
        said = [params for method, params in session.heard if method == MESSAGE]
        return [f"{params['level']}: {plainly(params['data'])}" for params in said]

    async def told() -> bool:
        return any("loud" in message for message in messages())

    await session.log_level("info")
    session.heard.clear()
    await text(session, "chat")
    await until(told, MESSAGE)
    return messages()


def plainly(data: Any) -> Any:
    return data.get("msg") if isinstance(data, dict) else data


async def completion(session: Session, asked: Asked) -> Any:
    return await session.complete(f"{asked.prefix}{PROMPT['name']}", PROMPT["arguments"][0]["name"], "par")


async def pagination(session: Session, asked: Asked) -> Any:
    names = [name for name in await session.tools() if name.startswith(f"{asked.prefix}{MANY}")]
    return [len(names), len(set(names))]


FEATURES: dict[str, Callable[[Session, Asked], Awaitable[Any]]] = {
    feature.__name__: feature
    for feature in (
        plain,
        progress,
        cancel,
        elicit,
        sample,
        roots,
        list_changed,
        subscribe,
        logging,
        completion,
        pagination,
    )
}


async def look(asked: Asked, session: Session) -> Raw:
    """Everything that was asked for, one after the other; a feature that fails does not stop the next."""
    report: Raw = {"library": session.library, "version": session.version, "features": {}}
    for name in asked.features:
        try:
            saw = await asyncio.wait_for(FEATURES[name](session, asked), FEATURE_SECONDS)
            report["features"][name] = {"saw": saw}
        except Exception as error:
            report["features"][name] = {"error": described(error)}
    return report


def described(error: BaseException) -> str:
    """The error with those that it wraps."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(described(inner) for inner in error.exceptions)
    return f"{type(error).__name__}: {error}"


async def tell(asked: Asked, connect: Callable[[Asked], AbstractAsyncContextManager[Session]]) -> None:
    """Connect, look, and print the report. It is printed before the connection ends, which may go wrong as well."""
    told = False
    try:
        async with connecting(asked, connect) as session:
            print(json.dumps(await look(asked, session)), flush=True)
            told = True
    except Exception as error:
        if not told:
            print(json.dumps({"error": described(error), "trace": traceback.format_exc()[-3000:]}), flush=True)


@asynccontextmanager
async def connecting(asked: Asked, connect: Callable[[Asked], AbstractAsyncContextManager[Session]]) -> Any:
    """The connection, given up when it takes too long to come about."""
    async with asyncio.timeout(CONNECT_SECONDS) as limit, connect(asked) as session:
        limit.reschedule(None)
        yield session


def form_answer(message: str) -> Raw:
    """The user's answer: a name, if it is the right question."""
    return {"action": "accept", "content": {"name": NAME}} if message == FORM["message"] else {"action": "decline"}
