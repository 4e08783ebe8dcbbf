"""The applications with which people sign in, beside the agents: both are clients of the token service.

An application is written in the configuration, or its client id is the URL of a document that describes it, or it
registered itself. It has no rights of its own: its tokens are those of the person who signed in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import msgspec

from callgate.config import App
from callgate.identity.keys import RESERVED

from .agents import Agents, Registered
from .grant_types import OF_APPS

if TYPE_CHECKING:
    from .documents import Documents
    from .registration import Registrations

PREFIX = "client:"
#: What the ids of applications begin with that registered themselves.
REGISTERED = "app-"
#: callgate's own commands (`callgate login`). An entry of the configuration with this name replaces it.
OWN_APPS = {
    "callgate-cli": App(
        redirect_uris=("http://127.0.0.1/callback",), title="callgate on the command line", audiences=("/", "*")
    )
}
Method = Literal["none", "client_secret_basic", "client_secret_post", "private_key_jwt"]
Kind = Literal["configured", "document", "registered"]


class Application(msgspec.Struct, frozen=True):
    """One application. ``name`` is its client id, ``title`` what it calls itself (``kind`` says who vouches for that).

    ``methods`` are the ways in which it may prove itself; ``none`` is that of a public client. ``scopes`` of ``None``
    are all that people's tokens may have; ``audiences`` are globs over paths, ``jwks`` is a key set as it came.
    ``bound``: it wants no token that is not bound to its key (RFC 9449, section 5.2).
    """

    name: str
    kind: Kind
    redirect_uris: tuple[str, ...]
    title: str = ""
    methods: tuple[Method, ...] = ("none",)
    grants: frozenset[str] = OF_APPS
    scopes: tuple[str, ...] | None = None
    audiences: tuple[str, ...] = ("*",)
    secret_sha256: str | None = None
    public_key: str | None = None
    jwks: dict[str, Any] | None = None
    jwks_uri: str | None = None
    trusted: bool = False
    active: bool = True
    bound: bool = False

    @property
    def subject(self) -> str:
        """What it is called in chains, policy and audit."""
        return PREFIX + self.name

    @property
    def public(self) -> bool:
        """Whether it proves nothing: whoever knows its id can say to be it."""
        return "none" in self.methods


#: Whoever asks at the token endpoint.
Client = Registered | Application


class Apps:
    """All applications. ``documents`` and ``registrations`` are ``None`` where those are not accepted."""

    def __init__(
        self, configured: Mapping[str, App], documents: Documents | None, registrations: Registrations | None
    ) -> None:
        self._configured = {name: of_configuration(name, app) for name, app in configured.items()}
        self.documents = documents
        self.registrations = registrations

    def __iter__(self) -> Iterator[Application]:
        """Those of the configuration."""
        return iter(self._configured.values())

    async def find(self, id: str) -> Application | None:
        """The application with this client id, whatever its standing. May fetch its document, or look on the disk."""
        found = self._configured.get(id)
        if found is not None:
            return found
        if self.documents is not None and is_url(id):
            return await self.documents.find(id)
        if self.registrations is not None and id.startswith(REGISTERED):
            return await self.registrations.find(id)
        return None

    def holds(self, subject: str) -> bool:
        """Whether tokens through ``client:NAME`` still hold, as far as the configuration says so: no disk is touched.
        Registrations that were taken back are in the revocations.
        """
        name = subject.removeprefix(PREFIX)
        found = self._configured.get(name)
        if found is not None:
            return found.active
        if is_url(name):
            return self.documents is not None and self.documents.accepts(name)
        return self.registrations is not None and name.startswith(REGISTERED)

    @staticmethod
    def claims(subject: str) -> bool:
        """Whether a subject of a chain is an application's."""
        return subject.startswith(PREFIX)


def is_ours(subject: str) -> bool:
    """Whether a subject is one that only callgate gives. No provider names anybody so: a rule about an agent or an
    application looks at the caller where there is no chain.

    >>> is_ours("agent:planner"), is_ours("client:site"), is_ours("operator"), is_ours("alice")
    (True, True, True, False)
    """
    return subject in RESERVED or Agents.claims(subject) or Apps.claims(subject)


def of_configuration(name: str, app: App) -> Application:
    methods: tuple[Method, ...] = ("none",)
    if app.secret_sha256 is not None:
        methods = ("client_secret_basic", "client_secret_post")
    elif app.public_key is not None or app.jwks_uri is not None:
        methods = ("private_key_jwt",)
    return Application(
        name, "configured", app.redirect_uris, app.title or name, methods, OF_APPS, app.scopes, app.audiences,
        app.secret_sha256, app.public_key, None, app.jwks_uri, app.trusted, app.status == "active",
    )  # fmt: skip


def is_url(id: str) -> bool:
    """Whether a client id can only be that of a document: no other has a scheme."""
    return id.startswith(("https://", "http://"))


def host_of(url: str) -> str:
    """The host of a URL as people should see it: in ASCII, so that no letter looks like another one."""
    host = urlsplit(url).hostname or ""
    return host if host.isascii() else host.encode("idna").decode("ascii")
