"""A whole gateway in this process, on real sockets, with its configuration in a real file; and a client for it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from callgate.api import admin_app
from callgate.audit import Filters, describe
from callgate.config import Loaded, load
from callgate.gateway import Gateway, House
from tests.fuzz.messages import LEGACY, Headers, dump, head, initialize, modern, post, routing, rpc
from tests.fuzz.raw import Reply

DEADLINE = 10.0


def key_of(who: str) -> str:
    return f"the-key-of-{who}"


def bearer(who: str | None) -> Headers:
    return [] if who is None else [("Authorization", f"Bearer {key_of(who)}")]


def keys(*names: str, roles: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Entries of ``identity.keys`` for these subjects."""
    digests = {name: hashlib.sha256(key_of(name).encode()).hexdigest() for name in names}
    return [{"subject": name, "sha256": digest, "roles": list(roles)} for name, digest in digests.items()]


def allow(*patterns: str, to: Mapping[str, Any] | None = None, id: str = "allowed", **more: Any) -> dict[str, Any]:
    """A policy rule that lets everybody in, the anonymous too, unless ``to`` says whom."""
    return {"id": id, "allow": list(patterns), "to": to or {"subjects": ["anonymous", "*"]}, **more}


def deny(*patterns: str, id: str = "denied", **more: Any) -> dict[str, Any]:
    return {"id": id, "deny": list(patterns), **more}


class Wire:
    """One client connection: bytes out, replies in."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def __aenter__(self) -> Wire:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()

    async def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers of the next response (100 included)."""
        async with asyncio.timeout(DEADLINE):
            text = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = text.split("\r\n")[:-2]
        parts = [line.partition(":") for line in lines]
        return int(first.split(" ")[1]), {name.lower(): value.strip() for name, _, value in parts}

    async def reply(self) -> Reply:
        async with asyncio.timeout(DEADLINE):
            status, headers = await self.head()
            if headers.get("transfer-encoding") != "chunked":
                return Reply(status, headers, await self.reader.readexactly(int(headers.get("content-length", "0"))))
            body = b""
            while chunk := await self.chunk():
                body += chunk
            return Reply(status, headers, body)

    async def chunk(self) -> bytes:
        """The next chunk of a stream; empty at its end."""
        async with asyncio.timeout(DEADLINE):
            size = int(await self.reader.readline(), 16)
            return (await self.reader.readexactly(size + 2))[:-2]

    async def event(self) -> Any:
        """The next message of an event stream (comments and events without data are skipped)."""
        return json.loads((await self.told())[1])

    async def told(self) -> tuple[str, bytes]:
        """The id and the data of the next event that has data."""
        while True:
            chunk = await self.chunk()
            assert chunk, "the stream has ended"
            fields = dict(line.split(": ", 1) for line in chunk.decode().split("\n") if ": " in line)
            if fields.get("data"):
                return fields.get("id", ""), fields["data"].encode()

    async def ended(self) -> bytes:
        """What comes until the other side closes."""
        async with asyncio.timeout(DEADLINE):
            with contextlib.suppress(ConnectionError):
                return await self.reader.read()
        return b""


def events(reply: Reply) -> list[Any]:
    """The messages of an event stream that has ended."""
    assert reply.headers["content-type"].startswith("text/event-stream"), reply
    return [json.loads(line[6:]) for line in reply.body.split(b"\n") if line.startswith(b"data: ") and line[6:]]


class Stand:
    """``async with Stand(tmp_path, {"git": {"url": …}}, limits={…}) as stand: await stand.call("git__status")``."""

    def __init__(self, folder: Path, servers: Mapping[str, Any] | None = None, **settings: Any) -> None:
        self.folder = folder
        self.file = folder / "callgate.yaml"
        self.settings: dict[str, Any] = {
            "listen": "127.0.0.1:0",
            "admin_listen": "127.0.0.1:0",
            "data_dir": str(folder / "data"),
            "watch": False,
            "servers": dict(servers or {}),
            **settings,
        }
        (folder / "data").mkdir(exist_ok=True)
        self.write()

    def write(self, **settings: Any) -> None:
        self.settings |= settings
        self.file.write_text(json.dumps(self.settings), "utf-8")

    def read(self) -> Loaded:
        return load(self.file, env={}, cwd=self.folder, system=self.folder / "none.yaml")

    async def __aenter__(self) -> Stand:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.gateway.aclose()

    async def start(self, warm: float = 10.0) -> None:
        self.gateway = Gateway(self.read(), self.read, admin_app)
        await self.gateway.open()
        await self.house.warmed(warm)
        self.port = int(self.gateway.url.rpartition(":")[2].partition("/")[0])

    async def reload(self, **settings: Any) -> None:
        self.write(**settings)
        await self.gateway.reload()

    @property
    def house(self) -> House:
        return self.gateway.house

    # A client

    async def connect(self, limit: int = 2**20) -> Wire:
        return Wire(*await asyncio.open_connection("127.0.0.1", self.port, limit=limit))

    async def ask(self, data: bytes) -> Reply:
        """One request on a connection of its own."""
        async with await self.connect() as wire:
            wire.send(data)
            return await wire.reply()

    def request(self, message: Any, *more: tuple[str, str], who: str | None = None, path: str = "/mcp") -> bytes:
        """The bytes of a whole modern request."""
        return post(self.port, dump(message), [*routing(message), *bearer(who), *more], path=path)

    def page(self, path: str, *more: tuple[str, str], method: str = "GET", who: str | None = None) -> bytes:
        host = ("Host", f"127.0.0.1:{self.port}")
        return head(f"{method} {path} HTTP/1.1", [host, *bearer(who), *more])

    async def modern(self, method: str, params: Mapping[str, Any] | None = None, **more: Any) -> Reply:
        return await self.ask(self.request(modern(method, dict(params or {})), **more))

    async def call(self, tool: str, arguments: Mapping[str, Any] | None = None, **more: Any) -> Reply:
        return await self.ask(self.request(calling(tool, arguments), **more))

    async def result(self, tool: str, arguments: Mapping[str, Any] | None = None, **more: Any) -> Any:
        reply = await self.call(tool, arguments, **more)
        assert reply.status == 200, reply
        return reply.json["result"]

    async def tools(self, **more: Any) -> list[str]:
        """The names of one list, which is one page."""
        result = (await self.modern("tools/list", **more)).json["result"]
        assert "nextCursor" not in result
        return [tool["name"] for tool in result["tools"]]

    async def legacy(
        self, who: str | None = None, version: str = LEGACY, path: str = "/mcp", **capabilities: Any
    ) -> LegacyClient:
        hello = initialize(version)
        hello["params"]["capabilities"] = capabilities
        reply = await self.ask(post(self.port, dump(hello), bearer(who), path=path))
        assert reply.status == 200, reply
        return LegacyClient(self, reply.headers["mcp-session-id"], reply.json["result"], who, path)

    # What remains of it

    async def records(self, count: int | None = None) -> list[dict[str, Any]]:
        """All audit records, oldest first, once nothing waits to be written (and ``count`` of them are there)."""

        def complete() -> bool:
            return not self.house.journal.waiting and (count is None or len(self.rows()) >= count)

        await until(complete)
        return self.rows()

    def rows(self) -> list[dict[str, Any]]:
        return [describe(row) for row in reversed(self.house.audit.find(Filters(limit=10_000)))]


class LegacyClient:
    """A session of the legacy era over HTTP."""

    def __init__(self, stand: Stand, id: str, opened: Any, who: str | None, path: str) -> None:
        self.stand = stand
        self.id = id
        self.opened = opened
        self.who = who
        self.path = path

    def headers(self, *more: tuple[str, str]) -> Headers:
        return [("Mcp-Session-Id", self.id), *bearer(self.who), *more]

    def request(self, message: Any, *more: tuple[str, str]) -> bytes:
        return post(self.stand.port, dump(message), self.headers(*more), path=self.path)

    async def post(self, message: Any, *more: tuple[str, str]) -> Reply:
        return await self.stand.ask(self.request(message, *more))

    async def ask(self, method: str, params: Mapping[str, Any] | None = None, id: object = 1) -> Reply:
        return await self.post(rpc(method, dict(params or {}), id))

    async def call(self, tool: str, arguments: Mapping[str, Any] | None = None, id: object = 1, **more: Any) -> Reply:
        return await self.ask("tools/call", {"name": tool, "arguments": dict(arguments or {}), **more}, id)

    async def tell(self, method: str, **params: Any) -> Reply:
        return await self.post({"jsonrpc": "2.0", "method": method, "params": params})

    async def listen(self) -> Wire:
        """The GET stream, open."""
        wire = await self.stand.connect()
        wire.send(self.stand.page(self.path, *self.headers(("Accept", "text/event-stream"))))
        status, headers = await wire.head()
        assert (status, headers["content-type"].partition(";")[0]) == (200, "text/event-stream")
        assert await wire.chunk() == b":\n\n"
        return wire

    async def end(self) -> Reply:
        return await self.stand.ask(self.stand.page(self.path, *self.headers(), method="DELETE"))


def calling(tool: str, arguments: Mapping[str, Any] | None = None, *, id: Any = 1, **meta: Any) -> dict[str, Any]:
    """A modern ``tools/call``; ``meta`` is added to its ``_meta``."""
    message = modern("tools/call", {"name": tool, "arguments": dict(arguments or {})}, id)
    message["params"]["_meta"] |= meta
    return message


def refused(reply: Reply, status: int, code: int | None = None) -> Reply:
    """The reply, which is a refusal."""
    assert reply.status == status, reply
    assert "result" not in reply.json
    assert code is None or reply.error == code, reply
    return reply


async def until(condition: Callable[[], Any], timeout: float = DEADLINE) -> None:
    """Wait until ``condition()`` holds."""
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.005)
