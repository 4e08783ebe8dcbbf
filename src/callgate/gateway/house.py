"""The house: all rooms of one gateway, built from the settings, and rebuilt in place when they change."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

import msgspec

from callgate import __version__
from callgate.audit import Journal
from callgate.catalog import Catalog, Changes, View, believed
from callgate.config import Loaded
from callgate.errors import NotFound, Unauthenticated
from callgate.gateway import showing
from callgate.gateway.bus import Bus
from callgate.gateway.changes import ListChanges
from callgate.gateway.consent import Consents
from callgate.gateway.counting import Counting
from callgate.gateway.ended import Ended
from callgate.gateway.finding import entry, resolve
from callgate.gateway.gauges import show_gauges
from callgate.gateway.guarding import check_still, follow_pins, guard_of, open_guard, owned
from callgate.gateway.line import Lines
from callgate.gateway.listing import Cursors, Pages
from callgate.gateway.overlays import Overlays
from callgate.gateway.parking import ParkingLot
from callgate.gateway.personal import PersonalLists
from callgate.gateway.pipeline import Asked
from callgate.gateway.places import Places
from callgate.gateway.policies import policy_of
from callgate.gateway.programs import config_digest, programs
from callgate.gateway.refusals import Refusals
from callgate.gateway.rounds import named
from callgate.gateway.scopes import ScopeRules, check_scopes, enough
from callgate.gateway.seal import Seal
from callgate.gateway.secret_changes import follow_secrets
from callgate.gateway.session import Sessions
from callgate.gateway.streams import Streams
from callgate.gateway.subscribing import Subscriptions
from callgate.gateway.task_news import STATUS, heard
from callgate.gateway.task_store import Tasks
from callgate.gateway.telling import Telling
from callgate.identity import Recogniser, Secrets, exchanges_callers, token_issuer
from callgate.policy import Policy, QuotaRules, settle
from callgate.store import Database, Listings, SqliteAudit, open_database, secret_key
from callgate.telemetry import Metrics
from callgate.types import Answer, Call, Front, Listing, Permitted, Principal, Question, ServerStatus, Tool
from callgate.upstream import Upstreams

log = logging.getLogger("callgate")

#: How long a server may be down before its tools leave the lists.
WITHDRAW_AFTER = 10.0
SWEEP_EVERY = 30.0
#: Settings that a running gateway cannot take over.
FIXED = (
    "listen", "admin_listen", "data_dir", "audit", "limits", "startup_wait", "watch", "log_level", "list_page_size",
    "allowed_hosts", "allowed_origins", "public_url", "secrets", "egress", "quotas_store",
)  # fmt: skip


class House:
    """Everything that a call meets, as one object. ``open`` it, and ``aclose`` it at the end."""

    def __init__(self, loaded: Loaded, *, loopback: bool = True) -> None:
        self.loaded = loaded
        self.settings = loaded.settings
        self.loopback = loopback
        self.trouble = ""
        self.urls = {"mcp": "", "admin": ""}  # set by who opens the listeners
        self.strict = self.settings.audit.durability == "strict"
        self.database: Database = open_database(loaded.data_dir)
        self.audit = SqliteAudit(self.database, "FULL" if self.strict else "NORMAL")
        self.listings = Listings(self.database)
        self.journal = Journal(self.audit, self.settings.audit)
        self.metrics = Metrics()
        self.refusals = Refusals(self.metrics, self.journal)
        self.policy: Policy = policy_of(loaded, loopback=loopback)
        self.scopes = ScopeRules(self.settings.identity)
        self.counting = Counting(self, loaded)
        self.pages = Pages()
        self.cursors = Cursors(lambda: secret_key(loaded.data_dir, "cursors"))
        self.sessions = Sessions(
            lambda: secret_key(loaded.data_dir, "sessions"), self.settings.limits, self._session_ended,
            Ended(loaded.data_dir / "ended-sessions", self.settings.limits.session_ttl),
        )  # fmt: skip
        self.seal = Seal(lambda: secret_key(loaded.data_dir, "rounds"), self._fingerprint)
        self.parking = ParkingLot(self)
        self.tasks = Tasks(lambda: secret_key(loaded.data_dir, "tasks"), self._fingerprint, self.settings.limits)
        self._hear()
        self.egress, self.public_egress = showing.ways_out(loaded.settings.egress)
        self.secrets = Secrets(loaded, self.database)
        self.credentials = showing.credentials(self)
        self.connections = showing.connections(self)
        self.people = showing.people(self)
        self.recogniser = self._recogniser(loaded)
        self.upstreams = self._upstreams(loaded)
        self.places = Places()
        self._withdrawals: dict[str, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def _hear(self) -> None:
        """The rooms that know what servers say outside calls, and who wants to hear it."""
        self.guard = guard_of(self)
        self.catalog = Catalog(self._catalog_changed, lambda tools: self.policy.prepare(tools), self.guard)
        self.bus = Bus()
        self.bus.route(STATUS, lambda news: heard(news, self))
        self.streams = Streams(self)
        self.lines = Lines(self)
        self.subscriptions = Subscriptions(self.bus, self)
        self.changes = ListChanges(self.bus, self)
        self.telling = Telling(self.bus, self)
        self.overlays = Overlays(self)
        self.personal = PersonalLists(self)
        self.consents = Consents(self)

    def _upstreams(self, loaded: Loaded) -> Upstreams:
        return Upstreams(
            on_listing=self._listed,
            on_status=self._status,
            on_question=self._question,
            on_news=self.bus.heard,
            on_common_again=self.overlays.ended,
            state_dir=loaded.data_dir,
            resolve_secret=self.secrets.resolve,
            client_info={"name": "callgate", "version": __version__},
            credential=showing.maker(self),
        )

    async def open(self) -> None:
        """Start the rooms. Servers start in the background; nothing here waits for one."""
        self.journal.start()
        show_gauges(self)
        await self.counting.open()
        await open_guard(self)
        self._know_servers()
        known = await asyncio.to_thread(self.listings.load_all)
        servers = self.settings.servers
        same = [each.listing for each in known if config_digest(servers.get(each.listing.server)) == each.config_digest]
        self.catalog.restore({each.server: each for each in same})
        await self.upstreams.apply(programs(self.settings.servers), self.loaded.base)
        self._own(asyncio.create_task(self._sweep(), name="sweep"))
        self._own(asyncio.create_task(follow_secrets(self), name="secrets"))
        self._own(asyncio.create_task(follow_pins(self), name="pins"))

    async def aclose(self) -> None:
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for timer in self._withdrawals.values():
            timer.cancel()
        await self.parking.aclose()
        await self.tasks.aclose()
        self.sessions.aclose()
        await self.personal.aclose()
        await self.overlays.aclose()
        await self.catalog.aclose()
        await self.upstreams.aclose()
        await self.connections.aclose()
        await self.recogniser.aclose()
        await self.people.aclose()
        await self.secrets.aclose()
        await self.egress.aclose()
        await self.public_egress.aclose()
        await self.counting.aclose()
        await self.journal.aclose()
        await asyncio.to_thread(self.audit.close)

    async def warmed(self, timeout: float) -> None:
        """Wait until every server has been listed once or has failed, at most ``timeout`` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                waiting = [self.upstreams.settled(name, timeout) for name in self.catalog.unlisted()]
                await asyncio.gather(*waiting)
                await self.catalog.idle()

    async def reload(self, loaded: Loaded) -> None:
        """Take over new settings; raises ``ConfigError`` and keeps everything as it was when they do not hold."""
        policy = await asyncio.to_thread(policy_of, loaded, loopback=self.loopback)
        scopes, quotas = ScopeRules(loaded.settings.identity), QuotaRules(loaded.settings)
        await asyncio.to_thread(policy.prepare, self.catalog.tools())
        old, new = self.settings, loaded.settings
        fixed = [key for key in FIXED if getattr(old, key) != getattr(new, key)]
        if fixed:
            log.warning("changed, but only taken over at the next start: %s", ", ".join(fixed))
        before = after = self.recogniser
        before_policy = self.policy
        if old.identity != new.identity or exchanges_callers(old) != exchanges_callers(new):
            after = await asyncio.to_thread(self._recogniser, loaded)
        # Nothing fails from here on, and no call sees half of it: there is no wait before the last line but one.
        self.loaded = loaded
        self.settings = msgspec.structs.replace(new, **{key: getattr(old, key) for key in FIXED})
        self.policy, self.scopes = policy, scopes
        self.pages.clear()
        self.people.configure(new.identity)
        if after is not before:
            after.inherit(before)
            self.credentials.forget_all()
            self.recogniser = after
            self.lines.close()
            self.sessions.close_streams()  # whoever is still known opens them again
            self.streams.end()
        if old.guard != new.guard:
            self.guard.configure(new.guard)
            self.catalog.screened_anew()
        self._know_servers()
        self.personal.clear()
        self.streams.end(lambda stream: self.catalog.view(stream.front.door) is None)
        if policy.version != before_policy.version:
            self.changes.judged_anew()
        await self.upstreams.apply(programs(self.settings.servers), loaded.base)
        await self.counting.configure(quotas)
        if after is not before:
            await before.aclose()
        log.info("configuration taken over (policy %s, %d servers)", policy.version, len(new.servers))

    def _know_servers(self) -> None:
        settings = self.settings
        self.catalog.configure(settings.servers, settings.virtual_servers, believed=believed(settings))

    def view(self, door: str) -> View:
        view = self.catalog.view(door)
        if view is None:
            raise NotFound(f"There is no endpoint {door.partition(':')[2]!r} any more.")
        return view

    def view_of(self, front: Front, who: Principal) -> View:
        """What this caller is shown through this front."""
        own = self.overlays.view(front, who.key) if self.overlays.shown else None
        return own or self.view(front.door)

    async def view_for(self, front: Front, who: Principal) -> View:
        """The same, after the servers were asked that list something else to everybody (``personal.py``)."""
        await self.personal.prepare(who, front.door, front.session or "")
        return self.view_of(front, who)

    def known(self, asked: Asked) -> Tool | None:
        """The tool behind a name, if a server has listed it."""
        front = asked.front
        view = self.catalog.views.get(front.door) or self.view(front.door)
        if self.overlays.shown:
            view = self.overlays.view(front, asked.principal.key) or view
        if asked.method == "tools/call":
            return view.names.get(asked.name)
        return None if self.guard.on and owned(asked, self) else entry(asked, view)

    async def resolve(self, asked: Asked) -> Tool:
        """The tool behind a name that nobody has listed yet: its server, if still starting, is waited for."""
        return await resolve(asked, self)

    def judged_anew(self, call: Call) -> Permitted:
        """Permission for a call that has run for a while, by the identity and the policy of now."""
        if not self.recogniser.holds(call.principal):
            raise Unauthenticated("The credential does not hold any more, or stands for other roles.")
        check_scopes(call, self)
        if self.guard.on:
            check_still(call, self)
        return settle(call, self.policy.decide(call))

    def still_allowed(self, call: Call) -> bool:
        """Whether what was permitted before would be now."""
        return enough(call, self) and self.policy.decide(call).effect == "allow"

    def streams_of(self, who: Principal) -> int:
        return self.sessions.streams_of(who.key) + len(self.streams.of(who.key)) + self.lines.silent(who.key)

    @property
    def public_url(self) -> str:
        """Where clients reach the gateway listener, without a slash at the end."""
        return (self.settings.public_url or self.urls["mcp"].removesuffix("/mcp")).rstrip("/")

    def statuses(self) -> tuple[ServerStatus, ...]:
        return self.upstreams.statuses()

    def _fingerprint(self, server: str) -> str:
        return config_digest(self.settings.servers.get(server))

    def _recogniser(self, loaded: Loaded) -> Recogniser:
        around = showing.surroundings(self)
        identity = loaded.settings.identity
        own = token_issuer(identity, around)
        made = Recogniser(identity, loopback=self.loopback, fetch=around.fetch, base=loaded.base, own=own)
        return showing.join(made, self, loaded.settings)

    def _listed(self, listing: Listing) -> None:
        if listing.server in self._withdrawals:
            log.info("server %s is ready", listing.server)
        self._keep(listing.server)
        self.changes.listed(listing.server)
        self.catalog.arrived(listing)
        server = self.settings.servers.get(listing.server)
        everybodys = listing.server not in self.upstreams.personal()
        if server is not None and server.isolation in ("auto", "shared") and everybodys:
            self._own(asyncio.create_task(self._remember(listing, config_digest(server)), name="listing"))

    async def _remember(self, listing: Listing, digest: str) -> None:
        try:
            await asyncio.to_thread(self.listings.save, listing, digest)
        except Exception as why:  # the next start is slower, nothing else
            log.warning("the list of server %s could not be kept: %s", listing.server, why)

    def _status(self, status: ServerStatus) -> None:
        name = status.name
        if status.state == "failed" and name not in self._withdrawals:
            log.warning("server %s failed: %s", name, status.reason)
            loop = asyncio.get_running_loop()
            self._withdrawals[name] = loop.call_later(WITHDRAW_AFTER, self._withdraw, name)
        elif status.state != "failed":
            self._keep(name)
            if status.state == "ready" and status.restarts:
                self.changes.returned(name)
                self.subscriptions.missed(name)
            elif status.state == "ready":
                self._own(asyncio.create_task(self.subscriptions.begin_again(name), name="subscriptions"))

    def _withdraw(self, server: str) -> None:
        # The failure may have been that of a process which a change of the configuration has replaced since.
        if any(each.name == server and each.state == "failed" for each in self.statuses()):
            self.catalog.withdraw(server)
        else:
            self._keep(server)

    def _keep(self, server: str) -> None:
        timer = self._withdrawals.pop(server, None)
        if timer is not None:
            timer.cancel()

    async def _question(self, server: str, principal: str, session: str, question: Question) -> Answer:
        """A legacy server asks a client outside any call."""
        asked = self.sessions.get(session)
        at_home = asked is not None and asked.front.door.startswith("server:")
        return await self.sessions.ask(principal, session, question if at_home else named(question, server))

    def _session_ended(self, id: str) -> None:
        self.subscriptions.forget(id)
        self.overlays.forget(id)
        self.upstreams.forget(id)

    def _catalog_changed(self, changed: Changes) -> None:
        self.pages.clear()
        self.overlays.swapped()
        self.changes.swapped(changed)

    def _own(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_EVERY)
            self.sessions.sweep()
            self.tasks.sweep()
            self.credentials.tokens.sweep(time.time())
            self.recogniser.look()
            await self.secrets.sweep()
            try:
                await asyncio.to_thread(self.guard.kept.sweep)
            except OSError as why:
                log.warning("old results cannot be dropped: %s", why)
