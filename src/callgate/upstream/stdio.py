"""stdio servers: starting them, and finding out their era without making anybody wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from callgate.config.model import Server
from callgate.errors import CallgateError
from callgate.types import Era

from .child import Child, Program
from .eras import MODERN_ERRORS, fingerprint
from .link import Circumstances, Link, NotModern, modern_hello
from .pipe import Pipe
from .purpose import Purpose
from .serverlog import ServerLog
from .wire import LEGACY, result_object

PROBE = 5.0  # seconds that a probe may take at most
GRACE = 1.0  # seconds that it may still take once the same program has answered `initialize` elsewhere


class StdioConnector:
    """Starts processes of one configured program.

    When the era is not known, two processes start together: one is initialised as a legacy server, the other
    one is asked ``server/discover`` and is thrown away unless it answers (STDIO-3, STDIO-6). So a legacy server
    is ready as soon as it has answered ``initialize`` and the probe has failed, which takes no longer; and a
    modern one is used right where it was probed. The verdict is remembered.
    """

    def __init__(self, name: str, config: Server, around: Circumstances) -> None:
        self._config = config
        self._around = around
        self._log = ServerLog(around.logs, name, around.references.mask)
        self._leaving: set[asyncio.Task[None]] = set()

    async def connect(self, purpose: Purpose) -> Link:
        deadline = asyncio.get_running_loop().time() + self._config.connect_timeout
        env = await self._around.references.all(self._config.env, fresh=purpose.owner is None)
        config = self._config
        program = Program(config.command or "", config.args, env, config.cwd, self._around.base, config.max_message)
        wanted, key = purpose.era or config.protocol, fingerprint(config)
        era = await self._around.eras.recall(key) if wanted == "auto" else wanted
        if era == "modern":
            try:
                return await self._modern(program, purpose, deadline)
            except NotModern:
                if wanted == "modern":
                    raise
                era = None
        if era == "legacy":
            return await self._legacy(program, purpose, deadline)
        link, found = await self._detect(program, purpose, deadline)
        await self._around.eras.remember(key, found)
        return link

    async def _modern(self, program: Program, purpose: Purpose, deadline: float) -> Pipe:
        async def greet(link: Pipe) -> None:
            said = await link.ask("server/discover", {}, deadline)
            if said.error is not None and said.error.code not in MODERN_ERRORS:
                raise NotModern(f"answered `server/discover` with error {said.error.code}")
            result = result_object(said, "server/discover")
            versions = result.get("supportedVersions")
            if not isinstance(versions, list) or all(version in LEGACY for version in versions):
                raise NotModern(f"supports only {versions}")
            link.greeted(modern_hello(result))

        return await self._start("modern", program, purpose, greet)

    async def _legacy(self, program: Program, purpose: Purpose, deadline: float) -> Pipe:
        return await self._start("legacy", program, purpose, lambda link: link.initialize(deadline))

    async def _start(
        self, era: Era, program: Program, purpose: Purpose, greet: Callable[[Pipe], Coroutine[Any, Any, None]]
    ) -> Pipe:
        link = Pipe(era, self._around, self._log, purpose)
        await link.start(lambda link: Child.start(program, self._log, link.line, link.exited))
        try:
            await greet(link)
        except BaseException:
            self._leave(link.aclose())
            raise
        return link

    async def _detect(self, program: Program, purpose: Purpose, deadline: float) -> tuple[Pipe, Era]:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        probe = asyncio.create_task(self._modern(program, purpose, deadline))
        real = asyncio.create_task(self._legacy(program, purpose, deadline))
        chosen: asyncio.Task[Pipe] | None = None
        try:
            await asyncio.wait({probe, real}, timeout=PROBE, return_when=asyncio.FIRST_COMPLETED)
            took = loop.time() - begun
            if not probe.done():
                answered = real.done() and real.exception() is None
                await asyncio.wait({probe}, timeout=max(GRACE, took) if answered else PROBE - took)
            failure = probe.exception() if probe.done() else None
            if probe.done() and failure is None:
                chosen = probe
                return await probe, "modern"
            chosen = real
            try:
                return await real, "legacy"
            except CallgateError:
                if not isinstance(failure, NotModern):
                    raise
            # Programs that can run only once (a port, a lock) fail beside their own probe.
            return await self._legacy(program, purpose, deadline), "legacy"
        finally:
            for task in {probe, real} - {chosen}:
                self._leave(_dismiss(task))

    def _leave(self, ending: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(ending)
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def aclose(self) -> None:
        while self._leaving:
            await asyncio.wait(self._leaving)
        await self._log.aclose()


async def _dismiss(task: asyncio.Task[Pipe]) -> None:
    """End the start that lost, and its process."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled() and task.exception() is None:
        await task.result().aclose()
