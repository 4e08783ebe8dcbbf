"""The trust bundle of one SPIFFE trust domain, from wherever it comes, as keys and as authorities."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from callgate.identity.jwks import FETCH_DEADLINE, KeySource, read_keys

from .sources import Load
from .spiffe import jwt_keys, split_certificates, x509_authorities
from .workload_api import JWT_BUNDLES, X509_BUNDLES, Bundles, WorkloadApi

log = logging.getLogger("callgate.identity")

#: How often a bundle that is fetched is fetched again (seconds), as for JWT keys.
TTL = 600.0


class FollowedKeys(KeySource):
    """The keys for JWT-SVIDs of one trust domain as the Workload API gives them, whenever they change."""

    def __init__(self, trust_domain: str, api: WorkloadApi, clock: Callable[[], float]) -> None:
        super().__init__(trust_domain, _nothing, ttl=FETCH_DEADLINE, clock=clock)
        self._bundle = f"spiffe://{trust_domain}"
        self._api = api
        self._heard = asyncio.Event()

    def start(self) -> None:
        if self._keeper is None and not self._closed:
            follow = self._api.follow(JWT_BUNDLES, self._take, self._heard.set)
            self._keeper = asyncio.create_task(follow, name=f"bundle {self._bundle}")

    async def demand(self) -> None:
        """Wait until the agent has answered, or could not be reached, for the first time; after that it tells us."""
        await _soon(self._heard)

    async def _take(self, bundles: Bundles) -> None:
        try:
            # A trust domain that is not among the bundles is trusted no more.
            raw = jwt_keys(bundles.get(self._bundle, b'{"keys":[]}'), marked=False)
            self._replace(await asyncio.to_thread(read_keys, raw, dict(self._signers)))
        except ValueError as error:
            log.warning("the bundle of %s cannot be read: %s", self._bundle, error)
        self._heard.set()


async def _nothing() -> bytes:
    raise AssertionError("these keys are not fetched")


async def _soon(heard: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(FETCH_DEADLINE):
            await heard.wait()
    except TimeoutError:
        pass


class Authorities:
    """The certificates (DER) that sign X.509-SVIDs of one trust domain. They are asked for when the first client comes
    with a certificate.
    """

    def __init__(self, trust_domain: str, source: WorkloadApi | Load) -> None:
        self._bundle = f"spiffe://{trust_domain}"
        self._source = source
        self._found: tuple[bytes, ...] = ()
        self._heard = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    async def current(self) -> tuple[bytes, ...]:
        if self._keeper is None:
            follow = self._follow(self._source)
            self._keeper = asyncio.create_task(follow, name=f"authorities {self._bundle}")
        await _soon(self._heard)
        return self._found

    async def aclose(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)

    async def _follow(self, source: WorkloadApi | Load) -> None:
        if isinstance(source, WorkloadApi):
            await source.follow(X509_BUNDLES, self._take, self._heard.set)
            return
        while True:
            try:
                async with asyncio.timeout(FETCH_DEADLINE):
                    self._found = x509_authorities(await source())
            except Exception as error:  # whatever happened, the last good authorities stay in use (TOK-4)
                log.warning("the bundle of %s cannot be had: %r", self._bundle, error)
            self._heard.set()
            await asyncio.sleep(FETCH_DEADLINE if not self._found else TTL)

    async def _take(self, bundles: Bundles) -> None:
        try:
            self._found = split_certificates(bundles.get(self._bundle, b""))
        except ValueError as error:
            log.warning("the authorities of %s cannot be read: %s", self._bundle, error)
        self._heard.set()
