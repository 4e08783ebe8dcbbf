"""Client id metadata documents: the client id is the URL of a document that describes the application (rule AS-3).

Strangers choose the URL, so it is fetched behind the address guard, at most once in a while, and is small.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

from callgate.errors import CallgateError
from callgate.identity.claims import read_object

from . import redirects
from .apps import Application
from .described import DOCUMENT, Unfit, application
from .flights import Flights
from .surroundings import Brought, Surroundings

#: Largest document (bytes); the draft suggests 5 KB, real ones with keys are larger.
LARGEST = 32 * 1024
#: How long a document is used before it is fetched again: between these, by its headers; ``REFUSED`` for one that
#: was refused.
SHORTEST, LONGEST, REFUSED = 60.0, 86400.0, 15.0
UNSAID = 300.0
REMEMBERED = 1000
_AGE = re.compile(r"(?:^|[,\s])max-age\s*=\s*\"?([0-9]{1,10})")
_KINDS = frozenset({"application/json", "application/cimd+json", "application/client-metadata+json", ""})
_LOOPBACK = re.compile(r"http://(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?/.*")


class Documents:
    """The documents of the hosts that are trusted. One that was refused is remembered for a moment too."""

    def __init__(self, hosts: Iterable[str], around: Surroundings, clock: Callable[[], float]) -> None:
        self._hosts = tuple(host.lower() for host in hosts)
        self._around = around
        self._clock = clock
        self._known: OrderedDict[str, tuple[float, Application | None]] = OrderedDict()
        self._flights: Flights[Application | None] = Flights("client document")

    def accepts(self, url: str) -> bool:
        """Whether a URL may be a client id here: its form, and its host. Nothing is fetched."""
        if not redirects.is_https(url):
            return self._on_this_machine(url)
        return not form_fault(url) and self._trusts(urlsplit(url).hostname or "")

    async def find(self, url: str) -> Application | None:
        """The application that the document behind ``url`` describes; ``None`` where there is no good one."""
        if not self.accepts(url):
            return None
        until, app = self._known.get(url, (float("-inf"), None))
        if self._clock() < until <= self._clock() + LONGEST:
            return app
        return await self._flights.join(url, self._fetch)

    async def aclose(self) -> None:
        await self._flights.aclose()

    async def _fetch(self, url: str) -> Application | None:
        try:
            brought = await self._bring(url)
            app = await asyncio.to_thread(read_document, url, brought)
            kept = lifetime(brought)
        except (CallgateError, Unfit, TimeoutError):
            app, kept = None, REFUSED
        self._known[url] = (self._clock() + kept, app)
        self._known.move_to_end(url)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return app

    async def _bring(self, url: str) -> Brought:
        if self._around.get_public is not None:
            return await self._around.get_public(url)
        return Brought(await self._around.fetch_public(url))

    def _trusts(self, host: str) -> bool:
        return any(fnmatchcase(host.lower(), glob) for glob in self._hosts)

    def _on_this_machine(self, url: str) -> bool:
        """Without TLS only where nothing leaves the machine: callgate itself is reached by loopback there. The guard
        still wants these addresses allowed.
        """
        if not _LOOPBACK.fullmatch(url) or not _LOOPBACK.fullmatch(self._around.base() + "/"):
            return False
        return not form_fault(url) and self._trusts(urlsplit(url).hostname or "")


def form_fault(url: str) -> str:
    """Why a URL cannot be a client id (draft-ietf-oauth-client-id-metadata-document, section 2), or nothing.

    >>> form_fault("https://app.example/client.json"), form_fault("https://app.example/")
    ('', 'it has no path')
    """
    if why := redirects.fault(url):
        return why
    path = urlsplit(url).path
    if path in ("", "/"):
        return "it has no path"
    return "it has a query" if "?" in url else ""


def read_document(url: str, brought: Brought) -> Application:
    """The application that a document describes. Raises Unfit."""
    kind = brought.headers.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()
    if kind not in _KINDS:
        raise Unfit("It is not JSON.")
    if len(brought.body) > LARGEST:
        raise Unfit("It is too large.")
    try:
        said = read_object(brought.body)
    except ValueError:
        raise Unfit("It is not JSON.") from None
    if said.get("client_id") != url:
        raise Unfit("Its `client_id` is not its own URL.")
    if "client_secret" in said or "client_secret_expires_at" in said:
        raise Unfit("A document that everybody can read has no secret.")
    if not isinstance(said.get("client_name"), str) or not said["client_name"].strip():
        raise Unfit("It has no `client_name`.")
    if not said.get("redirect_uris"):
        raise Unfit("It has no `redirect_uris`.")
    return application(url, said, DOCUMENT)


def lifetime(brought: Brought) -> float:
    """How long a document may be used, by its headers (RFC 9111), within our bounds (seconds)."""
    control = brought.headers.get(b"cache-control", b"").decode("latin-1").lower()
    if "no-store" in control or "no-cache" in control:
        return SHORTEST
    said = _AGE.search(control)
    if said is None:
        return UNSAID
    age = brought.headers.get(b"age", b"0").decode("latin-1")
    left = int(said[1]) - (int(age) if age.isdigit() and len(age) < 11 else 0)
    return min(max(float(left), SHORTEST), LONGEST)
